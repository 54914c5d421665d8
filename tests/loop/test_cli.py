"""`rlaif loop` as a user types it, up to where training would begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.cli.loop import _show_end, _shown
from rlaif.errors import ConfigError
from rlaif.loop.evaluation import Measured, Rate
from rlaif.loop.gates import Held
from rlaif.loop.plan import Place
from rlaif.loop.report import Model, Round, StepReport, read_round, write_loop, write_round
from rlaif.loop.rounds import Begun, Ended, Event, Judged, Waiting
from rlaif.loop.steps import Step
from tests.cli.command import Command

FIRST, ONE, TWO = (Model(name, f"transformers:{name}") for name in ("base", "m/one", "m/two"))
LOOP = "model: base\ntrain: [sft, dpo]\nrounds: 2\nevaluate: {hold_out: 0.3}\ngenerate: {prompts: redteam}\n"


@pytest.fixture
def rlaif(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path, capsys, monkeypatch)


def rounds() -> list[Round]:
    """The first is taken, the second held back."""
    measured = {
        "first": Measured(Rate(0.6, 0.5, 0.7), Rate(0.02, 0.0, 0.05), 80.0),
        "new": Measured(Rate(0.3, 0.2, 0.4), Rate(0.04, 0.01, 0.08), 70.0),
    }
    gate = Held("over_refusal", "the last model", 0.02, 0.05, True, "over-refusal 4.0%, 2.0% with the last model")
    step = StepReport("generate", "rlaif generate", 75.0, "12 pairs, [red]no markup[/red]")
    taken = Round(1, ONE, FIRST, FIRST, True, "all gates passed (1)", (gate,), measured, steps=(step,))
    failing = Held("win_rate", "the last model", 0.4, 0.5, False, "win rate against the last model 40.0%")
    reason = "m/one stays: win rate against the last model 40.0%"
    held = Round(2, TWO, ONE, FIRST, False, reason, (failing,), measured, Rate(0.4, 0.3, 0.5), steps=(step,))
    return [taken, held]


def test_a_dry_run_lists_the_commands_and_runs_none(rlaif: Command) -> None:
    rlaif.write("mine.yaml", LOOP)
    done = rlaif("loop", "mine.yaml", "--dry-run", "--set", "dpo.beta=0.2", columns=300)
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line.split()[1] for line in lines[:8]] == ["generate", "train", "train", "eval"] * 2
    assert "--set beta=0.2" in lines[2]
    assert lines[8] == "dry run: nothing was run. 8 of 8 steps in 2 rounds are left"
    assert [path.name for path in rlaif.folder.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("evaluate.options={lmit: 3}", "eval-safety: No such option: --lmit"),
        ("evaluate.options={limit: few}", "eval-safety: Invalid value for '--limit': Input should be a valid integer"),
        ("generate.options={max-cots: 3}", "generate: No such option: --max-cots"),
        ("train=[{method: sft, options: {lroa: true}}]", "train-sft: No such option: --lroa"),
    ],
)
def test_an_option_that_a_command_does_not_have_is_said_before_anything_runs(
    setting: str, says: str, rlaif: Command
) -> None:
    rlaif.write("mine.yaml", LOOP)
    done = rlaif("loop", "mine.yaml", "--set", setting)
    assert done.code == 2
    assert says in done.err
    assert [path.name for path in rlaif.folder.iterdir()] == ["mine.yaml"]


def test_an_unknown_loop_and_a_name_that_no_run_can_have_are_said(rlaif: Command) -> None:
    done = rlaif("loop", "nope", "--dry-run")
    assert (done.code, "no pipeline 'loop/nope'" in done.err) == (2, True)
    rlaif.write("mine.yaml", LOOP)
    done = rlaif("loop", "mine.yaml", "--out", "loops/a b", "--dry-run")
    assert done.code == 2
    assert "cannot be a run's name" in done.err


def test_reports_are_read_as_they_were_written_and_say_why_a_model_was_not_taken(tmp_path: Path) -> None:
    found = rounds()
    for one in found:
        (tmp_path / f"round-{one.number}").mkdir()
        write_round(tmp_path / f"round-{one.number}", one)
        assert read_round(tmp_path / f"round-{one.number}") == one
    write_loop(tmp_path, FIRST, found)
    text = (tmp_path / "report.md").read_text()
    assert "| 1 | 30.0% [20, 40] | 4.0% [1, 8] |  | 70 | 1 min 15 s | taken |" in text
    assert "## Round 2: not taken\n\nm/one stays: win rate against the last model 40.0%." in text
    assert "| win_rate | win rate against the last model 40.0% | FAILED |" in text


def test_a_report_that_is_not_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(
        ConfigError, match=r"report\.json is not what rlaif wrote .*; remove it to judge the round anew"
    ):
        read_round(tmp_path)


def test_each_step_is_a_line_with_its_time_and_what_came_out_and_the_end_names_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    taken, held = rounds()
    step = Step(1, "generate", ("generate",), tmp_path / "summary.json", tmp_path)
    report = taken.steps[0]
    events: list[Event] = [Waiting("train-dpo (process 7)"), Waiting("train-dpo (process 7)"), Begun(step)]
    events += [Ended(step, report, False), Ended(step, report, True), Judged(taken, True), Judged(held, False)]
    console = Console(width=100)
    assert [judged.round for judged in _shown(console, iter(events))] == [taken, held]
    _show_end(console, Place(tmp_path / "mine", tmp_path / "runs"), [taken, held])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "this loop was killed, and its step train-dpo (process 7) is still at work; waiting for it",
        f"round 1  generate: begins; its log: {tmp_path}/generate.log",
        "round 1  generate           1 min 15 s  12 pairs, [red]no markup[/red]",
        "round 1  generate          done before  12 pairs, [red]no markup[/red]",
        "round 1  taken (before): all gates passed (1)",
        "round 2  not taken: m/one stays: win rate against the last model 40.0%",
    ]
    assert any(line.startswith("model: m/one (transformers:m/one); ") for line in lines)
    assert any("first" in line and "60.0% [50, 70]" in line for line in lines)
