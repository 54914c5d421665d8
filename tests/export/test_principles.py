"""What is counted of each principle, record by record."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from rlaif.export.pairs import Pair
from rlaif.export.principles import PrincipleStats, PrincipleTally, principle_rows
from rlaif.types import Drop, Message, Record, Response, Verdict

RECORD = Record("f0", (Message("user", "Why?"),), outcome="ok")
DRAFT = Response("Because I said so, you fool.", "m")


def revision(text: str, principle: str, parent: int = 0, critique: str | None = "It is rude.") -> Response:
    return Response(text, "m", revises=parent, principle=principle, critique=critique)


def verdict(principle: str, p: float | None, first: int = 0, second: int = 1, judge: str = "j") -> Verdict:
    if p is None:
        return Verdict(judge, principle, first, second, outcome="unparsed")
    return Verdict(judge, principle, first, second, p, p, p, True)


def pair(chosen: int, rejected: int) -> Pair:
    return Pair(chosen, rejected, 0.5, 0.75, "best_vs_worst")


def stats_of(*seen: tuple[Record, tuple[Pair, ...]]) -> dict[str, PrincipleStats]:
    tally = PrincipleTally()
    for record, pairs in seen:
        tally.add(record, pairs)
    return tally.stats()


def test_a_revision_counts_for_its_principle_with_what_its_critique_found_and_what_it_changed() -> None:
    record = RECORD.having(
        responses=(
            DRAFT,
            revision("Because I said so, my friend.", "kind"),
            revision("Because I said so, my friend.", "kind", 1, "No issues."),
            revision("", "true", 2),
            Response("", "m", "refusal", revises=2, principle="true"),
        ),
        drops=(Drop(2, "no_op_revision"), Drop(3, "empty"), Drop(4, "no_critique")),
    )
    stats = stats_of((record, (pair(1, 0),)))
    assert stats["kind"] == PrincipleStats(
        drawn=2, critiques=2, fired=1, revisions=2, changed=1, change=pytest.approx(1 / 3), dropped=1, chosen=1
    )
    assert stats["true"] == PrincipleStats(drawn=2, critiques=1, fired=1, dropped=2, refused=2)


def test_a_verdict_is_for_or_against_the_pair_that_came_of_it() -> None:
    record = RECORD.having(
        responses=(DRAFT, Response("Sorry.", "m"), Response("Well.", "m")),
        verdicts=(
            verdict("kind", 0.2),
            verdict("true", 0.9),
            verdict("short", 0.55),
            verdict("new", None),
            verdict("kind", 0.9, 0, 2),
        ),
    )
    stats = stats_of((record, (pair(1, 0),)))
    assert (stats["kind"].verdicts, stats["kind"].decided, stats["kind"].agreed, stats["kind"].against) == (2, 2, 1, 0)
    assert (stats["true"].decided, stats["true"].agreed, stats["true"].against) == (1, 0, 1)
    assert (stats["short"].verdicts, stats["short"].decided, stats["short"].agreed) == (1, 0, 0)
    assert (stats["new"].verdicts, stats["new"].unusable) == (1, 1)


def test_principles_that_decide_for_different_responses_of_the_same_two_are_in_conflict() -> None:
    record = RECORD.having(
        responses=(DRAFT, Response("Sorry.", "m"), Response("Well.", "m")),
        verdicts=(verdict("kind", 0.2), verdict("true", 0.9), verdict("short", 0.1), verdict("true", 0.1, 0, 2)),
    )
    conflicts = {name: one.conflicts for name, one in stats_of((record, ())).items()}
    assert conflicts == {"kind": 1, "short": 1, "true": 2}


def test_judges_that_disagree_by_the_same_principle_are_no_conflict_of_principles() -> None:
    record = RECORD.having(
        responses=(DRAFT, Response("Sorry.", "m")),
        verdicts=(verdict("kind", 0.1), verdict("kind", 0.8, judge="other"), verdict("true", 0.2)),
    )
    assert {one.conflicts for one in stats_of((record, ())).values()} == {0}


def test_the_order_of_records_changes_no_count() -> None:
    records = [
        RECORD.having(id=f"{i:x}", responses=(DRAFT, revision(f"Number {i}.", "kind")), verdicts=(verdict("kind", p),))
        for i, p in enumerate((0.1, 0.9, 0.5))
    ]
    seen = [(record, (pair(1, 0),)) for record in records]
    forwards, backwards = stats_of(*seen), stats_of(*reversed(seen))
    assert asdict(forwards["kind"]) == pytest.approx(asdict(backwards["kind"]))


def test_the_table_has_a_row_a_principle_and_only_columns_in_which_something_happened() -> None:
    head, rows = principle_rows(
        {
            "kind": PrincipleStats(drawn=4, critiques=4, fired=3, revisions=4, changed=2, change=0.25, chosen=1),
            "true": PrincipleStats(drawn=1200, critiques=1200, fired=1200),
        }
    )
    assert head == [
        *("principle", "drawn to revise", "critique found something", "revision changed the text"),
        *("words changed", "chosen / rejected"),
    ]
    assert rows == [["true", "1,200", "100%", "-", "-", "-"], ["kind", "4", "75%", "50%", "25%", "1 / 0"]]
    assert principle_rows({}) == (["principle"], [])
