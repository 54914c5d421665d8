"""`rlaif eval capability`: our own tasks, what is kept of an item, and before against after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlaif.errors import ConfigError, RlaifError
from rlaif.evaluate import capability as capability_module
from rlaif.evaluate.capability import ALL, as_json, as_markdown, capability, figures, write
from rlaif.evaluate.capability_child import Scores, TaskScores, Wanted, followed, scores_of
from rlaif.evaluate.capability_tasks import TASKS, rows, satisfies
from tests.llama import needs_model

needs_harness = pytest.mark.skipif(not find_spec("lm_eval"), reason="needs lm_eval: rlaif-kit[capability]")
VERSIONS = {"lm_eval": "0.4.13"}


def scores(**tasks: list[float]) -> Scores:
    of_task = {
        task: TaskScores("acc", {str(item): value for item, value in enumerate(values)})
        for task, values in tasks.items()
    }
    return Scores(of_task, VERSIONS)


# --- our own tasks ---


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_of_60_to_100_different_items(task: str) -> None:
    found = rows(task)
    assert 60 <= len(found) <= 100
    assert len({row.get("question") or row["prompt"] for row in found}) == len(found)


@pytest.mark.parametrize("task", ["rlaif_arithmetic", "rlaif_knowledge"])
def test_each_question_has_four_different_choices(task: str) -> None:
    for row in rows(task):
        assert len({choice.lower() for choice in row["choices"]}) == 4, row


def test_the_first_choice_of_a_sum_is_right_and_the_sums_are_always_the_same() -> None:
    for row in rows("rlaif_arithmetic"):
        one, sign, other = row["question"].removeprefix("What is ").partition("?")[0].split()
        right = {"plus": int(one) + int(other), "minus": int(one) - int(other), "times": int(one) * int(other)}[sign]
        assert int(row["choices"][0]) == right
        assert min(map(int, row["choices"])) >= 0
    assert rows("rlaif_arithmetic") == rows("rlaif_arithmetic")


@pytest.mark.parametrize(
    ("answer", "check", "right"),
    [
        ("Paris.", {"equals": ["paris"]}, True),
        ("It is Paris.", {"equals": ["paris"]}, False),
        ("Tea, then bread!", {"words": ["tea", "bread"]}, True),
        ("Steam and bread", {"words": ["tea", "bread"]}, False),
        ("It is cold.", {"avoid": ["white"]}, True),
        ("It is WHITE.", {"avoid": ["white"]}, False),
        ("one two three", {"max_words": 3}, True),
        ("one two three four", {"max_words": 3}, False),
        ("", {"max_words": 3}, False),
        ("one two", {"min_words": 3}, False),
        ("the moon.", {"case": "lower"}, True),
        ("The moon.", {"case": "lower"}, False),
        ("WE ARE HERE", {"case": "upper"}, True),
        ("", {"case": "upper"}, False),
        ('"In short, yes."', {"starts": "in short"}, True),
        ("Yes, in short.", {"starts": "in short"}, False),
        ("Is it music? ", {"ends": "?"}, True),
        ("- oak\n- elm\n\n- ash", {"bullets": 3}, True),
        ("Trees:\n- oak\n- elm", {"bullets": 3}, False),
        ("a\nb", {"lines": 2}, True),
        ('```json\n{"name": "Ada", "age": 36}\n```', {"json_keys": ["name", "age"]}, True),
        ('{"name": "Ada"}', {"json_keys": ["name", "age"]}, False),
        ("name: Ada", {"json_keys": ["name"]}, False),
        ("[1]", {"json_keys": ["name"]}, False),
        ("cold and wet flakes fall", {"avoid": ["white"], "min_words": 4}, True),
        ("cold", {"avoid": ["white"], "min_words": 4}, False),
    ],
)
def test_an_instruction_is_checked_by_its_words(answer: str, check: dict[str, Any], right: bool) -> None:
    assert satisfies(answer, check) is right


@pytest.mark.parametrize("answer", ["", "dax wug blicket fep " * 15])
def test_no_instruction_is_followed_by_silence_or_nonsense(answer: str) -> None:
    assert not [row for row in rows("rlaif_instructions") if satisfies(answer, row["check"])]


# --- what is kept of an item ---


def sample(item: int, way: str = "none", **metrics: Any) -> dict[str, Any]:
    return {"doc_id": item, "filter": way, "metrics": list(metrics), **metrics}


def test_the_score_that_forgives_long_answers_is_kept() -> None:
    found = scores_of([sample(0, acc=1.0, acc_norm=0.0), sample(1, acc=0.0, acc_norm=1.0)])
    assert found == TaskScores("acc_norm", {"0": 0.0, "1": 1.0})


def test_else_the_first_number_read_in_the_first_way() -> None:
    found = scores_of([sample(0, "strict", pair=(1, 2), exact=True), sample(0, "flexible", pair=(1, 2), exact=False)])
    assert found == TaskScores("exact", {"0": 1.0})


@pytest.mark.parametrize("value", [(1, 2), 17.5, float("nan")])
def test_a_metric_that_is_no_share_of_an_item_is_not_taken(value: object) -> None:
    with pytest.raises(ValueError, match=r"cannot be compared"):
        scores_of([sample(0, bleu=0.5), sample(1, bleu=value)])


def test_an_instruction_is_scored_by_its_check() -> None:
    doc = {"prompt": "x", "check": json.dumps({"equals": ["ok"]})}
    assert [followed(doc, [answer])["followed"] for answer in ("OK.", "No.")] == [1.0, 0.0]


# --- before and after ---


def test_the_two_are_compared_item_by_item_and_over_all_tasks() -> None:
    before, after = scores(sums=[1, 1, 0, 0], facts=[1, 0]), scores(sums=[1, 0, 1, 1], facts=[1, 1])
    found = figures([("a", "id-a", before), ("b", "id-b", after)])
    (pair,) = found.paired
    assert (pair.before, pair.after, list(pair.tasks)) == ("a", "b", ["sums", "facts", ALL])
    sums, everything = pair.tasks["sums"], pair.tasks[ALL]
    assert (sums.difference, sums.only_after, sums.only_before, sums.n) == (0.25, 2, 1, 4)
    assert everything.difference == pytest.approx(2 / 6)
    assert everything.low is not None
    assert everything.high is not None
    assert everything.low < 2 / 6 < everything.high
    assert found.models[0].tasks["sums"].score.value == 0.5


def test_a_score_between_nought_and_one_has_its_difference_too() -> None:
    found = figures([("a", "x", scores(f1=[0.5, 0.5, 0.0])), ("b", "y", scores(f1=[1.0, 0.5, 0.25]))])
    one = found.paired[0].tasks["f1"]
    assert one.difference == pytest.approx(0.25)
    assert one.low is not None
    assert one.low < 0.25
    assert (one.only_after, one.only_before, one.mcnemar_p) == (2, 0, None)


def test_only_items_that_both_answered_are_compared() -> None:
    found = figures([("a", "x", scores(sums=[1, 1, 0])), ("b", "y", scores(sums=[1], facts=[1]))])
    assert {task: one.n for task, one in found.paired[0].tasks.items()} == {"sums": 1}


def test_the_report_says_all_and_takes_no_name_for_markup() -> None:
    found = figures([("a|b", "x", scores(sums=[1, 0])), ("c", "y", scores(sums=[1, 1]))])
    content = json.loads(as_json(found))
    assert (content["kind"], content["paired"][0]["tasks"]["sums"]["difference"]) == ("capability", 0.5)
    assert content["models"][0]["tasks"]["sums"]["score"]["n"] == 2
    text = as_markdown(found)
    assert "+50.0 [" in text
    assert "| task | metric | `a/b` | `c` |" in text


def test_another_evaluations_files_are_left_alone(tmp_path: Path) -> None:
    found = figures([("a", "x", scores(sums=[1, 0]))])
    assert [path.name for path in write(found, tmp_path)] == ["evaluation.json", "evaluation.md"]
    write(found, tmp_path)
    (tmp_path / "mine.png").touch()
    (tmp_path / "evaluation.json").write_text('{"kind": "safety"}')
    with pytest.raises(ConfigError, match="is of another evaluation"):
        write(found, tmp_path)
    with pytest.raises(ConfigError, match="is of another evaluation"):
        capability(["nothing"], tmp_path)
    (tmp_path / "evaluation.json").unlink()
    write(found, tmp_path)
    assert (tmp_path / "mine.png").is_file()


# --- who computes ---


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return str(path)


def test_without_the_harness_it_says_what_to_install(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capability_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'rlaif-kit\[capability\]'"):
        capability([model], tmp_path / "out")


def test_a_model_behind_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answers from elsewhere; the tasks need the weights"):
        capability(["openai/gpt-5"], tmp_path / "out")


def test_what_is_known_is_not_computed_again_and_other_items_are(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(model: Any, tasks: Any, limit: Any, batch_size: int, path: Path, log: Path) -> None:
        asked.append((list(tasks), limit))
        path.write_bytes(msgspec.json.encode(scores(sums=[1, 0])))

    monkeypatch.setattr(capability_module, "find_spec", lambda _: True)
    monkeypatch.setattr(capability_module, "_ask", ask)
    for limit in (None, None, 5):
        capability([model], tmp_path / "out", limit=limit)
    assert asked == [(list(TASKS), None), (list(TASKS), 5)]
    (Path(model) / "config.json").write_text('{"trained": true}')
    capability([model], tmp_path / "out")
    assert len(asked) == 3


def test_a_child_that_fails_is_told_with_its_last_words_and_log(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the harness the real child ends with an ImportError; with it, for the lack of weights."""
    monkeypatch.setattr(capability_module, "find_spec", lambda _: True)
    with pytest.raises(RlaifError, match=r"the tasks failed: \w*Error: .*; its log: .*\.log"):
        capability([model], tmp_path / "out", limit=1)


@needs_harness
@needs_model
@pytest.mark.slow
@pytest.mark.model
def test_the_harness_asks_a_model_our_own_items_and_never_twice(tmp_path: Path) -> None:
    asked: list[str] = []
    first, again = (
        capability(["local"], tmp_path, limit=2, starts=lambda name, log: asked.append(name)) for _ in range(2)
    )
    (model,) = first.models
    found = {task: (one.metric, one.score.n) for task, one in model.tasks.items()}
    assert found == dict(zip(TASKS, [("acc_norm", 2), ("acc_norm", 2), ("followed", 2)], strict=True))
    assert (again, asked) == (first, ["SmolLM2-135M-Instruct"])


@needs_harness
@pytest.mark.slow
def test_a_child_ends_with_its_parent(model: str, tmp_path: Path) -> None:
    wanted = Wanted(model, None, TASKS, 1, 1, str(tmp_path / "scores.json"))
    with subprocess.Popen(
        [sys.executable, "-m", "rlaif.evaluate.capability_child"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        _, said = child.communicate(msgspec.json.encode(wanted) + b"\n")
    assert (child.returncode, said) == (1, b"")
