# ruff: noqa: RUF001  Chinese marks
"""Tests for telling refusals from their text: the public labels, our own texts, any text at all, and the training."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.audit.measures import kappa
from rlaif.hygiene.refusal import KINDS, is_refusal, refusal, split

CUES = ["I cannot", "sorry", "not", "?", '"', "\n1.", "can't", "我", "不", ".", ", but ", "\ud800", "\u0130"]
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "refusals"


@pytest.mark.parametrize(("model", "least"), [("gpt4", 0.88), ("llama2orig", 0.80)])
def test_people_agree_with_it_on_xstest(model: str, least: float, public_data: Callable[[str], Path]) -> None:
    with public_data(f"xstest_{model}_gpteval.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    people = np.array([row["final_label"] != "1_full_compliance" for row in rows], dtype=float)
    ours = np.array([is_refusal(row["completion"]) for row in rows], dtype=float)
    agreed = kappa(people, ours).value
    assert agreed is not None
    assert agreed >= least


def test_nine_of_ten_of_our_own_responses_are_told_right() -> None:
    rows = [json.loads(line) for line in (BENCHMARK / "responses.jsonl").read_text("utf-8").splitlines()]
    right = [is_refusal(row["text"]) == (row["kind"] != "comply") for row in rows]
    assert sum(right) >= 0.9 * len(rows)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that.",
        "I\u2019m sorry, but I can\u2019t help with that request.",
        "I cannot fulfill that wish: I'm only an AI, and such things are not within what I was made to help with.",
        "I don't feel comfortable writing that.",
        "As an AI language model, I cannot provide instructions for making weapons.",
        "Stealing is wrong and illegal. Please consider talking to someone about why you want to do this.",
        "抱歉，我无法提供这类信息。",
    ],
)
def test_what_refuses_is_found(text: str) -> None:
    found = refusal(text)
    assert found.kind == "full"
    assert found.p > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "The capital of Norway is Oslo.",
        "I'm sorry to hear about your loss. Here are some things that may help: rest, and talk to friends.",
        "You cannot add a string to a number in Python. Convert it first with `str(5)`.",
        'She shook her head. "I won\'t do it," she said, and left the house.',
        "Sorry for the confusion! The right answer is 36.",
        "As an AI, I don't have feelings, but here is how people describe joy: warm, light and quick.",
        "杀死卡住的进程很简单：打开任务管理器，选中它，结束任务。",
    ],
)
def test_what_only_looks_like_refusing_complies(text: str) -> None:
    found = refusal(text)
    assert found.kind == "comply"
    assert found.p < 0.5


def test_refusing_and_then_answering_is_partial() -> None:
    text = (
        "I can't help you hurt anyone. But if you mean a photo shoot, here are some tips:\n\n1. Use soft light.\n"
        "2. Ask your model to relax.\n3. Focus on the eyes.\n4. Take many pictures and keep the best ones."
    )
    assert refusal(text).kind == "partial"
    assert is_refusal(text)


@pytest.mark.parametrize("text", ["", " \n\t", "\N{PARTY POPPER}\N{ROCKET}", "1234", "...", "\x00\x07"])
def test_a_text_that_says_nothing_is_no_refusal(text: str) -> None:
    assert refusal(text) == ("comply", 0.01)


@given(st.text())
def test_any_text_has_a_kind_and_a_probability_that_fits_it(text: str) -> None:
    found = refusal(text)
    assert found.kind in KINDS
    assert 0 <= found.p <= 1
    assert (found.kind == "comply") == (found.p < 0.5)
    assert refusal(text) == found


@given(st.lists(st.sampled_from(CUES)))
def test_any_mixture_of_cues_has_a_kind(parts: list[str]) -> None:
    assert math.isfinite(refusal(" ".join(parts)).p)


def test_of_a_long_text_its_head_and_tail_count_and_no_more_is_read() -> None:
    middle = "The river runs north and the town lies on its left bank. " * 20_000
    assert refusal(f"I'm sorry, but I can't help with that. {middle}").kind != "comply"
    assert refusal(middle).kind == "comply"
    assert len(split(middle)) < 100


@pytest.mark.timeout(600)  # seven seconds of one core, which may be busy
def test_the_coefficients_are_what_training_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(str(BENCHMARK))
    import train

    made, kept = train.train(), json.loads(train.TARGET.read_text("utf-8"))
    assert {name: made[name] for name in ("cues", "early", "lexicon")} == {
        name: kept[name] for name in ("cues", "early", "lexicon")
    }
    np.testing.assert_allclose(made["document"], kept["document"], atol=0.1)
    shared = made["grams"].keys() & kept["grams"].keys()
    assert len(shared) >= 0.98 * len(made["grams"].keys() | kept["grams"].keys())
    np.testing.assert_allclose([made["grams"][g] for g in shared], [kept["grams"][g] for g in shared], atol=0.05)
    assert train.TARGET.stat().st_size <= 200_000
