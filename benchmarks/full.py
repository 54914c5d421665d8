"""`make bench`: ours, a raw aiohttp loop and four peers at the same job, side by side; writes the table in README.md.

    python benchmarks/full.py --venvs .venv-peers [--repeats 5] [--only ours,raw,curator]

N prompts, one reply of 120 tokens each, a dataset on disk; the mock on one core, the job with all its
processes on the other. In every repeat each contestant has its turn, so that a slow minute of the
machine hits all. Whoever cannot be installed, fails or hangs stays in the table as that.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rig import HERE, Measured, MockServer, measured, middle, mock
from venvs import PEERS, environment, installed

LATENCY_MS, IN_FLIGHT = 50.0, 256
FEW_ROWS = 10  # a job that is all start and end; with one row data-designer fails in its statistics
# Faults and kills, with fewer in flight.
SMALL_ROWS, SMALL_IN_FLIGHT = 1000, 64
KILL_AT = (0.25, 0.5, 0.75)
FAULTS = {"p429": 0.1, "p500": 0.05, "pmalformed": 0.02, "pcut": 0.01}
FAULT_SEEDS = (1, 2, 3)
OURS, RAW = "ours", "raw loop"
BEGIN, END = "<!-- written by full.py -->", "<!-- end of what full.py writes -->"
README = HERE / "README.md"


@dataclass(slots=True)
class Contestant:
    """Someone who does the job, and what was measured of it."""

    name: str
    command: list[str]
    rows: int
    trouble: str = ""  # why it was measured no further
    rates: list[float] = field(default_factory=list)  # rows/s
    cpu_s_per_1000: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)  # until its first request arrived
    asked_again: list[str] = field(default_factory=list)  # for each kill
    lost: list[str] = field(default_factory=list)  # for each run under faults


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--venvs", type=Path, required=True, help="folder for the peers' environments; kept")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--rows", type=int, default=1000, help="of the peers; ours and the raw loop do ten times")
    arguments.add_argument("--only", default="", help="names, or how they begin, separated by commas")
    arguments.add_argument("--timeout-s", type=float, default=240.0, help="of one job; what takes longer hangs")
    arguments.add_argument("--skip", default="", help="of speed, kills, faults")
    given = arguments.parse_args()
    contestants = ready(given)
    bench = Bench(given.timeout_s, environment(given.venvs))
    skipped = given.skip.split(",")
    phases: dict[str, tuple[int, Callable[[Contestant, int], None]]] = {
        "speed": (given.repeats, bench.speed),
        "kills": (len(KILL_AT), bench.kill),
        "faults": (len(FAULT_SEEDS), bench.faults),
    }
    for phase, (repeats, measure) in phases.items():
        for number in range(repeats if phase not in skipped else 0):
            for contestant in contestants:
                print(f"{phase} {number + 1}/{repeats}: {contestant.name}", flush=True)
                measure(contestant, number)
                write(table(contestants, given))  # an interrupted run leaves what it has


def ready(given: argparse.Namespace) -> list[Contestant]:
    """Those asked for, installed."""
    many = 10 * given.rows
    contestants = [
        Contestant(OURS, [sys.executable, str(HERE / "ours.py")], many),
        Contestant(RAW, [sys.executable, str(HERE / "raw.py")], many),
        *(Contestant(name, [], given.rows) for name in PEERS),
    ]
    if given.only:
        contestants = [one for one in contestants if one.name.startswith(tuple(given.only.split(",")))]
    given.venvs.mkdir(parents=True, exist_ok=True)
    for one in contestants:
        if not one.command:
            try:
                one.command = installed(one.name, given.venvs.absolute())
            except RuntimeError as error:
                one.trouble = f"not installed: {error}"
    return contestants


class Bench:
    """The three measurements; each adds to what is known of a contestant."""

    def __init__(self, timeout_s: float, environment: dict[str, str]) -> None:
        self._timeout_s = timeout_s
        self._environment = environment

    def speed(self, contestant: Contestant, number: int) -> None:
        """Rows a second and CPU a row, less what a job of a few rows takes: start and end are no row's fault."""
        if contestant.trouble:
            return
        with mock(latency_ms=LATENCY_MS) as server:
            few, few_start_s = self._whole(contestant, server, FEW_ROWS)
            many, start_s = self._whole(contestant, server, contestant.rows)
        trouble = _trouble(few, FEW_ROWS) or _trouble(many, contestant.rows)
        if trouble:
            contestant.trouble = trouble
            return
        rows = contestant.rows - FEW_ROWS
        contestant.start_s.append(start_s)
        # Starts differ by seconds from run to run: each run has its own taken off.
        contestant.rates.append(rows / ((many.wall_s - start_s) - (few.wall_s - few_start_s)))
        contestant.cpu_s_per_1000.append(1000 * (many.cpu_s - few.cpu_s) / rows)
        contestant.peak_mb.append(many.peak_mb)

    def kill(self, contestant: Contestant, number: int) -> None:
        """SIGKILL at a share of the rows, then the same command again: how many answered rows are paid for twice?"""
        if not contestant.command or contestant.name == RAW or _hung_before(contestant.asked_again):
            return
        wanted = KILL_AT[number] * SMALL_ROWS
        # Spread: equal latencies would answer all in flight at one moment, and the kill would always find it.
        with mock(median_ms=LATENCY_MS, sigma=0.5) as server, tempfile.TemporaryDirectory() as folder:
            self._run(
                contestant, server, SMALL_ROWS, SMALL_IN_FLIGHT, folder, lambda: server.stats()["good_rows"] >= wanted
            )
            paid = server.stats()["good_rows"]
            again = self._run(contestant, server, SMALL_ROWS, SMALL_IN_FLIGHT, folder)
            twice = server.stats()["asked_again"]
        contestant.asked_again.append(_ending(again) or f"{twice} of {paid}{_lost(again)}")

    def faults(self, contestant: Contestant, number: int) -> None:
        """Rows that the finished dataset lacks, or has wrongly."""
        if not contestant.command or contestant.name == RAW or _hung_before(contestant.lost):
            return
        with (
            mock(latency_ms=LATENCY_MS, hint="rounded", seed=FAULT_SEEDS[number], **FAULTS) as server,
            tempfile.TemporaryDirectory() as folder,
        ):
            run = self._run(contestant, server, SMALL_ROWS, SMALL_IN_FLIGHT, folder)
            twice = server.stats()["asked_again"]
        if ending := _ending(run):
            contestant.lost.append(ending)
            return
        others = {"wrong": run.report["wrong"], "duplicated": run.report["duplicated"], "asked again": twice}
        told = "".join(f", {count} {what}" for what, count in others.items() if count)
        contestant.lost.append(f"{run.report['lost']}{told} in {run.wall_s:.0f} s")

    def _whole(self, contestant: Contestant, server: MockServer, rows: int) -> tuple[Measured, float]:
        """A job, and the seconds until its first request arrived."""
        server.reset()
        with tempfile.TemporaryDirectory() as folder:
            run = self._run(contestant, server, rows, IN_FLIGHT, folder)
        return run, (server.stats()["first_at"] or run.started) - run.started

    def _run(
        self,
        contestant: Contestant,
        server: MockServer,
        rows: int,
        in_flight: int,
        folder: str,
        kill_when: Callable[[], bool] = lambda: False,
    ) -> Measured:
        # What any of them caches at home is part of what it resumes from.
        homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"), folder)
        job = ["--url", server.url, "--rows", str(rows), "--in-flight", str(in_flight), "--folder", folder]
        run = measured(
            [*contestant.command, *job],
            timeout_s=self._timeout_s,
            environment=self._environment | homes,
            kill_when=kill_when,
        )
        if run.exit_code:
            print(f"{contestant.name} ended with {run.exit_code}:\n{run.errors}", file=sys.stderr, flush=True)
        return run


