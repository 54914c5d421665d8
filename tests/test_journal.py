"""The journal: on disk before anyone sees it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import zstandard

from rlaif.errors import StoreError
from rlaif.journal import Charge, Journal, Traits
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


async def test_a_full_disk_is_one_error_and_what_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.journal._PAUSES_S", (0.01, 0.01))
    async with Journal(tmp_path / "calls.sqlite") as journal:
        await journal.put(key(0), 1, ANSWER)
        pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
        journal._writer.execute(f"PRAGMA max_page_count={pages}")
        big = Completion(random.Random(1).randbytes(200_000).hex())
        with pytest.raises(StoreError, match=r"full; 1 answers under way are not kept, .*make room and run the same"):
            await journal.put(key(1), 1, big, Charge("mine", "judge", "m", "d", 1, 0, 7, 0, 3))
        assert journal.get(key(0)) == ANSWER
        journal._writer.execute("PRAGMA max_page_count=100000")
        assert await journal.put(key(1), 1, big) == big
        assert journal.ledger("mine")[0].prompt_tokens == 7, "the answer that was not kept was paid for"


async def test_an_answer_that_cannot_be_written_fails_alone_and_hangs_nobody(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        broken, whole = journal.put(key(1), 1, Completion("\ud800")), journal.put(key(2), 1, ANSWER)
        error, answer = await asyncio.wait_for(asyncio.gather(broken, whole, return_exceptions=True), 60)
        assert isinstance(error, StoreError)
        assert answer == journal.get(key(2)) == ANSWER


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


async def test_the_answer_of_a_cancelled_caller_is_kept(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        putting = asyncio.create_task(journal.put(key(1), 1, ANSWER))
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        await journal.put(key(2), 1, ANSWER)
        assert journal.get(key(1)) == ANSWER


async def test_a_full_disk_is_the_same_error_for_what_is_known_of_models(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        model = journal.model("m@1", "m")
        pages = journal._writer.execute("PRAGMA page_count").fetchone()[0]
        journal._writer.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match="cannot be written"):
            journal.model("m@" + "2" * 100_000, "m")
        with pytest.raises(StoreError, match="cannot be written"):
            journal.set_traits(model, Traits(rejected=("x" * 100_000,)))


@pytest.mark.parametrize("place", ["/proc/rlaif/calls.sqlite", "folder.sqlite"])
def test_a_folder_that_nobody_may_write_is_named_with_the_way_out(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(StoreError, match=r"cannot be opened.*--runs-dir"):
        Journal(tmp_path / place)


async def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    async with Journal(path) as journal:
        await asyncio.gather(*(journal.put(key(i), 1, Completion(f"{i} " * 500)) for i in range(500)))
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(StoreError, match=r"calls\.sqlite is damaged: .*malformed.*`rlaif journal repair"):
        Journal(path)


async def test_an_answer_from_before_is_new_to_a_run_once(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    async with Journal(path) as journal:
        await journal.put(key(0), 1, Completion("old"))
    async with Journal(path) as journal:
        await journal.put(key(1), 1, Completion("new"))
        found = [journal.find(key(i)) for i in (0, 0, 1, 2)]
    old = Completion("old")
    assert found == [(old, True), (old, False), (Completion("new"), False), None]


MAKING = """
import asyncio, sys
from pathlib import Path
from rlaif.journal import Journal
from rlaif.types import Completion

async def main():
    sys.stdin.readline()
    for number in range(30):
        async with Journal(Path(sys.argv[1]) / str(number) / "calls.sqlite") as journal:
            await journal.put(bytes(16), journal.model("m", "m"), Completion(sys.argv[2]))

