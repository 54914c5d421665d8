"""Whose answers a judge prefers: planted qualities, through a run, as wins, ties and losses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.backends import ModelSpec
from rlaif.backends.scripted import Script, ScriptedBackend
from rlaif.evaluate.asking import Answered, Asking, Options, ask
from rlaif.evaluate.headtohead import HeadToHead, Pair, head_to_head
from rlaif.evaluate.models import judge_of, models_of
from rlaif.evaluate.notes import comparison_notes
from rlaif.evaluate.prompts import PromptSet
from rlaif.evaluate.report import as_json, as_markdown, write
from rlaif.types import Completion, Request

Answers = Callable[[int], str]


class Planted(dict[str, Answers]):
    """Model name -> number of the prompt -> answer, whose quality the judge sees as rlaif.backends.scripted does."""

    judge = Script(skill=100.0)

    def opened(self, spec: ModelSpec, *_: object) -> ScriptedBackend:
        def answer(request: Request) -> Completion | str:
            asked = request.messages[-1].content
            if spec.model not in self or asked.endswith("Answer with the letter only."):
                return self.judge(request)
            number = int(asked.split()[-1].rstrip("?"))
            return f"{number}. {self[spec.model](number)}"

        return ScriptedBackend(answer)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    models = Planted()
    monkeypatch.setattr("rlaif.models.open_backend", models.opened)
    return models


def quality(value: float, more: str = "") -> str:
    return f"said of quality {value:.3f}:{more}"


def asked(folder: Path, *models: str, n: int = 20, principles: str = "draw", judge: str = "judge") -> Answered:
    rows = [{"prompt": f"Question {i}?", "category": "even" if i % 2 == 0 else "odd"} for i in range(n)]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, answered = ask(
        Asking(
            "compare",
            models_of([f"scripted/{model}" for model in models]),
            {"prompts": PromptSet(str(folder / "asked.jsonl"))},
            64,
            ({"judge": {"principles": principles}},),
            judge_of(f"scripted/{judge}").spec,
            "helpful-honest-harmless",
        ),
        Options(folder / "runs", {}),
    )
    assert answered is not None
    return answered


def compared(folder: Path, *models: str, **more: Any) -> HeadToHead:
    return head_to_head(asked(folder, *models, **more), "judge")


def counts(pair: Pair) -> tuple[int, int, int]:
    shares = (pair.win.value, pair.tie.value, pair.loss.value)
    return tuple(round(pair.n * (share or 0.0)) for share in shares)  # type: ignore[return-value]


def test_wins_ties_and_losses_are_those_that_were_planted(tmp_path: Path, planted: Planted) -> None:
    planted |= {
        "a": lambda i: quality(0.5),
        "b": lambda i: quality(0.2) if i < 12 else quality(0.5) if i < 15 else quality(0.9),
    }
    (pair,) = compared(tmp_path, "a", "b").pairs
    assert counts(pair) == (12, 3, 5)
    assert (pair.n, pair.same, pair.unjudged) == (20, 3, 0)
    assert pair.win_rate.value == pytest.approx((12 + 1.5) / 20)
    assert pair.consistency.value == 1.0
    assert pair.sign_p == pytest.approx(0.1434, abs=1e-4)  # scipy.stats.binomtest(5, 17)
    assert {name: one.value for name, one in pair.by_category.items()} == {"even": 0.7, "odd": 0.65}


def test_a_winner_that_changes_with_the_order_is_a_tie(tmp_path: Path, planted: Planted) -> None:
    planted.judge = Script(skill=0.0, position_bias=9.0)
    planted |= {"a": lambda i: quality(0.9), "b": lambda i: quality(0.1)}
    answered = asked(tmp_path, "a", "b")
    found = head_to_head(answered, "judge")
    (pair,) = found.pairs
    assert counts(pair) == (0, 20, 0)
    assert (pair.win_rate.value, pair.consistency.value, pair.sign_p) == (0.5, 0.0, 1.0)
    assert any("only 0% of the time" in note for note in comparison_notes(found, answered))


def test_several_principles_are_averaged(tmp_path: Path, planted: Planted) -> None:
    planted |= {"a": lambda i: quality(0.9), "b": lambda i: quality(0.1)}
    answered = asked(tmp_path, "a", "b", n=3, principles="all")
    assert len(answered.records[0].verdicts) > 1
    (pair,) = head_to_head(answered, "judge").pairs
    assert counts(pair) == (3, 0, 0)


def test_what_the_judge_says_nothing_usable_on_is_in_no_figure(tmp_path: Path, planted: Planted) -> None:
    planted.judge = Script(skill=100.0, refusal_rate=0.5)
    planted |= {"a": lambda i: quality(0.9), "b": lambda i: quality(0.1)}
    answered = asked(tmp_path, "a", "b")
    found = head_to_head(answered, "judge")
    (pair,) = found.pairs
    assert 0 < pair.n < 20
    assert pair.n + pair.unjudged == 20
    assert pair.win.value == 1.0
    assert f"{pair.unjudged} prompts have no usable verdict" in comparison_notes(found, answered)[0]


def test_three_models_are_ranked_and_each_two_compared(tmp_path: Path, planted: Planted) -> None:
    pytest.importorskip("choix")
    chance = np.random.default_rng(0)
    levels = {"low": 0.3, "high": 0.7, "middle": 0.5}
    noise = {name: chance.normal(0, 0.15, 40) for name in levels}
    for name in levels:
        planted[name] = lambda i, name=name: quality(levels[name] + noise[name][i])  # type: ignore[misc]
    found = compared(tmp_path, *levels, n=40)
    assert [(one.a, one.b) for one in found.pairs] == [("low", "high"), ("low", "middle"), ("high", "middle")]
    assert [one.model for one in found.bradley_terry] == ["high", "middle", "low"]
    assert all(pair.length_controlled_win_rate is not None for pair in found.pairs)
    difficulty = [pair.length_controlled_win_rate.difficulty for pair in found.pairs if pair.length_controlled_win_rate]
    assert any(one is not None for one in difficulty)


def test_a_judge_that_likes_length_is_seen_through(tmp_path: Path, planted: Planted) -> None:
    """The first writes longer on half of the prompts and shorter on the others, and wins where it is longer."""
    filler = " more" * 40
    planted |= {
        "a": lambda i: quality(0.9, filler) if i % 4 else quality(0.1),
        "b": lambda i: quality(0.5, " more" * 20),
    }
    (pair,) = compared(tmp_path, "a", "b", n=60).pairs
    assert pair.win_rate.value == 0.75
    controlled = pair.length_controlled_win_rate
    assert controlled is not None
    assert controlled.length is not None
    assert controlled.length > 2
    assert controlled.value < 0.65


def test_two_models_have_no_difficulty_and_no_rank(tmp_path: Path, planted: Planted) -> None:
    planted |= {"a": lambda i: quality(0.9), "b": lambda i: quality(i / 20)}
    found = compared(tmp_path, "a", "b")
    assert found.bradley_terry == ()
    assert found.pairs[0].length_controlled_win_rate is not None
    assert found.pairs[0].length_controlled_win_rate.difficulty is None


def test_a_model_that_judges_itself_is_noted(tmp_path: Path, planted: Planted) -> None:
    planted |= {"a": lambda i: quality(0.9), "b": lambda i: quality(0.1)}
    answered = asked(tmp_path, "a", "b")
    assert comparison_notes(head_to_head(answered, "judge"), answered) == ()
    assert "`a` judges its own answers" in comparison_notes(head_to_head(answered, "a"), answered)[0]


def test_the_files_have_the_promised_keys_and_examples_of_both_sides(tmp_path: Path, planted: Planted) -> None:
    nasty = "</details><script>x</script>"
    planted |= {"a": lambda i: quality(0.9, nasty), "b": lambda i: quality(0.95 if i == 7 else 0.1)}
    answered = asked(tmp_path, "a", "b")
    found = head_to_head(answered, "judge")
    content = json.loads(as_json(found))
    assert (content["format"], content["kind"], content["judge"]) == (1, "compare", "judge")
    (pair,) = content["pairs"]
    assert {"a", "b", "n", "win", "tie", "loss", "win_rate", "length_controlled_win_rate"} <= set(pair)
    assert {"value", "low", "high"} <= set(pair["length_controlled_win_rate"])
    assert content["bradley_terry"] == []
    assert [one["win_rate"]["value"] for one in content["by_category"]["even"]] == [1.0]
    assert [one["model"] for one in content["models"]] == ["a", "b"]
    page = as_markdown(found, answered)
    assert page.count("The first is preferred") == 4
    assert page.count("The second is preferred") == 1
    assert "<script>" in page
    fenced = page.split("```")
    assert not any("<script>" in part for i, part in enumerate(fenced) if i % 2 == 0)
    written = write(found, answered, tmp_path, plots=False)
    assert [path.name for path in written] == ["evaluation.json", "evaluation.md"]


def test_pictures_are_drawn(tmp_path: Path, planted: Planted) -> None:
    pytest.importorskip("matplotlib")
    planted |= {name: lambda i, q=q: quality(q) for name, q in (("a", 0.1), ("b", 0.5), ("c", 0.9))}  # type: ignore[misc]
    answered = asked(tmp_path, "a", "b", "c", n=4)
    written = write(head_to_head(answered, "judge"), answered, tmp_path)
    assert {path.name for path in written if path.suffix == ".png"} == {"win-rates.png", "strengths.png"}
