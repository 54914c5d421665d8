"""What disks do: they fill up, may not be written, rot, are shared, and outlive clocks and processes."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import rlaif
from rlaif import disk, journal
from rlaif.errors import StoreError
from rlaif.journal import Charge, Journal, Traits
from rlaif.repair import Repaired, repair
from rlaif.store import RunFolder, encode
from rlaif.types import Completion, Failure

PAGE = 8192
ANSWERS = 400


def key(number: int) -> bytes:
    return random.Random(number).randbytes(16)


def answer(number: int) -> Completion:
    rng = random.Random(number)
    words = " ".join(rng.choice(("kind", "harm", "care", "fair", "true")) for _ in range(rng.randrange(20, 200)))
    return Completion(words if number % 50 else rng.randbytes(20_000).hex())  # some are longer than a page


async def fill(path: Path, leave: Callable[[], object] = lambda: None) -> None:
    async with Journal(path) as opened:
        model = opened.model("http://a#m", "m")
        opened.set_traits(model, Traits(5))
        charge = Charge("mine", "judge", "m", "2026-11-21", 1, 0, 10, 0, 3)
        await asyncio.gather(*(opened.put(key(i), model, answer(i), charge) for i in range(ANSWERS)))
        await opened.put(key(ANSWERS), model, Failure("server", "down"))
        leave()


async def read_all(path: Path) -> None:
    async with Journal(path) as opened:
        for i in range(ANSWERS):
            opened.find(key(i))
        opened.traits(1)
        opened.ledger("mine")


async def held(path: Path) -> int:
    """How many of the answers a journal holds; none of them is another one."""
    async with Journal(path) as opened:
        found = {i: opened.find(key(i)) for i in range(ANSWERS)}
    assert all(entry is None or entry[0] == answer(i) for i, entry in found.items())
    return sum(entry is not None for entry in found.values())


def in_own_mounts(setup: str, code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a namespace where it may mount; skips where the kernel grants none."""
    try:
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount anything here")
    command = ["unshare", "-rm", "sh", "-ec", f'{setup}; exec "$@"', "sh", sys.executable, "-c", code]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)


# ---- room


async def test_below_the_reserve_no_call_goes_out_and_the_disk_is_looked_at_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, free = 0, 1 << 40

    def usage(folder: Path) -> shutil._ntuple_diskusage:
        nonlocal looks
        looks += 1
        return shutil._ntuple_diskusage(1 << 41, 1 << 40, free)

    monkeypatch.setattr(disk.shutil, "disk_usage", usage)
    async with Journal(tmp_path / "calls.sqlite") as opened:
        for _ in range(1000):
            opened.check_room()
        assert looks == 1
        free = disk.RESERVE_BYTES - 1
        monkeypatch.setattr(journal, "_LOOK_EVERY_S", 0.0)
        opened._look_again = 0.0
        with pytest.raises(StoreError, match=r"is full.*: 67 MB are free.*make room.*what was answered is kept"):
            opened.check_room()
        assert await opened.put(key(1), 1, answer(1)) == answer(1)  # what is in flight still has its room
        free += 1
        opened.check_room()


FULL = """
import asyncio, os
from pathlib import Path
from rlaif import disk, journal
from rlaif.errors import StoreError
from rlaif.journal import Charge, Journal
from rlaif.types import Completion

def text(number): return Completion(os.urandom(40_000).hex())

async def main():
    ballast = Path("/mnt/ballast")
    async with Journal(Path("/mnt/calls.sqlite")) as opened:
        try: opened.check_room()
        except StoreError as error: print("reserve:", error)
        first = [text(i) for i in range(20)]
        await asyncio.gather(*(opened.put(bytes([i] * 16), 1, first[i]) for i in range(20)))
        ballast.write_bytes(bytes(os.statvfs("/mnt").f_bavail * 4096))
        more = [text(i) for i in range(20)]
        disk.RESERVE_BYTES = 0
        putting = [asyncio.create_task(opened.put(bytes([99, i] * 8), 1, more[i], CHARGE)) for i in range(20)]
        while not opened._full: await asyncio.sleep(0.01)
        try: opened.check_room()
        except StoreError as error: print("full:", error)
        ballast.unlink()
        print("kept:", await asyncio.gather(*putting) == more, opened.ledger("r")[0].sent)
        opened.check_room()
        ballast.write_bytes(bytes(os.statvfs("/mnt").f_bavail * 4096))
        journal._PAUSES_S = (0.01,)
        try: await asyncio.gather(*(opened.put(bytes([77, i] * 8), 1, text(i)) for i in range(9)))
        except StoreError as error: print("lost:", error)
        print("all:", all(opened.get(bytes([i] * 16)) == first[i] for i in range(20)))

CHARGE = Charge("r", "s", "m", "d", 1, 0, 0, 0, 0)
asyncio.run(main())
"""


