"""`rlaif diff`: what it prints, at the width of an old terminal."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from rlaif.cli.diff import show
from rlaif.rundiff import RunDiff, Side
from tests.cli.command import Command


@pytest.fixture
def runs(rlaif: Command) -> Command:
    rlaif.generate(limit=40)
    rlaif.generate("--constitution", "helpful-honest-harmless", limit=40, run="second")
    return rlaif


@pytest.mark.parametrize("columns", [80, 120])
def test_the_difference_of_two_runs_is_told_in_pairs_principles_and_examples(runs: Command, columns: int) -> None:
    done = runs("diff", "first", "second", columns=columns)
    assert done.code == 0
    for words in ("from run 'first' to run 'second': 40 prompts in both", "constitution, removed: ", "agree",
                  "changed pairs", "(removed)", "(added)", "before, chosen", "drawn in 'first' only"):  # fmt: skip
        assert words in done.out
    tables = [line for line in done.out.splitlines() if not line.startswith("  constitution,")]
    assert max(map(len, tables)) <= columns


def test_json_has_the_counts_that_are_printed_and_more(runs: Command) -> None:
    found = runs("diff", "first", "second", "--json").json
    assert found["records_in_both"] == 40
    kept = found["pairs"]["agree"]["all"] + sum(found["pairs"][f]["all"] for f in ("flipped", "other_chosen", "lost"))
    first = runs("export", "first", "--json").json["dataset"]["pairs"]
    assert kept + found["pairs"]["other_rejected"]["all"] == first
    assert found["constitution"]["added"]
    assert found["examples"][0]["causes"][0].keys() == {"principle", "what"}


def test_a_run_and_itself_have_the_same_settings_and_no_example(runs: Command) -> None:
    done = runs("diff", "first", "first")
    assert "the same settings" in done.out
    assert "before" not in done.out


def test_a_run_that_is_not_there_or_not_finished_is_named(runs: Command) -> None:
    done = runs("diff", "first", "third")
    assert (done.code, done.out) == (2, "")
    assert "no run 'third' in runs; there are: first, second" in done.err
    (runs.folder / "runs" / "second" / "summary.json").unlink()
    done = runs("diff", "first", "second")
    assert (done.code, "run 'second' is not finished (interrupted): its 40 records so far" in done.out) == (0, True)


def test_reasons_and_names_of_the_users_own_are_printed_as_they_stand() -> None:
    found = RunDiff(Side("[red]a", 1, "done"), Side("b", 1, "stopped"), None, ["stages[0].x: [bold] -> y"])
    found.lost["[red]mine"] = 3
    found.parts["[bold]kind"] = Counter(rounds_gone=2)
    screen = io.StringIO()
    console = Console(file=screen, width=80, color_system=None)
    show(console, found, examples=1)
    for words in ("'[red]a'", "stages[0].x: [bold] -> y", "3 [red]mine", "[bold]kind", "run 'b' is not finished"):
        assert words in screen.getvalue()
