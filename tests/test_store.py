"""The run folder: every file appears whole or not at all, and one process writes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from rlaif.errors import StoreError
from rlaif.store import RunFolder, RunLock, encode, write_whole
from rlaif.types import Message, Record, Response


def records(n: int) -> list[Record]:
    return [Record(str(i), (Message("user", f"q\u2028{i}\n"),), responses=(Response("a", "m"),)) for i in range(n)]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path, "run")
    made.create()
    return made


def test_parts_come_back_as_they_were_written_in_order(folder: RunFolder) -> None:
    folder.write_part(1, [encode(record) for record in records(2)])
    folder.write_part(0, [encode(record) for record in records(3)])
    assert folder.part_numbers() == [0, 1]
    assert (folder.part_size(0), folder.part_size(1), folder.part_size(2)) == (3, 2, 0)
    assert list(folder.records()) == records(3) + records(2)


def torn(data: bytes) -> bytes:
    return data[:-20]


def flipped(data: bytes) -> bytes:
    return data[:99] + bytes([data[99] ^ 8]) + data[100:]


def emptied(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("fault", [torn, flipped, emptied])
def test_a_damaged_part_counts_as_missing_and_is_named_with_the_way_out(
    folder: RunFolder, fault: Callable[[bytes], bytes]
) -> None:
    folder.write_part(0, [encode(record) for record in records(50)])
    path = folder.part_path(0)
    path.write_bytes(fault(path.read_bytes()))
    with pytest.raises(StoreError, match=r"part-00000\.jsonl\.zst is damaged \(.+\): run `generate` again"):
        list(folder.records())
    assert folder.part_size(0) == 0
    [notice] = folder.notices
    assert re.search(r"part-00000\.jsonl\.zst was damaged \(.+\) and is made anew from the journal", notice)


def test_a_torn_last_line_is_one_record_less_and_a_part_of_an_earlier_version_is_read(folder: RunFolder) -> None:
    lines = b"".join(encode(record) + b"\n" for record in records(3))
    folder.part_path(0).write_bytes(zstandard.compress(lines[:-9]))  # an earlier version wrote no checksum
    assert folder.part_size(0) == 2
    with pytest.raises(StoreError, match="is damaged"):
        folder.read_part(0)
    folder.part_path(0).write_bytes(zstandard.compress(lines))
    assert folder.read_part(0) == records(3)


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_whole(target, b"old")
    target.with_name("file.partial").mkdir()
    with pytest.raises(StoreError, match="file cannot be written"):
        write_whole(target, b"new")
    assert target.read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/run cannot be written: .*another --runs-dir"):
        RunFolder(tmp_path / "file", "run").create()


def test_what_a_kill_left_half_written_is_swept_away(folder: RunFolder) -> None:
    left = folder.part_path(3).with_name("part-00003.jsonl.zst.partial")
    left.write_bytes(b"half")
    folder.sweep()
    assert not left.exists()
    assert folder.part_numbers() == []


def test_a_second_writer_is_refused_until_the_first_is_gone_however_it_goes(folder: RunFolder) -> None:
    code = (
        "import sys, time, pathlib; from rlaif.store import *\n"
        "with RunLock(RunFolder(pathlib.Path(sys.argv[1]), 'run')): print('locked', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(folder.path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"locked\n"
        with pytest.raises(StoreError, match=rf"run 'run' is being written by process {owner.pid}"), RunLock(folder):
            pass
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    with RunLock(folder), pytest.raises(StoreError), RunLock(folder):
        pass


@pytest.mark.parametrize("place", ["file/part", "/proc/rlaif-part", "missing/part"])
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    message = r"part cannot be written: .*another --runs-dir or --out.*what was done is kept"
    with pytest.raises(StoreError, match=message):
        write_whole(tmp_path / place, b"text")


def test_a_disk_that_fills_up_leaves_the_old_file_alone(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk's: the write begins and breaks off."""
    target = tmp_path / "part"
    write_whole(target, b"old")
    code = (
        "import pathlib, resource, sys; from rlaif.store import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_whole(pathlib.Path(sys.argv[1]), bytes(100_000))"
    )
    child = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=False)
    assert "StoreError" in child.stderr
    assert "part cannot be written: File too large; make room" in child.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    assert target.read_bytes() == b"old"