def test_on_a_full_disk_the_answers_in_hand_wait_for_room_and_nothing_is_sent_meanwhile() -> None:
    done = in_own_mounts("mount -t tmpfs -o size=8m none /mnt", FULL)
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert "the disk under /mnt is full" in said["reserve"], done.stderr
    assert "the disk under /mnt is full" in said["full"]
    assert said["kept"] == "True 20"
    assert "calls.sqlite cannot be written: database or disk is full; 9 answers under way are not kept" in said["lost"]
    assert said["all"] == "True"


# ---- read-only

READ_ONLY = """
import asyncio, sys
from pathlib import Path
from rlaif.errors import StoreError
from rlaif.journal import Journal

async def main():
    path = Path(sys.argv[1]) / "calls.sqlite"
    try: Journal(path)
    except StoreError as error: print(error)
    async with Journal(path, read_only=True) as opened:
        print(opened.model("http://a#m", "m"), opened.sizes()[0][1], len(opened.ledger("mine")))

asyncio.run(main())
"""


@pytest.mark.parametrize("killed", [False, True])
async def test_a_folder_that_may_not_be_written_is_named_and_a_dry_run_reads_it(tmp_path: Path, killed: bool) -> None:
    folder = tmp_path / "runs"
    await fill(tmp_path / "made" / "calls.sqlite", lambda: killed and shutil.copytree(tmp_path / "made", folder))
    if not killed:
        (tmp_path / "made").rename(folder)
    mount = f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}"
    done = in_own_mounts(mount, READ_ONLY, folder)
    error, found = done.stdout.splitlines() or [done.stderr, ""]
    assert "calls.sqlite cannot be opened: " in error
    assert "make it writable, or use another --runs-dir" in error
    assert found == f"1 {ANSWERS + 1} 1"


async def test_who_only_reads_leaves_the_disk_as_it_is(tmp_path: Path) -> None:
    missing = tmp_path / "runs" / "calls.sqlite"
    async with Journal(missing, read_only=True) as opened:
        assert opened.find(key(1)) is None
        assert opened.model("http://a#m", "m") == 0
        assert opened.traits(0) is None
        assert opened.ledger("mine") == []
    assert list(tmp_path.iterdir()) == []


