"""The journal: on disk before anyone sees it."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sqlite3
from pathlib import Path

import pytest

from rlaif.errors import StoreError
from rlaif.journal import Journal, Traits
from rlaif.types import Completion, Failure, TokenLogprob, Usage

ANSWER = Completion(
    "yes", "length", "hm", Usage(3, 2, 1), (TokenLogprob("yes", -0.25, (("yes", -0.25), ("no", -1.5))),)
)


def key(i: int) -> bytes:
    return i.to_bytes(16, "big")


async def test_an_answer_is_on_disk_when_put_returns_and_comes_back_whole(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        model = journal.model("m@1", "m")
        assert journal.get(key(1)) is None
        assert await journal.put(key(1), model, ANSWER) == ANSWER
        async with Journal(tmp_path / "calls.sqlite") as other:
            assert other.get(key(1)) == ANSWER
            assert other.model("m@1", "m") == model


async def test_answers_that_come_together_are_committed_in_groups(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        commits: list[str] = []
        journal._writer.set_trace_callback(lambda sql: commits.append(sql) if sql.startswith("COMMIT") else None)
        await asyncio.gather(*(journal.put(key(i), 1, Completion(f"answer {i}")) for i in range(1000)))
        journal._writer.set_trace_callback(None)
        assert 1 <= len(commits) <= 20
        assert [journal.get(key(i)) for i in (0, 999)] == [Completion("answer 0"), Completion("answer 999")]


async def test_the_answer_that_was_first_is_the_one_everybody_goes_on_with(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as ours, Journal(tmp_path / "calls.sqlite") as theirs:
        assert await theirs.put(key(1), 1, Completion("theirs")) == Completion("theirs")
        assert await ours.put(key(1), 1, Completion("ours")) == Completion("theirs")
        assert ours.get(key(1)) == Completion("theirs")


async def test_a_failure_is_replaced_by_an_answer_and_never_the_other_way(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        await journal.put(key(1), 1, Failure("server", "down"))
        assert await journal.put(key(1), 1, ANSWER) == ANSWER
        assert await journal.put(key(1), 1, Failure("server", "down")) == ANSWER


async def test_a_full_disk_is_one_error_and_what_was_written_stays(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        await journal.put(key(0), 1, ANSWER)
        pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
        journal._writer.execute(f"PRAGMA max_page_count={pages}")
        big = Completion(random.Random(1).randbytes(200_000).hex())
        with pytest.raises(StoreError, match=r"full.*make room and run the same command again"):
            await journal.put(key(1), 1, big)
        assert journal.get(key(0)) == ANSWER
        journal._writer.execute("PRAGMA max_page_count=100000")
        assert await journal.put(key(1), 1, big) == big


async def test_an_answer_that_cannot_be_written_fails_alone_and_hangs_nobody(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        with pytest.raises(StoreError):
            await journal.put(key(1), 1, Completion("\ud800"))
        assert await asyncio.wait_for(journal.put(key(2), 1, ANSWER), 10) == ANSWER


def test_a_place_that_cannot_hold_a_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/calls\.sqlite cannot be opened"):
        Journal(tmp_path / "file" / "calls.sqlite")
    (tmp_path / "calls.sqlite").write_text("this is no database, it is a text of some length" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Journal(tmp_path / "calls.sqlite")


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="newer rlaif"):
        Journal(tmp_path / "calls.sqlite")


async def test_what_a_model_taught_us_and_who_has_answers_is_kept(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        model = journal.model("http://a#m", "m")
        assert journal.traits(model) is None
        journal.set_traits(model, Traits(5, False, ("seed",), True))
        assert journal.traits(model) == Traits(5, False, ("seed",), True)
        assert not journal.has_calls("http://a#m")
        assert journal.identities_of("m") == []
        await journal.put(key(1), model, ANSWER)
        assert journal.has_calls("http://a#m")
        assert journal.identities_of("m") == ["http://a#m"]


async def test_pruning_forgets_by_model_age_or_failure(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        a, b = journal.model("a", "a"), journal.model("b", "b")
        journal.set_traits(a, Traits(20))
        await journal.put(key(1), a, ANSWER)
        await journal.put(key(2), b, Failure("server", "down"))
        await journal.put(key(3), b, ANSWER)
        assert [row[:3] for row in journal.sizes()] == [("a", 1, 0), ("b", 2, 1)]
        assert journal.prune(before=1) == 0
        assert journal.prune(failed_only=True) == 1
        assert journal.prune(model="a") == 1
        assert journal.traits(a) is None
        assert journal.get(key(3)) == ANSWER


def _open(path: Path) -> None:
    asyncio.run(Journal(path).close())


def test_processes_that_make_the_journal_at_the_same_moment_share_it(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(_open, [tmp_path / "runs" / "calls.sqlite"] * 8)
        pool.close()
        pool.join()
    assert (tmp_path / "runs" / "calls.sqlite").is_file()
