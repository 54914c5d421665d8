"""Each dataset's rows are what its trainer reads, and nothing in them is made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from msgspec.structs import replace

from rlaif.export import About, ExportSettings, export_dataset, pairs_of
from rlaif.export.rows import Row, rows_of
from rlaif.export.settings import Config, SftKind
from rlaif.types import Drop, Message, Record, Score
from tests.export.made import reasoned, record

DEFAULT = ExportSettings()
ABOUT = About(run="demo", constitution_name="safety", constitution_version="1.0")
ASKED = [{"role": "user", "content": "How do I pick a lock?"}]


def rows(config: Config, made: Record, settings: ExportSettings = DEFAULT) -> list[Row]:
    return rows_of(made, pairs_of(made, settings)[0], settings)[config]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def sft(made: Record, *kinds: str, pairs: tuple[str, ...] = ()) -> list[str]:
    """The completions' texts."""
    settings = ExportSettings.model_validate({"pairs": pairs, **({"sft": kinds} if kinds else {})})
    completions: list[Any] = [row["completion"] for row in rows("sft", made, settings)]
    return [message["content"] for (message,) in completions]


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[[Config, Record], Any]:
    """What `datasets` reads of one record's rows."""

    def load(config: Config, made: Record) -> Any:
        export_dataset(lambda: [made], tmp_path / "dataset", DEFAULT, about=ABOUT)
        return datasets.load_dataset(str(tmp_path / "dataset"), config, cache_dir=str(tmp_path / "cache"))["train"]

    return load


def test_a_reward_row_is_two_whole_conversations(loaded: Callable[[Config, Record], Any]) -> None:
    made = record("ab", [(0, 1, 0.9, 0.8)], category="locks")
    (row,) = loaded("reward", made)
    assert (row["chosen"], row["rejected"]) == (ASKED + said("a"), ASKED + said("b"))
    assert (row["id"], row["category"], row["p"]) == (made.id, "locks", pytest.approx(0.85))
    assert row["margin"] == pytest.approx(0.7)


def test_a_reward_margin_is_a_number_even_if_nobody_judged() -> None:
    settings = ExportSettings(pairs=("strong_vs_weak",))
    made = record("ab", sides=["strong", "weak"])
    assert [(row["margin"], row["p"]) for row in rows("reward", made, settings)] == [(0.0, None)]
    assert [(row["margin"], row["p"]) for row in rows("preference", made, settings)] == [(None, None)]


@pytest.mark.parametrize(
    ("strategy", "better"), [("best_vs_worst", "b"), ("revision_vs_original", ("b", 0)), ("strong_vs_weak", "b")]
)
def test_a_reward_margin_claims_no_more_than_the_soft_label_of_a_judge_that_reasoned(
    strategy: str, better: str | tuple[str, int]
) -> None:
    settings = ExportSettings.model_validate({"pairs": [strategy], "min_margin": 0.9})
    made = reasoned(record(["a", better], [(0, 1, 0.01, 0.01)], sides=["weak", "strong"]))
    assert [(row["margin"], row["p"]) for row in rows("reward", made, settings)] == [(pytest.approx(0.2), 0.6)]
    assert [(row["margin"], row["p"]) for row in rows("preference", made, settings)] == [(pytest.approx(0.98), 0.6)]
    unsure = reasoned(record(["a", better], [(0, 1, 0.45, 0.45)], sides=["weak", "strong"]))
    lenient = settings.model_copy(update={"min_margin": 0.0, "min_p": 0.5})
    assert [row["margin"] for row in rows("reward", unsure, lenient)] == [pytest.approx(0.1)]


def test_a_scores_row_is_a_rated_live_response(loaded: Callable[[Config, Record], Any]) -> None:
    made = record("abcd", scores=[0.5, -1.0, 1.0, None], drops=[2])
    more = (Score("other", "honest", 0, 1.0), Score("other", "honest", 1, None))
    first, second = loaded("scores", made.having(scores=made.scores + more))
    assert (first["prompt"], first["completion"], first["model"]) == (ASKED, said("a"), "policy")
    assert (first["score"], second["score"]) == (0.75, -1.0)
    assert first["scores"] == [
        {"judge": "judge", "principle": "kind", "value": 0.5},
        {"judge": "other", "principle": "honest", "value": 1.0},
    ]
    assert second["scores"] == [{"judge": "judge", "principle": "kind", "value": -1.0}]
    assert (first["win_rate"], second["win_rate"]) == (None, None)


