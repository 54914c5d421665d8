"""Who refuses what: exact figures on planted answers, from the question to evaluation.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.backends import ModelSpec
from rlaif.backends.scripted import ScriptedBackend
from rlaif.errors import ConfigError
from rlaif.evaluate.asking import Answered, Asking, Options, ask
from rlaif.evaluate.models import judge_of, models_of
from rlaif.evaluate.near import near
from rlaif.evaluate.notes import safety_notes
from rlaif.evaluate.prompts import PromptSet
from rlaif.evaluate.report import as_json, write
from rlaif.evaluate.safety import SAFE, UNSAFE, Safety, kind_of, safety
from rlaif.evaluate.sheet import agreement, write_sheet
from rlaif.job import Result
from rlaif.types import Completion, Request, Response, TokenLogprob

REFUSAL = "I'm sorry, but I can't help with that."
PARTIAL = (
    "I can't help you do that to others, but here is how it works in general: the lock has five pins, the key lifts "
    "each of them to the right height, and then the cylinder turns. The pins are made of brass."
)
ANSWER = "Take the first one, put it on the second one, and wait until it is done."

Planted = dict[str, Callable[[str], Completion | str]]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    """Model name -> prompt -> answer."""
    models: Planted = {}

    def opened(spec: ModelSpec, *_: object) -> ScriptedBackend:
        return ScriptedBackend(lambda request: _answer(models[spec.model], request))

    monkeypatch.setattr("rlaif.models.open_backend", opened)
    return models


def _answer(answers: Callable[[str], Completion | str], request: Request) -> Completion | str:
    if request.messages[-1].content.endswith("Answer with the letter only."):  # what a run asks each model first
        return digit("A")
    return answers(request.messages[-1].content)


def digit(token: str) -> Completion:
    return Completion(token, logprobs=(TokenLogprob(token, -0.01, ((token, -0.01), ("x", -5.0))),))


def prompts(folder: Path, name: str, n: int, *, categories: int = 2) -> PromptSet:
    rows = [{"prompt": f"{name} {i}?", "category": f"{name}{i % categories}"} for i in range(n)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PromptSet(str(folder / f"{name}.jsonl"))


def number(prompt: str) -> int:
    return int(prompt.split()[-1].rstrip("?"))


def asked(folder: Path, *models: str, unsafe: int = 20, safe: int = 10, **more: Any) -> tuple[Result, Answered | None]:
    sets = {UNSAFE: prompts(folder, "bad", unsafe), SAFE: prompts(folder, "good", safe)}
    named = models_of([f"scripted/{model}" for model in models])
    judge = more.pop("judge", None)
    stages = ({"rate": {"rubric": "compliance"}},) if judge else ()
    asking = Asking("safety", named, sets, 64, stages, judge_of(f"scripted/{judge}").spec if judge else None)
    return ask(asking, Options(folder / "runs", {}, **more))


def figures(folder: Path, *models: str, judge: str | None = None, **more: Any) -> Safety:
    _, answered = asked(folder, *models, judge=judge, **more)
    assert answered is not None
    return safety(answered, judge)


def before(prompt: str) -> str:
    """Of 20 bad ones it refuses 5 and answers 3 in part; of 10 good ones it refuses 1."""
    i = number(prompt)
    if prompt.startswith("bad"):
        return REFUSAL if i < 5 else PARTIAL if i < 8 else f"{ANSWER} {i}"
    return REFUSAL if i == 0 else f"{ANSWER} {i}"


def after(prompt: str) -> str:
    """It refuses 14 of the bad ones, not the first of them, and 2 of the good."""
    i = number(prompt)
    if prompt.startswith("bad"):
        return REFUSAL if 1 <= i < 15 else f"{ANSWER} {i}"
    return REFUSAL if i < 2 else f"{ANSWER} {i}"


def test_the_planted_texts_are_read_as_they_are_meant() -> None:
    assert [kind_of(Response(text, "m")) for text in (REFUSAL, PARTIAL, ANSWER)] == ["full", "partial", "comply"]


def test_each_share_counts_what_was_planted(tmp_path: Path, planted: Planted) -> None:
    planted |= {"old": before, "new": after}
    found = figures(tmp_path, "old", "new")
    old, new = found.models
    assert old.unsafe
    assert old.safe
    assert new.unsafe
    assert new.safe
    assert old.unsafe.harmful_compliance.value == 15 / 20
    assert (old.unsafe.full.value, old.unsafe.partial.value) == (12 / 20, 3 / 20)
    assert new.unsafe.harmful_compliance.value == 6 / 20
    assert (old.safe.over_refusal.value, new.safe.over_refusal.value) == (0.1, 0.2)
    assert old.unsafe.harmful_compliance.low == pytest.approx(0.5313, abs=1e-4)  # statsmodels' proportion_confint
    assert {name: (one.value, one.n) for name, one in old.unsafe.by_category.items()} == {
        "bad0": (7 / 10, 10),
        "bad1": (8 / 10, 10),
    }
    (paired,) = found.paired
    assert paired.harmful_compliance
    assert paired.over_refusal
    assert paired.harmful_compliance.difference == pytest.approx(-9 / 20)
    assert (paired.harmful_compliance.only_before, paired.harmful_compliance.only_after) == (10, 1)
    assert paired.harmful_compliance.mcnemar_p == pytest.approx(24 / 2**11)
    assert (paired.over_refusal.difference, paired.over_refusal.mcnemar_p) == (pytest.approx(0.1), 1.0)


def test_a_refusal_in_part_complies_and_counts_as_over_refusal_only_in_the_second_figure(
    tmp_path: Path, planted: Planted
) -> None:
    planted["m"] = lambda prompt: PARTIAL
    (model,) = figures(tmp_path, "m").models
    assert model.unsafe
    assert model.safe
    assert (model.unsafe.harmful_compliance.value, model.unsafe.partial.value) == (1.0, 1.0)
    assert (model.safe.over_refusal.value, model.safe.with_partial.value) == (0.0, 1.0)


def test_what_says_nothing_or_is_called_a_refusal_refuses(tmp_path: Path, planted: Planted) -> None:
    planted["m"] = lambda prompt: Completion(ANSWER, "refusal") if prompt.startswith("bad") else "  "
    (model,) = figures(tmp_path, "m").models
    assert model.unsafe
    assert model.safe
    assert (model.unsafe.harmful_compliance.value, model.safe.over_refusal.value) == (0.0, 1.0)
    assert model.safe.style.empty == 1.0


def test_each_answer_belongs_to_its_model_though_several_say_the_same(tmp_path: Path, planted: Planted) -> None:
    planted |= {"a": before, "b": before, "c": after}
    found = figures(tmp_path, "a", "b", "c")
    a, b, c = (model.unsafe.harmful_compliance.value if model.unsafe else None for model in found.models)
    assert (a, b, c) == (0.75, 0.75, 0.3)
    same = found.paired[0].harmful_compliance
    assert same
    assert (same.difference, same.only_before, same.mcnemar_p) == (0.0, 0, 1.0)


def test_what_the_first_was_asked_before_is_not_asked_again(tmp_path: Path, planted: Planted) -> None:
    planted |= {"old": before, "new": after}
    first, _ = asked(tmp_path, "old")
    second, _ = asked(tmp_path, "old", "new")
    assert first.summary["calls"]["sent"] == 30 + 1
    assert second.summary["calls"]["sent"] == 30 + 1
    assert first.run != second.run
    again, answered = asked(tmp_path, "old", "new")
    assert (again.run, again.summary["calls"]["sent"]) == (second.run, 0)
    assert answered is not None


def test_the_prompts_of_an_evaluation_become_no_dataset(tmp_path: Path, planted: Planted) -> None:
    planted["m"] = before
    result, _ = asked(tmp_path, "m")
    assert not list(result.dataset.rglob("*.parquet"))


def test_a_dry_run_asks_and_writes_nothing(tmp_path: Path, planted: Planted) -> None:
    result, answered = asked(tmp_path, "m", dry_run=True)
    assert (answered, result.estimate.calls if result.estimate else None) == (None, 30)
    assert not (tmp_path / "runs" / result.run).exists()


def test_a_run_is_gone_on_with_only_with_the_same_prompts(tmp_path: Path, planted: Planted) -> None:
    planted["m"] = before
    asked(tmp_path, "m", run="mine")
    with pytest.raises(ConfigError, match="run 'mine' was made with other unsafe prompts; choose another --run"):
        asked(tmp_path, "m", run="mine", unsafe=21)


def test_a_prompt_that_failed_is_in_no_figure(tmp_path: Path, planted: Planted) -> None:
    from rlaif.errors import ProviderError

    def faulty(prompt: str) -> str:
        if prompt == "bad 0?":
            raise ProviderError("context_length", "too long")
        return after(prompt)

    planted |= {"old": before, "new": faulty}
    _, answered = asked(tmp_path, "old", "new")
    assert answered is not None
    found = safety(answered)
    assert found.failed == 1
    assert [model.unsafe.n for model in found.models if model.unsafe] == [19, 19]
    assert "1 prompt has no answer of every model" in safety_notes(found, answered)[0]


# --- other raters ---


def rated(prompt: str) -> Completion:
    """A judge that takes a partial refusal for an answer, and everything else as the detector does."""
    answer = prompt.rpartition("<response>")[2]
    return digit("1" if REFUSAL in answer else "9")


def test_a_judge_is_a_second_opinion_with_its_agreement(tmp_path: Path, planted: Planted) -> None:
    planted |= {"old": before, "new": after, "judge": rated}
    found = figures(tmp_path, "old", "new", judge="judge")
    old = found.models[0].unsafe
    assert old
    (opinion,) = old.opinions
    assert (opinion.rater, opinion.rated, opinion.of) == ("judge", 20, 20)
    assert (opinion.share.value, opinion.kappa.value) == (0.75, 1.0)
    assert found.agreement
    assert (found.agreement.rated, found.agreement.kappa.value) == (60, 1.0)
    assert 0.8 < (found.agreement.kappa_of_three.value or 0.0) < 1.0  # three partial ones of 60 are seen as answers


def test_answers_that_the_judge_cannot_rate_are_left_out_of_its_share(tmp_path: Path, planted: Planted) -> None:
    planted |= {"old": before, "judge": lambda prompt: digit("?") if PARTIAL in prompt else rated(prompt)}
    unsafe = figures(tmp_path, "old", judge="judge").models[0].unsafe
    assert unsafe
    (opinion,) = unsafe.opinions
    assert (opinion.rated, opinion.of, opinion.share.value) == (17, 20, 12 / 17)


def test_a_classifier_says_how_many_unsafe_prompts_did_harm(tmp_path: Path, planted: Planted) -> None:
    planted["old"] = before
    _, answered = asked(tmp_path, "old")
    assert answered is not None
    shown: list[str] = []

    def harm(asked: Any, answers: Any) -> list[float]:
        shown.extend(asked)
        return [0.9 if answer.startswith(ANSWER) else 0.2 for answer in answers]

    unsafe = safety(answered, classifiers={"mine": harm}).models[0].unsafe
    assert unsafe
    (opinion,) = unsafe.opinions
    assert (opinion.rater, opinion.share.value) == ("mine", 12 / 20)
    assert sorted(shown) == sorted(f"bad {i}?" for i in range(20))


# --- what else is said of answers ---


def test_a_collapsed_model_is_told_by_its_answers(tmp_path: Path, planted: Planted) -> None:
    planted |= {"old": lambda prompt: f"{number(prompt)} is what it is", "new": lambda _: "As you wish, yes."}
    _, answered = asked(tmp_path, "old", "new", safe=40)
    assert answered is not None
    found = safety(answered)
    old, new = (model.safe.style for model in found.models if model.safe)
    assert (old.same, old.distinct) == (1 / 40, 1.0)
    assert (new.same, new.distinct, new.boilerplate, new.opening) == (1.0, 1 / 40, 1.0, "as you wish yes")
    assert new.length == 4
    notes = safety_notes(found, answered)
    assert notes == ("`new` gives one answer to 100% of the safe prompts: `as you wish, yes.`.",)


def test_a_model_that_says_word_for_word_the_same_may_not_be_the_trained_one(tmp_path: Path, planted: Planted) -> None:
    planted |= {"old": before, "new": before}
    _, answered = asked(tmp_path, "old", "new")
    assert answered is not None
    assert safety_notes(safety(answered), answered) == (
        "`new` says word for word what `old` says: did its training change it?",
    )


def test_models_of_two_engines_are_told_of_the_rounding(tmp_path: Path, planted: Planted) -> None:
    planted |= {"old": before, "new": after}
    _, answered = asked(tmp_path, "old", "new")
    assert answered is not None
    old, new = answered.models
    specs = ModelSpec(provider="local"), ModelSpec(provider="transformers")
    models = tuple(replace(model, spec=spec) for model, spec in zip((old, new), specs, strict=True))
    notes = safety_notes(safety(answered), replace(answered, models=models))
    assert notes[0].startswith("`old` was computed by local, `new` by transformers")


def test_circles_emoji_and_cut_answers_are_counted(tmp_path: Path, planted: Planted) -> None:
    loop = "and so it goes on and on " * 20
    planted["m"] = lambda prompt: (
        Completion(loop, "length") if number(prompt) % 2 else Completion(f"Fine \N{GRINNING FACE} {prompt}")
    )
    (model,) = figures(tmp_path, "m").models
    assert (model.style.repetition, model.style.emoji, model.style.truncated) == (0.5, 0.5, 0.5)


def test_training_prompts_that_are_asked_again_are_named(tmp_path: Path, planted: Planted) -> None:
    planted["m"] = before
    _, answered = asked(tmp_path, "m")
    assert answered is not None
    train = tmp_path / "train" / "preference"
    train.mkdir(parents=True)
    rows: list[dict[str, Any]] = [{"prompt": [{"role": "user", "content": "Bad 3"}]}, {"prompt": "something else"}]
    (train / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = near(str(tmp_path / "train"), answered.records)
    assert (found.found, found.of, found.examples) == (1, 30, ("bad 3?",))
    notes = safety_notes(safety(answered), answered, [found])
    assert "1 of 30 prompts are in" in notes[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no prompts in it"):
        near(str(tmp_path / "empty"), answered.records)


# --- files ---


def test_the_json_has_the_promised_keys_and_the_page_holds_no_text_of_others_as_markup(
    tmp_path: Path, planted: Planted
) -> None:
    nasty = "```\n</details><script>alert(1)</script> | `x`"
    planted |= {"old": lambda _: REFUSAL, "<b>new": lambda prompt: f"{nasty} {prompt}"}
    result, answered = asked(tmp_path, "old", "<b>new")
    assert answered is not None
    found = safety(answered)
    paths = write(found, answered, result.folder, plots=False)
    content = json.loads(paths[0].read_bytes())
    assert content == json.loads(as_json(found))
    assert (content["format"], content["kind"], content["run"]) == (1, "safety", result.run)
    assert content["models"][0]["unsafe"]["harmful_compliance"] == {
        "value": 0.0,
        "low": 0.0,
        "high": pytest.approx(0.16113, abs=1e-4),
        "n": 20,
    }
    assert set(content["paired"][0]["harmful_compliance"]) >= {"difference", "low", "high", "mcnemar_p"}
    assert {"length", "repetition", "emoji", "boilerplate"} <= set(content["models"][0]["style"])
    page = paths[1].read_text()
    assert page.startswith("## Safety\n")
    assert "No longer refused" in page
    outside = [part for i, part in enumerate(page.split("````")) if i % 2 == 0]
    assert "<script>" in page
    assert not any("<script>" in part for part in outside)
    assert "| `<b>new` |" in page


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path, planted: Planted) -> None:
    pytest.importorskip("matplotlib")
    planted |= {"old": before, "new": after}
    result, answered = asked(tmp_path, "old", "new")
    assert answered is not None
    written = {path.name: path.read_bytes() for path in write(safety(answered), answered, result.folder)}
    assert {name for name in written if name.endswith(".png")} == {
        "rates.png",
        "harmful-compliance.png",
        "over-refusal.png",
    }
    assert all(data.startswith(b"\x89PNG") for name, data in written.items() if name.endswith(".png"))


# --- a sheet for people ---


def test_a_sheet_does_not_say_whose_an_answer_is_and_the_detector_is_held_against_its_labels(
    tmp_path: Path, planted: Planted
) -> None:
    planted |= {"old": before, "new": after}
    _, answered = asked(tmp_path, "old", "new")
    assert answered is not None
    path = tmp_path / "sheet.jsonl"
    assert write_sheet(answered, path, 30) == 30
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(set(row) == {"id", "prompt", "answer", "label"} for row in rows)
    assert len({(row["prompt"], row["answer"]) for row in rows}) == 30
    assert [row["prompt"] for row in rows] != sorted(row["prompt"] for row in rows)
    assert "old" not in path.read_text()
    with pytest.raises(ConfigError, match="is there already"):
        write_sheet(answered, path, 30)
    truth = {REFUSAL: "refuse", PARTIAL: "Partial"}
    labelled = [row | {"label": truth.get(row["answer"], "comply")} for row in rows]
    labelled[0]["label"] = ""
    wrong = next(row for row in labelled[1:] if row["label"] == "comply")
    wrong["label"] = "refuse"
    path.write_text("".join(json.dumps(row) + "\n" for row in labelled))
    found = agreement(path)
    assert (found.labelled, found.unlabelled, found.right.value) == (29, 1, 28 / 29)
    assert found.counts["refuse"]["comply"] == 1
    people = np.array([row["label"] == "refuse" for row in labelled[1:]])
    detector = np.array([row["answer"] == REFUSAL for row in labelled[1:]])
    from sklearn.metrics import cohen_kappa_score

    assert found.kappa.value == pytest.approx(cohen_kappa_score(people, detector))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"answer": "Yes.", "label": "maybe"}, "'label' is 'maybe'; write comply, partial or refuse"),
        ({"answer": "Yes."}, "no column 'label'"),
        ({"answer": "Yes.", "label": ""}, "no answer has a label"),
    ],
)
def test_a_sheet_without_proper_labels_is_refused(tmp_path: Path, row: dict[str, str], why: str) -> None:
    path = tmp_path / "sheet.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ConfigError, match=why):
        agreement(path)
