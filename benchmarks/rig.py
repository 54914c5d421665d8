"""The mock on one core, what is measured on another, and what the measured process tree cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
_CORES = sorted(os.sched_getaffinity(0))
MOCK_CORE, CLIENT_CORE = _CORES[0], _CORES[-1]
_LOOK_S = 0.05
_SAMPLE_S = 0.5  # looking at a process's memory costs it a moment


@dataclass(frozen=True, slots=True)
class MockServer:
    """A running `mock.py`, as its clients see it."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:  # Any: plain JSON
        return self._get("stats")

    def reset(self) -> None:
        self._get("reset")

    def set(self, **settings: float | str) -> None:
        self._get("set?" + "&".join(f"{name}={value}" for name, value in settings.items()))

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=30) as reply:
            content: dict[str, Any] = json.load(reply)
        return content


@contextmanager
def mock(**settings: float | str) -> Iterator[MockServer]:
    """A mock with these settings, on its core. This process moves there too: it must not disturb the client."""
    os.sched_setaffinity(0, {MOCK_CORE})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended here too
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    process = subprocess.Popen([sys.executable, str(HERE / "mock.py"), *flags], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield MockServer(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a command came to. CPU and memory are those of its whole process tree.

    `exit_code` is None where it was ended from here: killed on purpose, or out of time. `peak_mb` is
    the largest of the sampled sums (shared pages counted once) and of any one process's own peak.
    `report` is the JSON of its last line, empty if there is none.
    """

    started: float  # time.monotonic()
    wall_s: float
    cpu_s: float
    peak_mb: float
    exit_code: int | None
    out_of_time: bool
    report: dict[str, Any]  # Any: plain JSON
    errors: str  # the end of its standard error


def measured(
    command: Sequence[str],
    *,
    timeout_s: float = 600.0,
    environment: Mapping[str, str] | None = None,
    kill_when: Callable[[], bool] = lambda: False,
) -> Measured:
    """Run a command on the client's core to its end, or until it is killed with all its children."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        started = time.monotonic()
        process = subprocess.Popen(
            ["taskset", "-c", str(CLIENT_CORE), *command],
            stdout=out,
            stderr=errors,
            env=os.environ | (environment or {}),
            start_new_session=True,
        )
        peak_mb, sampled_at, killed, out_of_time = 0.0, started, False, False
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                now = time.monotonic()
                if now >= sampled_at + _SAMPLE_S:
                    sampled_at, peak_mb = now, max(peak_mb, _memory_mb(process.pid))
                out_of_time = out_of_time or now > started + timeout_s
                if not killed and (out_of_time or kill_when()):
                    killed = True
                    _kill_tree(process.pid)
                time.sleep(_LOOK_S)
        except BaseException:
            _kill_tree(process.pid)
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - started
        out.seek(0)
        errors.seek(0)
        return Measured(
            started,
            wall_s,
            usage.ru_utime + usage.ru_stime,
            max(peak_mb, usage.ru_maxrss / 1024),
            None if killed else process.returncode,
            out_of_time,
            _last_json(out.read()),
            errors.read()[-2000:],
        )


def in_python(script: str, *arguments: object, **options: Any) -> Measured:  # Any: those of `measured`
    """A script beside this one in this Python; raises if it fails."""
    run = measured([sys.executable, str(HERE / script), *map(str, arguments)], **options)
    if run.exit_code != 0:
        how = f"took more than {run.wall_s:.0f} s" if run.out_of_time else f"ended with {run.exit_code}"
        raise SystemExit(f"{script} {' '.join(map(str, arguments))} {how}:\n{run.errors}")
    return run


def middle(values: Sequence[float]) -> str:
    """The median, and the least and the greatest: how far repeats of this are apart."""
    return f"{median(values):,.4g} ({min(values):,.4g}-{max(values):,.4g})"


def _last_json(text: str) -> dict[str, Any]:
    lines = [line for line in text.splitlines() if line.startswith("{")]
    content: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return content


def _kill_tree(root: int) -> None:
    for pid in _tree(root):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tree(root: int) -> list[int]:
    """`root` and all below it; children may have sessions and groups of their own."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, open_ends = [], [root]
    while open_ends:
        found.append(open_ends.pop())
        open_ends += children.get(found[-1], [])
    return found


def _memory_mb(root: int) -> float:
    kilobytes = 0
    for pid in _tree(root):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes / 1024


@contextmanager
def folder_or_new(given: Path | None) -> Iterator[Path]:
    """The one that is given, which stays; else one that is removed."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
