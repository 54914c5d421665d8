"""A training that is followed: what is shown on a terminal and elsewhere, and what its child is told."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlaif.train import live
from rlaif.train.lines import NAME
from rlaif.train.live import INTERRUPTED, View, follow, line, span, sparkline, table
from rlaif.train.settings import CHECKPOINTS


def logged(step: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step, "max_steps": 100, "time_s": step * 2.0, "epoch": step / 50, "loss": 1 / step,
        "rewards/margins": step / 100, "rewards/accuracies": 0.75, "grad_norm": 0.5, "learning_rate": 5e-6,
        "num_tokens": step * 600.0, **more,
    }  # fmt: skip


def shown(view: View, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table(view, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_the_last_lines_the_pace_what_is_left_and_the_warnings() -> None:
    view = View()
    assert shown(view).startswith("loading the model")
    view.take([logged(step) for step in range(1, 41)])
    view.take([{"step": 40, "max_steps": 100, "time_s": 81, "eval_loss": 3.0}])
    view.take([logged(41, warnings=[{"name": "margin", "text": "step 41: [red]small[/red]"}])])
    text = shown(view)
    head, *rows = [line.split() for line in text.splitlines() if re.match(r" *(step|\d+) ", line)]
    assert " ".join(head) == "step epoch loss margin accuracy grad norm lr tokens/s"
    assert [row[0] for row in rows] == [str(step) for step in range(34, 42)]
    assert rows[-1] == ["41", "0.82", "0.02439", "0.4100", "0.7500", "0.5000", "5.0e-06", "300"]
    assert "41/100  0:00, 1:58 to go" in text
    assert "loss █▄" in text
    assert "warning: step 41: [red]small[/red]" in text
    assert max(map(len, shown(view, 80).splitlines())) <= 80


def test_a_resumed_training_is_shown_from_its_checkpoint_on() -> None:
    view = View()
    view.take([logged(step, warnings=[{"name": "x", "text": "said"}]) for step in (1, 2, 3)])
    view.take([logged(1), logged(2)], anew=True)
    assert ([one["step"] for one in view.logged], view.warnings) == ([1, 2], [])


def test_a_figure_that_is_no_number_leaves_its_cell_empty() -> None:
    view = View()
    view.take([logged(1), logged(2, loss=None, grad_norm=None)])
    assert "2/100" in shown(view)
    assert "loss" not in line(view)


def test_the_line_says_the_same_in_short() -> None:
    view = View()
    assert line(view) == "no step yet, 0:00"
    view.take([logged(step) for step in (10, 20)])
    assert line(view) == (
        "step 20/100, epoch 0.40, loss 0.05000, margin 0.2000, accuracy 0.7500, grad norm 0.5000, lr 5.0e-06, "
        "tokens/s 300, 0:00, 2:40 to go"
    )


def test_small_texts() -> None:
    assert [span(s) for s in (0, 59.9, 61, 3600 * 25 + 62)] == ["0:00", "0:59", "1:01", "25:01:02"]
    assert sparkline([1, 1, 1], 10) == "▁▁▁"
    assert sparkline([*[8.0] * 50, *[1.0] * 50], 4) == "██▁▁"
    assert sparkline([0, 7], 60) == "▁█"


# --- following a child ---

CHILD = """
import json, signal, sys, time
def say(step, **more):
    with open(sys.argv[1], "a") as file:
        file.write(json.dumps({"step": step, "max_steps": 9, "time_s": 1.0 * step, "loss": 1.0, **more}) + "\\n")
"""


def child(folder: Path, code: str) -> subprocess.Popen[bytes]:
    """In a process group of its own, as training starts it."""
    return subprocess.Popen([sys.executable, "-c", CHILD + code, str(folder / NAME)], start_new_session=True)


def followed(folder: Path, code: str) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=100)
    result = follow(folder, child(folder, code), console)
    assert isinstance(console.file, io.StringIO)
    return result, console.file.getvalue()


def test_the_last_lines_of_a_child_are_shown_and_its_exit_code_is_told(tmp_path: Path) -> None:
    code, text = followed(tmp_path, 'say(1)\nsay(9, warnings=[{"name": "x", "text": "step 9: so"}])\nsys.exit(3)')
    assert code == 3
    assert "step 9/9" in text
    assert "warning: step 9: so\n" in text


def test_a_child_that_a_signal_ended_has_the_shells_exit_code(tmp_path: Path) -> None:
    assert followed(tmp_path, "signal.raise_signal(signal.SIGKILL)")[0] == 128 + signal.SIGKILL


def test_on_a_terminal_the_table_is_live_and_its_last_state_stays(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    assert follow(tmp_path, child(tmp_path, "say(1)\nsay(2)\nsay(9)"), console) == 0
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().rpartition("step")[2]
    assert "9/9" in last


def test_plain_lines_come_while_the_training_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PLAIN_EVERY_S", 0.05)
    _, text = followed(tmp_path, "say(1)\ntime.sleep(1)\nsay(2)\ntime.sleep(1)\nsay(3)")
    assert re.findall(r"step (\d)/9", text) == ["1", "2", "3"]


SAVES = """
import pathlib
say(1)
while not (pathlib.Path(sys.argv[1]).parent / "checkpoints" / "stop").exists():
    time.sleep(0.05)
say(5)
time.sleep(0.6)  # a signal would come in between
say(6)
sys.exit(1)  # as a launcher does when what it started ends with another code
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_child_may_save_and_whatever_it_ends_with_it_was_interrupted(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / CHECKPOINTS).mkdir()
    told = threading.Thread(target=_when_begun, args=(tmp_path, lambda: os.kill(os.getpid(), number)))
    told.start()
    code, text = followed(tmp_path, SAVES)
    told.join()
    assert code == INTERRUPTED
    assert "step 6/9" in text
    assert "the step under way is finished and saved" in text
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_second_interrupt_ends_a_child_that_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LAST_WORDS_S", 0.3)
    (tmp_path / CHECKPOINTS).mkdir()

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)

    told = threading.Thread(target=_when_begun, args=(tmp_path, twice))
    told.start()
    began = time.monotonic()
    code, _ = followed(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay(1)\ntime.sleep(600)")
    told.join()
    assert code == INTERRUPTED
    assert time.monotonic() - began < 300


def test_before_the_first_step_there_is_nothing_to_save_and_one_interrupt_does(tmp_path: Path) -> None:
    told = threading.Thread(target=_when_begun, args=(tmp_path, lambda: os.kill(os.getpid(), signal.SIGINT)))
    told.start()
    began = time.monotonic()
    code, text = followed(tmp_path, 'open(sys.argv[1], "w").close()\ntime.sleep(600)')
    told.join()
    assert code == INTERRUPTED
    assert "stopped" in text
    assert time.monotonic() - began < 300


def _when_begun(folder: Path, then: Any) -> None:
    for _ in range(600):
        followed_by_now = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if followed_by_now and (folder / NAME).exists():
            time.sleep(0.3)
            then()
            return
        time.sleep(0.05)