asyncio.run(main())
"""


async def test_processes_that_make_the_journal_at_the_same_moment_share_it(tmp_path: Path) -> None:
    """SQLite does not wait by itself while another process switches a new file to WAL."""
    children = [
        subprocess.Popen([sys.executable, "-c", MAKING, str(tmp_path), name], stdin=subprocess.PIPE) for name in "abcd"
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0, 0, 0, 0]
    for number in range(30):
        async with Journal(tmp_path / str(number) / "calls.sqlite") as journal:
            assert [row[:2] for row in journal.sizes()] == [("m", 1)]


async def test_the_ledger_adds_up_what_was_charged_with_the_answers_and_outlives_the_journal(tmp_path: Path) -> None:
    def charge(day: str, tokens: int) -> Charge:
        return Charge("mine", "judge", "m", day, 2, 1, tokens, 1, 3, 1)

    async with Journal(tmp_path / "calls.sqlite") as journal:
        await asyncio.gather(*(journal.put(key(i), 1, ANSWER, charge("2026-11-20", i)) for i in range(10)))
        await journal.put(key(10), 1, ANSWER, charge("2026-11-21", 5))
        journal.charge(charge("2026-11-21", 100))
        journal.charge(Charge("other", "judge", "m", "2026-11-21", 1, 0, 0, 0, 0))
    async with Journal(tmp_path / "calls.sqlite") as journal:
        assert journal.ledger("mine") == [
            Charge("mine", "judge", "m", "2026-11-20", 20, 10, 45, 10, 30, 10),
            Charge("mine", "judge", "m", "2026-11-21", 4, 2, 105, 2, 6, 2),
        ]


async def test_what_is_learned_of_a_model_is_written_while_charges_are(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        row = journal.model("m@1", "m")
        for i in range(300):
            journal.charge(Charge("mine", "preflight", "m", "d", 1, 1, i, 0, 0))
            await asyncio.sleep(0)  # the thread begins to write it
            journal.set_traits(row, Traits(top_logprobs=i % 20))
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:
        assert connection.execute("SELECT sent FROM ledger").fetchone()[0] == 300
    connection.close()


async def test_an_answer_that_is_not_written_is_not_charged(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        with pytest.raises(StoreError):
            await journal.put(key(1), 1, Completion("\ud800"), Charge("mine", "judge", "m", "d", 1, 0, 1, 1, 1))
        assert journal.ledger("mine") == []


async def test_a_journal_of_an_older_version_is_brought_up_and_keeps_its_answers(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        await journal.put(key(1), journal.model("i", "m"), ANSWER)
    with sqlite3.connect(tmp_path / "calls.sqlite") as connection:  # as version 1 left it
        connection.execute("DROP TABLE ledger")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    async with Journal(tmp_path / "calls.sqlite") as journal:
        assert journal.get(key(1)) == ANSWER
        await journal.put(key(2), 1, ANSWER, Charge("mine", "judge", "m", "d", 1, 0, 7, 0, 0))
        assert journal.ledger("mine")[0].prompt_tokens == 7


async def test_an_answer_packed_before_the_phrases_were_there_is_read(tmp_path: Path) -> None:
    async with Journal(tmp_path / "calls.sqlite") as journal:
        await journal.put(key(1), 1, Completion("new"))
        journal._writer.execute("UPDATE calls SET body = ?", (zstandard.compress(msgspec.json.encode(ANSWER), 3),))
        journal._writer.commit()
        assert journal.get(key(1)) == ANSWER


async def test_a_call_costs_at_most_150_bytes_more_than_its_compressed_text(tmp_path: Path) -> None:
    rng, bare = random.Random(3), 0
    words = [rng.randbytes(rng.randrange(1, 5)).hex() for _ in range(3000)]
    async with Journal(tmp_path / "calls.sqlite") as journal:
        for _ in range(40):
            texts = [" ".join(rng.choices(words, k=rng.randrange(60, 130))) for _ in range(50)]
            bare += sum(len(zstandard.compress(text.encode(), 3)) for text in texts)
            usage = Usage(rng.randrange(80, 900), rng.randrange(100, 250), rng.choice((0, 256)))
            charge = Charge("mine", "sample", "m", "2026-11-21", 1, 0, 100, 0, 100)
            await asyncio.gather(
                *(journal.put(rng.randbytes(16), 1, Completion(text, usage=usage), charge) for text in texts)
            )
    size = (tmp_path / "calls.sqlite").stat().st_size
    assert 0 < (size - bare) / (40 * 50) <= 150