def _hung_before(results: Sequence[str]) -> bool:
    """Once is enough: each would take the whole of its time."""
    return bool(results) and results[-1].startswith(_HUNG)


_HUNG = "hung"


def _ending(run: Measured) -> str:
    """How it went wrong, if it left no dataset."""
    if run.out_of_time:
        return f"{_HUNG} ({run.wall_s:.0f} s)"
    if not run.report:
        return f"crashed (exit code {run.exit_code})"
    return ""


def _trouble(run: Measured, rows: int) -> str:
    return _ending(run) or (f"lost {run.report['lost']} of {rows} rows" if run.report["lost"] else "")


def _lost(run: Measured) -> str:
    return f", {run.report['lost']} lost" if run.report["lost"] else ""


def table(contestants: Sequence[Contestant], given: argparse.Namespace) -> str:
    share = "/".join(f"{at:.0%}" for at in KILL_AT)
    faults = "10% 429 + 5% 500 + 2% malformed + 1% cut"
    lines = [
        f"| job | rows/s | CPU-s per 1,000 | peak MB | start, s | answered rows asked again after SIGKILL at {share} "
        f"| rows lost of {SMALL_ROWS:,} at {faults} |",
        "|---|---:|---:|---:|---:|---|---|",
        *map(_row, contestants),
        "",
        *_ratios(contestants),
        f"Medians (least-greatest) of {given.repeats} repeats. Rows/s and CPU: {LATENCY_MS:.0f} ms, {IN_FLIGHT} in "
        f"flight, {given.rows:,} rows ({10 * given.rows:,} for ours and the raw loop), less what a job of {FEW_ROWS} "
        "rows takes. Start: until the first request arrives. Peak: all processes. Kills and faults: "
        f"{SMALL_ROWS:,} rows, {SMALL_IN_FLIGHT} in flight, each figure one run. A row counts as answered once "
        "its reply has left the mock, read or not. Wrong, duplicated and repeated rows are told where there are any. "
        f"{_machine()}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d}.",
    ]
    return "\n".join(lines)