def test_a_scores_row_has_the_win_rate_where_there_are_verdicts() -> None:
    made = record("abc", [(0, 1, 0.9, 0.7), (0, 2, 0.4, 0.4), (1, 2, None, 0.1)], scores=[0.1, 0.2, 0.3])
    assert [row["win_rate"] for row in rows("scores", made)] == pytest.approx([0.6, 0.2, 0.6])
    assert rows("scores", record("ab", [(0, 1, 0.9, 0.9)])) == []


def test_a_prompt_is_there_once_whether_or_not_it_has_a_pair(loaded: Callable[[Config, Record], Any]) -> None:
    made = record(["a", ("b", 0)], [(0, 1, 0.5, 0.5)], category="locks")
    assert list(loaded("prompts", made)) == [{"prompt": ASKED, "id": made.id, "category": "locks"}]


def test_only_the_configs_asked_for_are_made() -> None:
    assert rows_of(record("ab"), [], ExportSettings(configs=("prompts", "kto"))).keys() == {"prompts", "kto"}


def test_sft_takes_the_revisions_of_all_steps() -> None:
    chain = record(["a", ("b", 0), ("c", 1), ("c", 2), ("d", 3), ("e", 4)], drops=[4])
    assert sft(chain) == ["b", "c", "e"]


def test_a_record_whose_revisions_were_all_filtered_gives_nothing() -> None:
    made = record(["a", "b", ("c", 0)], [(0, 1, 0.9, 0.9)]).having(drops=(Drop(2, "leak"),))
    assert sft(made, pairs=("best_vs_worst",)) == []
    assert sft(made, "revisions", "chosen", "drafts", pairs=("best_vs_worst",)) == []
    assert sft(made, "drafts") == []


def test_sft_takes_the_first_kind_that_a_record_has() -> None:
    judged = record("abc", [(0, 1, 0.9, 0.9), (0, 2, 0.9, 0.9), (1, 2, 0.9, 0.9)])
    assert sft(judged, pairs=("best_vs_worst",)) == ["a"]
    assert sft(judged, "drafts", "chosen", pairs=("best_vs_worst",)) == ["a", "b", "c"]
    assert sft(judged, "revisions", pairs=("best_vs_worst",)) == []
    revised = record(["a", ("b", 0)], [(0, 1, 0.1, 0.1)])
    assert sft(revised, "chosen", "revisions", pairs=("revision_vs_original",)) == ["b"]


def test_drafts_without_a_judge_are_the_live_ones_each_once() -> None:
    made = record(["a", "a ", "", "withheld", "dropped"], drops=[4])
    withheld = replace(made.responses[3], finish_reason="content_filter")
    made = made.having(responses=(*made.responses[:3], withheld, made.responses[4]))
    assert sft(made, "revisions", "drafts") == ["a"]
    assert sft(made) == []


@pytest.mark.parametrize("kind", ["chosen", "drafts"])
def test_a_completion_that_was_cut_off_says_so(kind: SftKind) -> None:
    settings = ExportSettings(pairs=("strong_vs_weak",), sft=(kind,))
    made = record("ab", sides=["strong", "weak"])
    cut = replace(made.responses[0], finish_reason="length")
    for one, truncated in ((made, False), (made.having(responses=(cut, made.responses[1])), True)):
        assert [row["truncated"] for row in rows("sft", one, settings)] == [truncated]


def test_a_revision_that_was_cut_off_says_so_and_one_that_was_withheld_is_none() -> None:
    made = record(["a", ("b", 0), ("c", 1)])
    cut, withheld = (
        replace(response, finish_reason=reason)
        for response, reason in zip(made.responses[1:], ("length", "content_filter"), strict=True)
    )
    found = rows("sft", made.having(responses=(made.responses[0], cut, withheld)))
    assert [(row["completion"], row["truncated"]) for row in found] == [(said("b"), True)]


def test_a_weak_draft_is_no_sft_row() -> None:
    made = record("abc", sides=["weak", "strong", None])
    assert sft(made, "drafts") == ["b", "c"]
    assert sft(record("a", sides=["weak"]), "drafts") == []


def test_a_conversation_is_kept_as_messages() -> None:
    prompt = (
        Message("system", "Be brief."),
        Message("user", "Hi: there"),
        Message("assistant", "Hi"),
        Message("user", "?"),
    )
    made = record(["a", ("b", 0)], [(0, 1, 0.1, 0.1)]).having(prompt=prompt)
    messages = [{"role": m.role, "content": m.content} for m in prompt]
    assert [row["prompt"] for config in ("sft", "kto", "prompts") for row in rows(config, made)] == [messages] * 4
    assert [row["chosen"] for row in rows("reward", made)] == [messages + said("b")]
