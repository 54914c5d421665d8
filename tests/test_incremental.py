"""A changed principle sends the calls that it touches, and no other: the benchmark, small."""

from __future__ import annotations

from pathlib import Path

from benchmarks.incremental import CHANGES, measured


def test_a_change_of_one_principle_sends_what_it_touches_and_reuses_all_else(tmp_path: Path) -> None:
    changes = ["critique-edited", "one-added", "one-removed", "order-and-tags"]
    rows = list(measured(tmp_path, prompts=25, rounds=3, drafts=2, chains=2, changes=changes))
    assert [row.change for row in rows] == changes
    assert set(changes) < set(CHANGES)
    for row in rows:
        assert row.sent == row.touched
        assert row.sent + row.reused == 25 * (2 + 2 * 3 * 2 + 6 * 2)
    *edits, last = rows
    assert min(row.sent for row in edits) > 0
    assert max(row.sent for row in edits) < 25 * 26 / 3
    assert last.sent == 0