def _row(one: Contestant) -> str:
    cells = [middle(values) if values else "-" for values in (one.rates, one.cpu_s_per_1000, one.peak_mb, one.start_s)]
    if one.trouble and not one.rates:
        cells[0] = one.trouble
    kept = ["keeps nothing"] * 2 if one.name == RAW else ["; ".join(one.asked_again), "; ".join(one.lost)]
    return f"| {' | '.join([one.name, *cells, *(cell or '-' for cell in kept)])} |"


def _ratios(contestants: Sequence[Contestant]) -> list[str]:
    """Ours beside the raw loop, and beside the best of the peers in each column; from pairs of the same repeat."""
    by_name = {one.name: one for one in contestants if one.rates}
    ours, raw = by_name.pop(OURS, None), by_name.pop(RAW, None)
    if ours is None:
        return []
    said = []
    if raw is not None:
        said.append(f"{_paired(ours.rates, raw.rates)} times the raw loop's rows/s")
    if by_name:
        fastest = max(by_name.values(), key=lambda one: median(one.rates))
        leanest = min(by_name.values(), key=lambda one: median(one.cpu_s_per_1000))
        said.append(f"{_paired(ours.rates, fastest.rates)} times those of {fastest.name}")
        said.append(f"{_paired(leanest.cpu_s_per_1000, ours.cpu_s_per_1000)} times less CPU a row than {leanest.name}")
    return [f"Ours: {', '.join(said)}.", ""] if said else []


def _paired(values: Sequence[float], others: Sequence[float]) -> str:
    return middle([value / other for value, other in zip(values, others, strict=False)])


def _machine() -> str:
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("rlaif-kit", "aiohttp", "uvloop"))
    cpu = models[0] if models else platform.machine()
    return f"{packages}, Python {platform.python_version()}, {os.cpu_count()} cores of {cpu}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def write(text: str) -> None:
    """Put it between the two marks of README.md."""
    content = README.read_text()
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{README} lacks the lines {BEGIN} and {END}: put them where the table belongs")
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
