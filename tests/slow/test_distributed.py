"""A run on a real Ray cluster of this machine: two workers, one of them killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif.errors import ConfigError
from rlaif.job import Job
from rlaif.journal import Journal
from rlaif.store import PART_RECORDS, RunFolder, encode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Not imported here: what it reads from the environment it reads at its import.
    pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'rlaif-kit[ray]'"),
]

PARTS = 5
RECORDS = (PARTS - 1) * PART_RECORDS + 300


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ray's token stays out of the home folder, and workers leave their files in ours."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # the workers' too


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where workers and Ray keep their files; short, for the names of sockets are."""
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(folder)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is {i} for?"}) + "\n" for i in range(RECORDS)))
    return path


def generate(runs: Path, prompts: Path, run: str = "r", **options: Any) -> rlaif.Result:
    model = "{provider: scripted, script: {latency_ms: 20, refusal_rate: 0.02, words: 40}}"
    return rlaif.generate(
        "rl-cai",
        prompts=str(prompts),
        runs_dir=runs,
        run=run,
        set=[f"models.policy={model}", f"models.judge={model}", "window=64", *options.pop("set", ())],
        **options,
    )


def parts(runs: Path, run: str = "r") -> list[list[bytes]]:
    folder = RunFolder(runs, run)
    return [[encode(record) for record in folder.read_part(number)] for number in folder.part_numbers()]


def calls(runs: Path) -> int:
    with sqlite3.connect(runs / "calls.sqlite") as connection:
        count: int = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
    connection.close()
    return count


def charged(runs: Path, run: str = "r") -> dict[str, int]:
    journal = Journal(runs / "calls.sqlite", read_only=True)
    lines = journal.ledger(run)
    return {stage: sum(line.sent for line in lines if line.stage == stage) for stage in {line.stage for line in lines}}


