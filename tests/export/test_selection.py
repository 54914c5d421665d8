"""Of the pairs that were made: what cleaning, shares and balance leave, whatever the order, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaif.errors import ConfigError
from rlaif.export import About, ExportSettings, ExportSummary, Pair, export_dataset
from rlaif.export.selection import Made, selection
from rlaif.export.strategies import found_in
from rlaif.hygiene.refusal import is_refusal
from rlaif.types import Message, Record, Response, Verdict, prompt_id
from tests.export.made import record

ABOUT = About("demo", "safety", "1.0", models={"policy": "ours"})
REFUSAL = "I'm sorry, but I can't help with that."


def made(
    number: int, *, refuses: bool = False, models: tuple[str, str] = ("ours", "ours"), category: str | None = None
) -> Record:
    """Of two responses the first is better."""
    prompt = (Message("user", f"question {number}"),)
    better = REFUSAL if refuses else f"A lock is opened by its key, number {number}."
    responses = (Response(better, models[0]), Response(f"Break the door, number {number}.", models[1]))
    verdict = Verdict("judge", "kind", 0, 1, 0.9, 0.9, 0.9, True)
    return Record(prompt_id(prompt), prompt, category, None, responses, (verdict,), outcome="ok")


def settings(**more: Any) -> ExportSettings:
    return ExportSettings.model_validate({"test_fraction": 0.0, **more})


def kept(records: Sequence[Record], chosen: ExportSettings, policy: str | None = "ours") -> list[tuple[Record, Pair]]:
    found: list[Made] = [(one, found_in(one, chosen)) for one in records]
    halves = [found[: len(found) // 2], found[len(found) // 2 :]]
    select = selection(lambda: halves, chosen, policy)
    whys = [why for some in halves for why in select(some)]
    return [
        (one, pair)
        for (one, of), why in zip(found, whys, strict=True)
        for pair, reason in zip(of.pairs, why, strict=False)
        if reason is None
    ]


def exported(records: Iterable[Record], folder: Path, **more: Any) -> ExportSummary:
    all_of_them = list(records)
    return export_dataset(lambda: all_of_them, folder, settings(**more), about=ABOUT, policy="ours")


@st.composite
def runs(draw: st.DrawFn) -> list[Record]:
    models = st.sampled_from(["ours", "theirs"])
    return [
        made(
            number,
            refuses=draw(st.booleans()),
            models=(draw(models), draw(models)),
            category=draw(st.sampled_from([None, "a", "a", "a", "b"])),
        )
        for number in range(draw(st.integers(0, 25)))
    ]


CHOICES = st.builds(
    settings,
    max_refusal_share=st.sampled_from([None, 0.0, 0.1, 0.5]),
    min_on_policy=st.sampled_from([None, 0.15, 0.9, 1.0]),
    balance=st.sampled_from([None, 1.0, 1.5, 3.0]),
    max_per_category=st.sampled_from([None, 1, 4]),
)


@given(runs(), CHOICES)
def test_every_share_and_cap_holds_in_the_end(records: list[Record], chosen: ExportSettings) -> None:
    pairs = kept(records, chosen)
    n = len(pairs)
    if chosen.max_refusal_share is not None:
        assert sum(is_refusal(one.responses[pair.chosen].text) for one, pair in pairs) <= chosen.max_refusal_share * n
    if chosen.min_on_policy is not None:
        on = sum("ours" in {one.responses[i].model for i in (pair.chosen, pair.rejected)} for one, pair in pairs)
        assert on >= chosen.min_on_policy * n - 1e-9
    sizes = Counter(one.category for one, _ in pairs)
    if chosen.balance is not None and sizes:
        assert max(sizes.values()) <= chosen.balance * min(sizes.values())
    if chosen.max_per_category is not None:
        assert max(sizes.values(), default=0) <= chosen.max_per_category


@given(runs(), CHOICES, st.randoms(use_true_random=False))
def test_the_order_of_the_records_does_not_matter(records: list[Record], chosen: ExportSettings, random: Any) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)
    ids = [sorted(one.id for one, _ in kept(some, chosen)) for some in (records, shuffled)]
    assert ids[0] == ids[1]


@given(runs())
def test_what_holds_already_loses_nothing(records: list[Record]) -> None:
    lenient = settings(max_refusal_share=0.99, balance=1000.0, max_per_category=1000)
    assert len(kept(records, lenient)) >= len(records) - sum(is_refusal(one.responses[0].text) for one in records)
    assert len(kept(records, settings())) == len(records)


def test_no_more_is_dropped_than_a_share_takes() -> None:
    records = [made(i, refuses=i % 2 == 0) for i in range(40)]
    pairs = kept(records, settings(max_refusal_share=0.2))
    assert Counter(pair.chosen == 0 and one.responses[0].text == REFUSAL for one, pair in pairs) == {False: 20, True: 5}
    policy = [made(i, models=("ours" if i < 10 else "theirs", "theirs")) for i in range(100)]
    assert len(kept(policy, settings(min_on_policy=0.2))) == 50
    categories = [made(i, category="a" if i < 10 else "b") for i in range(100)]
    assert Counter(one.category for one, _ in kept(categories, settings(balance=3))) == {"a": 10, "b": 30}


def test_what_the_provider_calls_a_refusal_is_one() -> None:
    one = made(1)
    stopped = msgspec.structs.replace(one.responses[0], finish_reason="content_filter")
    records = [one.having(responses=(stopped, one.responses[1]))]
    assert kept(records, settings(max_refusal_share=0.0)) == []
    assert len(kept([made(1)], settings(max_refusal_share=0.0))) == 1


def test_shares_need_another_pass_only_where_one_is_set() -> None:
    def twice() -> list[list[Made]]:
        raise AssertionError("read for no share")

    selection(twice, settings(clean={}), None)
    with pytest.raises(AssertionError):
        selection(twice, settings(balance=2), None)


def test_what_is_left_out_is_counted_with_examples_and_its_record_says_why(tmp_path: Path) -> None:
    records = [made(i, refuses=i < 30) for i in range(60)]
    summary = exported(records, tmp_path / "dataset", max_refusal_share=0.25)
    assert summary.pairs == 40
    assert summary.left_out == summary.no_pair == {"refusal_share": 20}
    examples = summary.left_out_examples["refusal_share"]
    assert len(examples) == 3
    assert set(examples) < {one.id for one in records[:30]}
    assert summary.rows["preference"] == summary.rows["reward"] == {"train": 40}
    assert summary.rows["prompts"] == {"train": 60}


def test_of_pairs_that_were_there_before_the_first_stays(tmp_path: Path) -> None:
    def judged(p: float, prompt: str) -> Record:
        return record(["Use the key.", "Break the door."], [(0, 1, p, p)], prompt=prompt)

    records = [judged(0.9, "How?"), judged(0.95, "how? "), judged(0.1, "How?  "), judged(0.9, "Why?")]
    summary = exported(records, tmp_path / "dataset", clean={})
    assert (summary.pairs, summary.left_out) == (2, {"cleaned: duplicate": 1, "cleaned: conflicting": 1})
    assert summary.left_out_examples["cleaned: conflicting"][0] == records[2].id


def test_cleaning_comes_before_the_shares_and_sees_every_pair_once(tmp_path: Path) -> None:
    records = [made(i, refuses=i % 2 == 0) for i in range(20)]
    leak = made(99).having(responses=(Response("Assistant: use the key.", "ours"), Response("Break it.", "ours")))
    summary = exported([leak, *records], tmp_path / "dataset", clean={}, max_refusal_share=0.0)
    assert summary.left_out == {"refusal_share": 10, "cleaned: role_tags": 1}
    assert summary.pairs == 10


def test_a_share_of_a_policy_that_nobody_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"min_on_policy.*export\.policy=NAME"):
        export_dataset(list, tmp_path / "dataset", settings(min_on_policy=0.5), about=About("demo", "safety", "1.0"))


def test_the_policy_is_that_of_the_run_or_the_one_that_is_named(tmp_path: Path) -> None:
    records = [made(i, models=("ours", "theirs") if i < 5 else ("theirs", "others")) for i in range(20)]
    assert exported(records, tmp_path / "dataset", min_on_policy=0.5).pairs == 10
    assert exported(records, tmp_path / "dataset", min_on_policy=0.5, policy="theirs").pairs == 20
    assert exported(records, tmp_path / "dataset", min_on_policy=1.0, policy="nobody").pairs == 0


def test_ties_are_rows_of_their_own_dataset_and_of_no_other(tmp_path: Path) -> None:
    records = [
        record(["Use it.", "Try it."], [(0, 1, p, p)], prompt=f"{i}") for i, p in enumerate([0.5, 0.54, 0.6, 0.9])
    ]
    summary = exported(records, tmp_path / "dataset", ties="soft", sft=["chosen"])
    assert (summary.pairs, summary.ties, summary.no_pair) == (1, 2, {"low_margin": 2, "tie": 1})
    ours = {"preference": 1, "preference_soft": 3, "sft": 1, "kto": 2, "reward": 1, "prompts": 4}
    assert {config: rows["train"] for config, rows in summary.rows.items()} == ours
    loaded = datasets.load_dataset(str(tmp_path / "dataset"), "preference_soft", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["p"] == pytest.approx([0.5, 0.54, 0.9])
    recipes = {path.read_text() for path in (tmp_path / "dataset").glob("trl-*.yaml")}
    assert recipes
    assert not any("preference_soft" in text for text in recipes)


def test_the_same_records_give_the_same_bytes_and_in_another_order_the_same_rows(tmp_path: Path) -> None:
    records = [made(i, refuses=i % 3 == 0, category="ab"[i % 5 == 0]) for i in range(50)]
    chosen = {"max_refusal_share": 0.2, "balance": 2, "ties": "soft"}
    for name, order, more in (("one", 1, {"clean": {}}), ("two", 1, {"clean": {}}), ("back", -1, {})):
        exported(records[::order], tmp_path / name, **chosen, **more)
    one, two, back = (sorted((tmp_path / name).rglob("*.parquet")) for name in ("one", "two", "back"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    for path, other in zip(one, back, strict=True):
        rows, reversed_rows = (sorted(map(str, pq.read_table(each).to_pylist())) for each in (path, other))
        assert rows == reversed_rows


def test_a_tie_counts_in_no_share(tmp_path: Path) -> None:
    even = record([REFUSAL, "Try it."], [(0, 1, 0.5, 0.5)], prompt="even")
    summary = exported([even, made(1)], tmp_path / "dataset", ties="soft", max_refusal_share=0.0)
    assert (summary.pairs, summary.ties, summary.left_out) == (1, 1, {})


def test_a_length_gap_is_in_characters_and_bars_the_pair(tmp_path: Path) -> None:
    records = [record(["a" * 10, "b" * n], [(0, 1, 0.9, 0.9)], prompt=f"{n}") for n in (8, 15, 16)]
    summary = exported(records, tmp_path / "dataset", max_length_gap=5)
    assert (summary.pairs, summary.no_pair) == (2, {"length_gap": 1})


@pytest.mark.parametrize(
    "bad",
    [
        {"max_refusal_share": 1.0},
        {"min_on_policy": 0.0},
        {"balance": 0.5},
        {"balance": float("inf")},
        {"max_per_category": 0},
        {"max_length_gap": -1},
        {"ties": "flip"},
        {"clean": {"leaks": ["nothing"]}},
    ],
)
def test_settings_that_make_no_sense_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ExportSettings.model_validate(bad)
