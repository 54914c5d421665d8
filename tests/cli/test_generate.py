"""`generate`, `retry` and `export`: what they print where, and the exit code that says how it ended."""

from __future__ import annotations

import json
import re
import signal
import socket
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from rlaif.cli.progress import clock
from tests.cli.command import SCRIPTED, Command, start, start_signalled
from tests.faults import FaultyServer


def test_a_run_ends_with_its_funnel_a_pair_and_where_the_data_is(rlaif: Command) -> None:
    done = rlaif.generate()
    assert done.code == 0
    for words in ("funnel", "prompts", "verdicts", "chosen", "rejected", "calls: ", "dataset: runs/first/dataset",
                  'datasets.load_dataset("runs/first/dataset", "preference")', "rlaif show first"):  # fmt: skip
        assert words in done.out
    assert "run 'first': 3 prompts, at most" in done.err
    assert "3/3 records" in done.err


def test_progress_that_is_not_on_a_terminal_is_plain_lines_on_standard_error(rlaif: Command) -> None:
    done = rlaif.generate()
    assert "\x1b" not in done.err + done.out
    assert all("━" not in line and len(line) < 200 for line in done.err.splitlines())


def test_json_prints_the_summary_and_nothing_else(rlaif: Command) -> None:
    done = rlaif.generate("--json")
    assert done.code == 0
    assert done.json == json.loads((rlaif.folder / "runs/first/summary.json").read_bytes())
    assert done.json["records"] == 3
    assert done.json["calls"]["sent"] > 0


def test_the_same_command_again_sends_no_call_and_rebuilds_the_same(rlaif: Command) -> None:
    rlaif.generate()
    assert rlaif.generate("--json").json["calls"]["sent"] == 0
    again = rlaif.generate("--json", "--rebuild").json["calls"]
    assert (again["sent"], again["failed"]) == (0, 0)
    assert again["from_journal"] > 0


def test_a_dry_run_counts_the_calls_and_writes_no_part(rlaif: Command) -> None:
    done = rlaif.generate("--dry-run")
    assert done.code == 0
    assert "nothing was sent" in done.out
    assert not list(rlaif.folder.glob("runs/first/parts/*"))


def test_failed_records_give_exit_code_1_and_retry_asks_for_them_again(rlaif: Command) -> None:
    failing = ["--set", "models.judge.script.error_rate=0.3"]
    done = rlaif.generate(*failing, limit=8)
    assert done.code == 1
    assert "failed; ask again for what is missing: rlaif retry first" in done.out
    again = rlaif("retry", "first", "--json")
    assert again.code == 1  # it fails each time, on purpose
    assert again.json["calls"]["failed"] > 0


def test_an_export_makes_the_dataset_anew_without_a_call(rlaif: Command) -> None:
    before = rlaif.generate("--json").json
    done = rlaif("export", "first", "--set", "export.min_p=1.0", "--json")
    assert done.code == 0
    assert done.json["dataset"]["pairs"] < before["dataset"]["pairs"]
    assert done.json["calls"] == before["calls"]  # still those of the run
    assert rlaif("export", "first").code == 0


def test_commands_that_are_named_at_the_end_work_with_another_runs_folder(rlaif: Command) -> None:
    done = rlaif.generate("--runs-dir", "elsewhere", "--set", "models.judge.script.error_rate=0.3", limit=8)
    named = [line.partition("rlaif ")[2].split() for line in done.out.splitlines() if "rlaif " in line]
    assert len(named) == 2
    for arguments in named:
        assert rlaif(*arguments).code in (0, 1)


def test_narrow_terminals_get_every_number_and_whole_paths(rlaif: Command) -> None:
    rlaif.generate()
    done = rlaif("export", "first", columns=60)
    assert 'load it: datasets.load_dataset("runs/first/dataset", "preference")' in done.out.splitlines()
    assert max(len(line) for line in done.out.splitlines() if "runs/" not in line) <= 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.timeout(300)
def test_an_interrupted_run_says_so_and_goes_on_where_it_stopped(tmp_path: Path, number: signal.Signals) -> None:
    slow = ["generate", *SCRIPTED, "--limit", "12", "--run", "slow", "--json"]
    slow += ["--set", "models.policy.script.latency_ms=20", "--set", "models.judge.script.latency_ms=20"]
    slow += ["--set", "models.policy.concurrency=4", "--set", "models.judge.concurrency=4"]
    process = start_signalled(tmp_path, slow, number, at=30)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    stopped = json.loads(out)
    assert stopped["status"] == "interrupted"
    assert 25 < stopped["calls"]["sent"] < 50  # those in flight end
    again = start(tmp_path, slow)
    out, err = again.communicate(timeout=100)
    assert again.returncode == 0, err
    finished = json.loads(out)
    assert finished["calls"]["from_journal"] >= stopped["calls"]["sent"] - 1  # less the preflight's
    with closing(sqlite3.connect(tmp_path / "runs/calls.sqlite")) as kept:
        (answers,) = kept.execute("SELECT count(*) FROM calls").fetchone()
    assert stopped["calls"]["sent"] + finished["calls"]["sent"] == answers + 1  # none was sent twice


@pytest.mark.timeout(300)
def test_ctrl_c_twice_ends_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    with FaultyServer(lambda _: "hung" if len(server.log) > 1 else None) as server:
        slow = ["generate", "small", "--limit", "2", "--run", "slow", "--judge", "scripted", "--policy"]
        process = start(tmp_path, [*slow, f"{server.url}#m"])
        while "hung" not in server.faults() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        while catches(process, signal.SIGTERM):  # until the first one was heard: two at once would be one
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)  # what hangs is given up after 600 s
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    assert "stopping: what is in flight is finished and kept; Ctrl-C again ends at once" in err
    assert "run the same command again" in err


def catches(process: subprocess.Popen[str], number: signal.Signals) -> bool:
    """Whether the process has a handler for the signal, as Linux tells."""
    found = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (7325, "2:02:05")])
def test_times_are_shown_as_clocks_do(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.timeout(300)
def test_a_run_that_is_stopped_before_it_began_leaves_its_name_free(tmp_path: Path) -> None:
    slow = ["generate", "small", "--limit", "2", "--run", "free", "--judge", "scripted", "--policy"]
    with closing(socket.create_server(("127.0.0.1", 0))) as server:  # takes the first question and is silent
        process = start(tmp_path, [*slow, f"http://127.0.0.1:{server.getsockname()[1]}/v1#m"])
        server.settimeout(100)
        asked, _ = server.accept()
        asked.recv(100)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        asked.close()
        out, err = process.communicate(timeout=100)
    assert process.returncode == 130, out + err
    again = start(tmp_path, [*slow, "scripted"])
    out, err = again.communicate(timeout=100)
    assert again.returncode == 0, out + err