def workers() -> list[int]:
    """The processes of our workers: children of children of this one, as Ray names them."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    parent = {int(pid): int(ppid) for pid, ppid, _ in rows}

    def ours(pid: int) -> bool:
        while pid > 1:
            pid = parent.get(pid, 0)
            if pid == os.getpid():
                return True
        return False

    return [int(pid) for pid, _, name in rows if name.startswith("ray::Worker") and ours(int(pid))]


def left_of(scratch: Path) -> list[Path]:
    """The processes that keep their files there."""

    def told(process: Path) -> bytes:
        try:
            return (process / "environ").read_bytes()
        except OSError:  # another's, or gone
            return b""

    ours = f"TMPDIR={scratch}\0".encode()
    return [process for process in Path("/proc").glob("[0-9]*") if ours in told(process)]


class Killer:
    """An observer that kills one worker, once, when the run has come so far; keeps what was in the journal then."""

    def __init__(self, when: int) -> None:
        self.when = when
        self.killed: list[int] = []
        self.seen = 0
        self.seconds: list[float] = []

    @contextmanager
    def __call__(self, job: Job) -> Iterator[None]:
        over = threading.Event()
        for llm in job.asked:
            llm.observe = self.seconds.append

        def watch() -> None:
            while not over.wait(0.05):
                self.seen = max(self.seen, job.progress.records)
                if self.seen >= self.when and (found := workers()):
                    victim = max(found)
                    os.kill(victim, signal.SIGKILL)
                    self.killed.append(victim)
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("when", [0, 1, RECORDS // 3])
def test_a_run_on_ray_is_the_local_run_though_a_worker_is_killed(
    tmp_path: Path, prompts: Path, scratch: Path, when: int
) -> None:
    local = generate(tmp_path / "local", prompts)
    killer = Killer(when)
    spread = generate(tmp_path / "ray", prompts, executor="ray", observer=killer)
    assert len(killer.killed) == 1
    assert spread.status == local.status == "done"
    assert parts(tmp_path / "ray") == parts(tmp_path / "local")
    assert len(parts(tmp_path / "ray")) == PARTS
    assert spread.summary["outcomes"] == local.summary["outcomes"]
    assert spread.summary["funnel"] == local.summary["funnel"]
    assert spread.summary["dataset"] == local.summary["dataset"]
    assert calls(tmp_path / "ray") == calls(tmp_path / "local")
    # Asked again is what was on its way when the worker died, at most: two parts' windows.
    again = sum(charged(tmp_path / "ray").values()) - sum(charged(tmp_path / "local").values())
    assert again == 0, "what is journaled is charged once; what was on its way is not"
    lost = sum(s["sent"] for s in spread.summary["stages"]) - sum(s["sent"] for s in local.summary["stages"])
    assert lost <= 2 * 64
    # What observers see of calls that were made elsewhere; the last moments of the dead worker are missing.
    assert calls(tmp_path / "ray") * 0.7 < len(killer.seconds) <= calls(tmp_path / "ray") + lost + 2
    assert min(killer.seconds) > 0.015
    left = list(scratch.glob("rlaif-*/*/*"))
    assert left == [], "every answer is home, and the workers' files are gone"


def test_a_finished_run_asks_nothing_again_and_a_rebuild_finds_all_at_home(
    tmp_path: Path, prompts: Path, scratch: Path
) -> None:
    first = generate(tmp_path, prompts, limit=1200, executor="ray")
    before = parts(tmp_path)
    again = generate(tmp_path, prompts, limit=1200, executor="ray", rebuild=True)
    assert again.summary["calls"]["sent"] == 0
    assert again.summary["calls"]["from_journal"] == calls(tmp_path) > 1200
    assert parts(tmp_path) == before
    # The other way round: what was asked on Ray is not asked here.
    here = generate(tmp_path, prompts, run="other", limit=1200)
    assert here.summary["calls"]["sent"] == 0
    assert parts(tmp_path, "other") == before
    assert first.summary["calls"]["sent"] > 0


def test_answers_of_a_run_that_was_killed_as_a_whole_are_found_again(
    tmp_path: Path, prompts: Path, scratch: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.slow.test_distributed import generate; "
        "generate(Path(sys.argv[1]), Path(sys.argv[2]), executor='ray')"
    )
    runs = tmp_path / "runs"
    process = subprocess.Popen([sys.executable, "-c", code, str(runs), str(prompts)], start_new_session=True)
    while not (runs / "calls.sqlite").exists() or calls(runs) < 2000:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while left_of(scratch):  # Ray's processes see that their parent is gone
        time.sleep(0.1)
    kept = calls(runs)
    result = generate(runs, prompts, executor="ray")
    assert result.status == "done"
    assert result.summary["calls"]["from_journal"] >= kept - 2  # but what only finished parts needed
    local = generate(tmp_path / "local", prompts)
    assert parts(runs) == parts(tmp_path / "local")
    assert calls(runs) == calls(tmp_path / "local")
    assert local.status == "done"


def test_an_error_of_a_worker_is_the_runs_error(tmp_path: Path, prompts: Path, scratch: Path) -> None:
    refusing = "models.judge={provider: openai, model: m, base_url: 'http://127.0.0.1:9/v1', identity: gone}"
    with pytest.raises(ConfigError, match="model 'm' cannot be used"):
        generate(tmp_path, prompts, executor="ray", set=[refusing])
    assert not (tmp_path / "r" / "run.yaml").exists(), "the run's name is still free"


def test_workers_that_find_no_room_on_the_cluster_are_not_waited_for(
    tmp_path: Path, prompts: Path, scratch: Path
) -> None:
    with _quiet_cluster(cpus=1) as ray:
        result = generate(tmp_path, prompts, limit=1100, executor="ray", set=["ray.workers=3"])
        assert result.status == "done"
        assert result.summary["records"] == 1100
        with pytest.raises(ConfigError, match=r"ray.gpus=1: no worker fits on this cluster of 1 CPUs and 0 GPUs"):
            generate(tmp_path, prompts, run="none", limit=10, executor="ray", set=["ray.gpus=1"])
        assert ray.is_initialized(), "a cluster that was there before stays"


@contextmanager
def _quiet_cluster(cpus: int) -> Iterator[Any]:  # Any: the module
    """A cluster of the caller's own, on the loopback."""
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield ray
    finally:
        ray.shutdown()


def test_engines_that_would_take_turns_are_refused(tmp_path: Path, prompts: Path) -> None:
    two = [f"models.{role}={{provider: vllm, model: {role}, identity: {role}}}" for role in ("policy", "judge")]
    with pytest.raises(ConfigError, match="one_engine_at_a_time=false"):
        rlaif.generate("rl-cai", prompts=str(prompts), runs_dir=tmp_path, set=two, executor="ray")
