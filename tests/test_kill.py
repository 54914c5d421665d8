"""A run is killed at random points and started again until it is done: nothing answered is paid for twice."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlaif.store import RunFolder, encode

KILLS = 20
CONCURRENCY = 8
ANSWERS = 24  # at most in a life: a run whose killer is late must not be over before
# The window is small, so that one life gets through a part of the run only.
COMMAND = ["generate", "--prompts", "redteam", "--limit", "60", "--set", "window=6", "--set", "revise.rounds=1"]


def start(url: str, runs: Path) -> subprocess.Popen[bytes]:
    model = f"{{provider: openai, model: m, identity: ours, base_url: '{url}', concurrency: {CONCURRENCY}}}"
    command = [sys.executable, "-m", "rlaif", *COMMAND, "--run", "killed", "--runs-dir", str(runs)]
    command += ["--set", f"models.policy={model}", "--set", f"models.judge={model}"]
    with runs.with_name("stderr").open("wb") as errors:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)


def finish(url: str, runs: Path) -> list[bytes]:
    """Lets a run go on to its end: its records, encoded."""
    process = start(url, runs)
    assert process.wait() == 0, runs.with_name("stderr").read_text()
    return [encode(record) for record in RunFolder(runs, "killed").records()]


def events(log: Path) -> list[tuple[float, str, str]]:
    return [(float(at), event, key) for at, event, key in map(str.split, log.read_text().splitlines())]


def journaled(runs: Path) -> int:
    path = runs / "calls.sqlite"
    if not path.exists():
        return 0
    with sqlite3.connect(path) as connection:
        count: int = connection.execute("SELECT count(*) FROM calls").fetchone()[0]
    return count


@pytest.mark.timeout(900)  # half a minute on idle cores
def test_twenty_kills_repeat_no_answered_call_and_change_no_record(tmp_path: Path) -> None:
    log, runs = tmp_path / "log", tmp_path / "runs"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.server", str(log), str(ANSWERS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:

        def left_alone(answers: int) -> None:
            """What the last life sent is in the log, and the next one gets so many answers."""
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(b"%d\n" % answers)
            server.stdin.flush()
            assert server.stdout.readline() == b"left alone\n"

        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        rng = random.Random(11)
        kills: list[float] = []
        kept: list[int] = []
        while len(kills) < KILLS:
            before = log.stat().st_size
            process = start(url, runs)
            while process.poll() is None and log.stat().st_size == before:
                time.sleep(0.002)
            time.sleep(rng.uniform(0.005, 0.12))
            assert process.poll() is None, "the run ended before it was killed: make it longer"
            process.send_signal(signal.SIGKILL)
            process.wait()
            left_alone(ANSWERS)
            kills.append(time.time())
            kept.append(journaled(runs))
        left_alone(10**9)
        disturbed = finish(url, runs)
        lives = events(log)
        undisturbed = finish(url, tmp_path / "undisturbed")
        assert server.stdin is not None
        server.stdin.close()

    preflight = lives[0][2]  # not a call of the run: what it taught is kept with the model, not in the calls
    asked = [(at, key) for at, event, key in lives if event == "asked" and key != preflight]
    ages = [0.0]
    for born, kill, in_journal in zip([0.0, *kills], kills, kept, strict=False):
        before = {key for at, key in asked if at < kill}
        again = before & {key for at, key in asked if at > kill}
        assert len(again) == len(before) - in_journal, "what the journal holds is never asked again, all else is"
        in_this_life = {key for at, key in asked if born < at < kill}
        assert len(again & in_this_life) <= CONCURRENCY, "a life loses what was in flight, at most"
        replied = {key: at for at, event, key in lives if event == "answered" and born < at < kill}
        ages += [kill - replied[key] for key in again if key in replied]
    assert journaled(runs) == len({key for _, key in asked})
    assert disturbed == undisturbed
    print(
        f"\n{KILLS} kills: {len(asked)} requests for {len({key for _, key in asked})} distinct calls; the journal held "
        f"{kept} calls at the kills; of the {len(asked) - len({key for _, key in asked})} asked again {len(ages) - 1} "
        f"had a reply under way, at most {1000 * max(ages):.0f} ms old"
    )