async def test_who_only_reads_reads_an_older_version_too(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    await fill(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE ledger")
        connection.execute("PRAGMA user_version=1")
    connection.close()
    async with Journal(path, read_only=True) as opened:
        assert opened.find(key(3)) == (answer(3), True)
        assert opened.ledger("mine") == []
        with pytest.raises(StoreError, match="cannot be written: attempt to write a readonly database"):
            opened.set_traits(1, Traits())
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()


# ---- damage


def pages_of(path: Path, kind: str) -> list[int]:
    """The pages of one b-tree and kind: "calls leaf", "sqlite_autoindex_calls_1 internal", ..."""
    name, pagetype = kind.split()
    with sqlite3.connect(path) as connection:
        query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ? ORDER BY pageno"
        try:
            return [row[0] for row in connection.execute(query, (name, pagetype))]
        except sqlite3.OperationalError:
            pytest.skip("this SQLite does not say what its pages hold")
        finally:
            connection.rollback()


def answers(path: Path) -> int:
    if not path.exists():
        return 0
    connection = sqlite3.connect(path)
    try:
        count: int = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
    except sqlite3.OperationalError:  # it is being made
        return 0
    finally:
        connection.close()
    return count


def overwrite(path: Path, page: int, data: bytes = b"\xa5" * PAGE) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(data)


@pytest.mark.parametrize(
    ("kind", "most_lost"),
    [
        ("calls leaf", 80),
        ("calls internal", 0),
        ("calls overflow", 1),
        ("sqlite_autoindex_calls_1 leaf", 0),
        ("sqlite_autoindex_calls_1 internal", 0),
        ("sqlite_schema leaf", 0),
        ("models leaf", 0),
        ("ledger leaf", 0),
    ],
)
async def test_a_damaged_page_costs_the_answers_on_it_and_no_others(tmp_path: Path, kind: str, most_lost: int) -> None:
    path = tmp_path / "calls.sqlite"
    await fill(path)
    overwrite(path, pages_of(path, kind)[0])
    damaged = path.read_bytes()
    with pytest.raises(StoreError, match=r"is damaged: .*`rlaif journal repair --runs-dir .*then run the same command"):
        await read_all(path)
    done = repair(path)
    assert done.lost <= most_lost
    assert done.lost > 0 or not most_lost
    assert await held(path) == done.kept - 1 == ANSWERS - done.lost
    assert done.damaged.read_bytes() == damaged
    async with Journal(path) as opened:
        charged = Charge("mine", "judge", "m", "2026-11-21", ANSWERS, 0, 10 * ANSWERS, 0, 3 * ANSWERS)
        assert opened.ledger("mine") == ([] if kind == "ledger leaf" else [charged])
        assert [row[0] for row in opened.sizes()] == ["unknown 1" if kind == "models leaf" else "http://a#m"]
        assert opened.traits(1) == (None if kind == "models leaf" else Traits(5))
        lost = next((i for i in range(ANSWERS) if opened.find(key(i)) is None), ANSWERS + 1)
        assert await opened.put(key(lost), 1, answer(lost)) == answer(lost)


async def test_a_flipped_bit_in_an_answer_is_noticed_and_costs_this_answer(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    await fill(path)
    with sqlite3.connect(path) as connection:
        body = connection.execute("SELECT body FROM calls WHERE key = ?", (key(7),)).fetchone()[0]
    connection.close()
    data = path.read_bytes()
    place = data.index(body) + len(body) // 2
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    async with Journal(path) as opened:
        assert opened.find(key(8)) == (answer(8), True)
        with pytest.raises(StoreError, match="is damaged"):
            opened.find(key(7))
    assert repair(path)[:2] == (ANSWERS, 1)
    assert await held(path) == ANSWERS - 1


async def test_what_is_still_in_the_wal_is_saved_when_the_file_is_lost(tmp_path: Path) -> None:
    await fill(tmp_path / "made" / "calls.sqlite", lambda: shutil.copytree(tmp_path / "made", tmp_path / "runs"))
    path = tmp_path / "runs" / "calls.sqlite"
    path.with_name("calls.sqlite-shm").unlink()
    path.write_bytes(b"\0" * path.stat().st_size)
    assert repair(path)[:2] == (ANSWERS + 1, 0)
    assert await held(path) == ANSWERS
    assert sorted(file.name for file in path.parent.iterdir())[0] == "calls.sqlite"
    assert not path.with_name("calls.sqlite-wal").exists()


async def test_a_torn_wal_costs_what_was_committed_last_as_a_power_cut_does(tmp_path: Path) -> None:
    await fill(tmp_path / "made" / "calls.sqlite", lambda: shutil.copytree(tmp_path / "made", tmp_path / "runs"))
    path = tmp_path / "runs" / "calls.sqlite"
    path.with_name("calls.sqlite-shm").unlink()
    wal = path.with_name("calls.sqlite-wal")
    wal.write_bytes(wal.read_bytes()[:-100])
    assert await held(path) == ANSWERS  # the last commit was of one failure
    async with Journal(path) as opened:
        assert opened.find(key(ANSWERS)) is None


async def test_a_journal_that_is_in_use_or_is_none_is_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    await fill(path)
    code = (
        "import pathlib, sys, time; from rlaif.schema import open_file\n"
        "held = open_file(pathlib.Path(sys.argv[1])); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreError, match=r"is in use: wait for the runs"):
            repair(path)
        other.kill()
    assert repair(path)[:2] == (ANSWERS + 1, 0)
    path.write_text("a text of some length\n" * 1000)
    with pytest.raises(StoreError, match=r"nothing in .*calls\.sqlite can be read as a journal: move it away"):
        repair(path)
    assert path.read_text().startswith("a text")
    with pytest.raises(StoreError, match="No such file"):
        repair(tmp_path / "none.sqlite")


@pytest.mark.slow
async def test_whatever_bytes_change_there_is_one_clear_error_or_the_right_answers(tmp_path: Path) -> None:
    """And the repair saves what could still be read before it, but an answer whose key is right in the index only."""
    await fill(tmp_path / "made" / "calls.sqlite")
    whole = (tmp_path / "made" / "calls.sqlite").read_bytes()
    rng = random.Random(5)
    seen: Counter[str] = Counter()
    for number in range(60):
        path = tmp_path / str(number) / "calls.sqlite"
        path.parent.mkdir()
        data, page = bytearray(whole), rng.randrange(len(whole) // PAGE) * PAGE
        for _ in range(rng.choice((1, 10, 100))):
            data[page + rng.randrange(rng.choice((100, PAGE)))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            before = await held(path)
            seen["unnoticed"] += 1
        except StoreError as error:
            before = 0
            seen["damaged" if "journal repair" in str(error) else str(error)] += 1
        path.write_bytes(data)
        done: Repaired = repair(path)
        assert await held(path) >= max(before - 1, ANSWERS - 80)
        assert done.kept >= ANSWERS - 80
    assert seen.keys() == {"unnoticed", "damaged"}


# ---- shared disks

MOUNTS = r"""
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:40 / /home rw,relatime shared:7 - nfs4 server:/home rw,vers=4.2
41 40 0:41 / /home/me/local\040disk rw - xfs /dev/sdb rw
42 22 0:42 / /mnt/c rw,noatime - 9p drvfs rw
43 22 0:43 / /data rw - ext4 /dev/sdc rw
44 22 0:44 / /data rw - fuse.sshfs host:/data rw
""".strip()


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/srv/runs", "ext4"),
        ("/home/me/runs", "nfs4"),
        ("/homes/me", "ext4"),
        ("/home/me/local disk/runs", "xfs"),
        ("/mnt/c/runs", "9p"),
        ("/data/runs", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_folder_is_that_of_the_innermost_mount(folder: str, kind: str) -> None:
    assert disk.kind_of(Path(folder), MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "lustre", "fuse.sshfs", "ext4", "9p", "virtiofs", "overlay"])
def test_a_journal_on_a_disk_that_other_machines_write_to_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 254:0 / / rw - ext4 /dev/vda rw\n40 22 0:40 / {tmp_path} rw - {kind} server:/a rw\n")
    monkeypatch.setattr(disk, "_MOUNTS", mounts)
    if kind in ("ext4", "9p", "virtiofs", "overlay"):
        disk.refuse_shared(tmp_path / "runs")
        return
    with pytest.raises(StoreError, match=rf"network file system \({kind}\).*two machines.*local disk with --runs-dir"):
        Journal(tmp_path / "runs" / "calls.sqlite")
    assert not (tmp_path / "runs" / "calls.sqlite").exists()


# ---- clocks and processes


async def test_a_clock_that_jumps_changes_no_answer_and_pruning_goes_by_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 2_000_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)
    async with Journal(tmp_path / "calls.sqlite") as opened:
        await opened.put(key(1), 1, answer(1))
        now = 1_000_000_000.0
        await opened.put(key(2), 1, answer(2))
        assert await opened.put(key(1), 1, answer(3)) == answer(1)
    now = -5.0
    async with Journal(tmp_path / "calls.sqlite") as opened:
        await opened.put(key(3), 1, answer(3))
        opened.check_room()
        assert [opened.get(key(i)) for i in (1, 2, 3)] == [answer(1), answer(2), answer(3)]
        assert opened.prune(before=1_500_000_000) == 2
        assert opened.get(key(1)) == answer(1)


def test_a_run_goes_on_whatever_the_clock_says_and_makes_a_torn_part_anew_for_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 2_000_000_000.0
    monkeypatch.setattr(time, "time", lambda: now)

    def sent(limit: int) -> int:
        done = rlaif.generate(
            "small", policy="scripted", judge="scripted", runs_dir=tmp_path, run="r", limit=limit, prompts="redteam"
        )
        count: int = done.summary["calls"]["sent"]
        return count

    folder = RunFolder(tmp_path, "r")
    assert sent(10) > 20
    now = 1_000_000_000.0
    assert 0 < sent(11) < 20
    records = list(folder.records())
    part = folder.part_path(0)
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    assert sent(11) == 0
    assert list(folder.records()) == records


SHARING = """
import asyncio, json, os, random, signal, sys
from pathlib import Path
from rlaif.journal import Charge, Journal
from rlaif.types import Completion

async def main():
    numbers = list(range(300))
    random.shuffle(numbers)
    numbers.sort(key=lambda number: number // 10 != int(sys.argv[2]))  # each begins with ten of its own
    async with Journal(Path(sys.argv[1])) as journal:
        model, got = journal.model("m", "m"), {}
        print(flush=True)
        sys.stdin.readline()
        async def ask(number):
            key = number.to_bytes(16, "big")
            found = journal.get(key)
            if found is None:
                own = Completion(f"{number} by {os.getpid()}")
                found = await journal.put(key, model, own, Charge("r", "s", "m", "d", 1, 0, 0, 0, 0))
            got[number] = found.text
        for start in range(0, 300, 10):
            await asyncio.gather(*(ask(number) for number in numbers[start:start + 10]))
            if start == 0:
                print(flush=True)
                sys.stdin.readline()
            if start == 50 and sys.argv[2] == "0":
                os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.sleep(0.002)
    print(json.dumps(got))

asyncio.run(main())
"""


async def test_processes_that_ask_the_same_go_on_with_the_same_answers_also_when_one_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    command = [sys.executable, "-c", SHARING, str(path)]
    children = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for name in "012"
    ]
    for _ in "ab":  # all have opened the journal, and then have answers in it, before one goes on
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        for child in children:
            assert child.stdin is not None
            child.stdin.write(b"go\n")
            child.stdin.flush()
    ends = [child.communicate(timeout=100) for child in children]
    assert [child.returncode for child in children] == [-signal.SIGKILL, 0, 0], ends
    one, two = (json.loads(out.splitlines()[-1]) for out, _ in ends[1:])
    assert one == two
    assert len({text.split()[2] for text in one.values()}) >= 2  # each got some of the others' answers
    async with Journal(path) as opened:
        for number, text in one.items():
            assert opened.get(int(number).to_bytes(16, "big")) == Completion(text)


UNLIKE = """
import asyncio, itertools, sys
from tests.server import Server, answer, completion

count = itertools.count()

def unlike(body):  # no two replies are equal
    number = next(count)
    if body.get("logprobs"):
        return completion("A", top={"A": -0.1 - number / 1e5, "B": -1.1})
    return completion(f"Answer {number} says that kindness costs nothing and helps everyone.")

async def main():
    places = asyncio.Semaphore(150)  # too few for a run, until one was killed
    async with Server(unlike, latency_s=lambda: 0.01, places=places) as server:
        print(server.url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for _ in range(10_000):
            places.release()
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.mark.timeout(600)
def test_two_runs_at_one_journal_get_the_same_records_though_one_is_killed_and_started_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"

    def start(run: str, url: str) -> subprocess.Popen[bytes]:
        model = f"{{provider: openai, model: m, identity: ours, base_url: '{url}', concurrency: 8}}"
        command = [sys.executable, "-m", "rlaif", "generate", "--prompts", "redteam", "--limit", "30", "--run", run]
        command += ["--runs-dir", str(runs), "--set", f"models.policy={model}", "--set", f"models.judge={model}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    with subprocess.Popen([sys.executable, "-c", UNLIKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        killed, other = start("a", url), start("b", url)
        while killed.poll() is None and answers(runs / "calls.sqlite") < 60:
            time.sleep(0.01)
        assert killed.poll() is None
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert server.stdin is not None
        server.stdin.write(b"go on\n")
        server.stdin.flush()
        again = start("a", url)
        for process in (other, again):
            _, errors = process.communicate(timeout=250)
            assert process.returncode == 0, errors.decode()
        server.stdin.close()
    records = [[encode(record) for record in RunFolder(runs, run).records()] for run in "ab"]
    assert len(records[0]) == 30
    assert records[0] == records[1]
