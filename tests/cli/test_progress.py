"""The live table: every number whole, on any terminal, whatever the models are called."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from rlaif.cli.progress import heading, line, table
from rlaif.config import load_settings
from rlaif.job import Job
from rlaif.llm import Tally
from rlaif.store import RunFolder

LONG = "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo[red]"


def job(*, total: int | None = 200, failed: int = 0) -> Job:
    made = Job(load_settings("cai", {}), RunFolder(Path("runs"), "[bold]mine"), total, 16)
    made.tallies = {
        ("preflight", LONG): Tally(),
        ("sample", LONG): Tally(sent=4_000, from_journal=1_200, failed=failed, prompt_tokens=12_345_678),
        ("judge", "gpt-x"): Tally(sent=3, completion_tokens=999),
    }
    made.progress.in_stage.update(sample=2, judge=1)
    made.progress.through_stage["sample"] = 150
    return made


def drawn(made: Job, width: int) -> str:
    screen = io.StringIO()
    Console(file=screen, width=width, force_terminal=True, color_system=None).print(table(made))
    return screen.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("failed", [0, 17])
def test_numbers_are_never_cut_and_long_names_give_way(width: int, failed: int) -> None:
    text = drawn(job(failed=failed), width)
    for number in ("150", "4,000", "1,200", "12.35M", "999", "0/200 records"):
        assert number in text
    assert max(map(len, text.splitlines())) <= width
    assert ("failed" in text and "17" in text) == bool(failed)
    assert "Meta" in text
    assert "preflight" not in text


def test_a_run_of_unknown_length_is_shown_too() -> None:
    made = job(total=None)
    assert "0 records" in drawn(made, 80)
    assert heading(made) == "run '[bold]mine': all prompts"
    assert line(made).startswith("0 records, 4,003 calls sent, 1,200 from the journal, ")


def test_the_time_left_is_that_of_the_calls_still_planned() -> None:
    made = job()
    made.started -= 100  # 4,003 calls in 100 s; all 200 records have at most 3,200
    assert "about 0:00 left" in line(made)
    made.progress.records = 200
    assert "took 1:40" in line(made)


def test_what_a_stop_waits_for_is_said() -> None:
    made = job()
    made.draining = True
    for shown in (line(made), drawn(made, 120)):
        assert "stopping: what is in flight is finished and kept; Ctrl-C again ends at once" in shown
        assert "left" not in shown
