"""What `generate` says of answers that were there already, and of drafts that refuse."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from rlaif.cli.progress import show_notices, table
from rlaif.config import load_settings
from rlaif.job import Job
from rlaif.store import RunFolder
from tests.cli.command import Command

REFUSING = ["--set", "models.policy.script.refusal_rate=0.9"]


def test_a_run_under_a_new_name_says_how_many_answers_it_reused(rlaif: Command) -> None:
    assert "reused" not in rlaif.generate().out
    assert "reused" not in rlaif.generate("--rebuild").out  # its own answers are not those of an earlier run
    done = rlaif.generate("--constitution", "helpful-honest-harmless", run="second")
    assert "reused 6 of 30 answers from earlier runs" in done.out
    again = rlaif.generate("--constitution", "helpful-honest-harmless", "--json", run="second")
    assert again.json["reused"] == {"answers": 6, "of": 30}  # of its first time: nothing was looked at again


def test_a_dry_run_foresees_what_the_journal_answers(rlaif: Command) -> None:
    assert "in the journal already" not in rlaif.generate("--dry-run").out
    rlaif.generate()
    done = rlaif.generate("--dry-run", "--constitution", "helpful-honest-harmless", run="second")
    assert "Of these 30 answers at least 6 are in the journal already" in done.out


def test_drafts_that_refuse_are_told_before_the_bill_grows_and_in_the_end(rlaif: Command) -> None:
    done = rlaif.generate(*REFUSING, limit=40)
    assert "of 16 first drafts refuse already: there is little to revise." in done.err
    assert "Ctrl-C ends the run" in done.err
    assert "of 40 first drafts refuse already" in done.out
    assert "refuse already" not in rlaif.generate(limit=40, run="second").out + rlaif.generate().out


def test_an_estimate_always_tells_the_share_of_refusals(rlaif: Command) -> None:
    assert "0 of 5 first drafts refuse" in rlaif.generate("--estimate", "5", limit=40).out
    done = rlaif.generate("--estimate", "20", *REFUSING, limit=40, run="second")
    assert "of 20 first drafts refuse already" in done.out


def test_on_a_terminal_the_warning_stays_in_sight_and_is_not_said_twice() -> None:
    job = Job(load_settings("cai", {}), RunFolder(Path("runs"), "mine"), 200, 16)
    job.warning = "23 of 32 first drafts refuse already"
    job.notices += [job.warning, "another"]
    screen = io.StringIO()
    console = Console(file=screen, width=80, force_terminal=True, color_system=None)
    console.print(table(job))
    show_notices(console, job)
    assert screen.getvalue().count("first drafts refuse") == 1
    assert "note: another" in screen.getvalue()
