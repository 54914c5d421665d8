"""`rlaif judge audit FILE --judge MODEL` asks a judge about labelled items; `rlaif generate --audit` does so first."""

from __future__ import annotations

import json

import pytest

from tests.cli.command import Command
from tests.labelled import pairs, write

JUDGE = ["--set", "models.judge={provider: scripted, model: keen, script: {skill: 50.0}}"]


@pytest.fixture
def gold(rlaif: Command) -> str:
    write(rlaif.folder / "gold.jsonl", pairs(30))
    return "gold.jsonl"


def test_a_judge_is_asked_and_its_figures_are_shown_and_written(rlaif: Command, gold: str) -> None:
    done = rlaif("judge", "audit", gold, "--pipeline", "rejudge", *JUDGE, "--run", "live", columns=160)
    assert done.code == 0, done.err
    assert "gold.jsonl: 30 items, 30 of them labelled" in done.out
    assert "100.0% [89, 100]" in done.out
    assert "in runs/live/audit: audit.json, audit.md" in done.out
    report = json.loads((rlaif.folder / "runs/live/audit/audit.json").read_bytes())
    assert report["judges"][0]["judge"] == "keen"
    again = rlaif("judge", "audit", gold, "--pipeline", "rejudge", *JUDGE, "--run", "live", "--json")
    assert again.json["judges"] == report["judges"]


def test_the_columns_of_the_file_are_said_as_for_any_audit(rlaif: Command) -> None:
    rows = [
        {"q": row["prompt"], "one": row["a"], "two": row["b"], "best": "12"[row["label"] == "b"]} for row in pairs(9)
    ]
    write(rlaif.folder / "mine.jsonl", rows)
    named = ["--columns", "prompt=q,a=one,b=two,label=best"]
    done = rlaif("judge", "audit", "mine.jsonl", "--judge", "scripted", *named, "--json")
    assert (done.code, done.json["labelled"]) == (0, 9)
    missing = rlaif("judge", "audit", "mine.jsonl", "--judge", "scripted", "--columns", "label=best")
    assert missing.code == 2
    assert "no column 'prompt'" in missing.err


def test_a_dry_run_says_what_asking_would_take(rlaif: Command, gold: str) -> None:
    done = rlaif("judge", "audit", gold, "--judge", "scripted", "--dry-run")
    assert done.code == 0
    assert "dry run: nothing was sent" in done.out
    assert "60" in done.out
    assert not (rlaif.folder / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--judge", "scripted"], "give the file too"),
        (["gold.jsonl", "--dry-run"], "give --judge MODEL"),
        (["gold.jsonl", "--judge", "nonsense"], "--judge:"),
        (["gold.jsonl", "--judge", "scripted", "--pipeline", "sl-cai"], "no judge stage to audit"),
    ],
)
def test_what_cannot_be_asked_is_said(rlaif: Command, gold: str, arguments: list[str], said: str) -> None:
    done = rlaif("judge", "audit", *arguments)
    assert done.code == 2
    assert said in done.err


def test_generate_audits_first_and_stops_below_the_bar_with_exit_code_1(rlaif: Command, gold: str) -> None:
    options = ["generate", "rlaif", "--policy", "scripted", *JUDGE, "--limit", "4", "--run", "r", "--audit", gold]
    done = rlaif(*options, "--min-kappa", "0.9")
    assert done.code == 0, done.err
    assert (rlaif.folder / "runs/r/dataset/audit.md").is_file()
    write(rlaif.folder / "gold.jsonl", pairs(30, wrong=0.5))
    below = rlaif(*[part if part != "r" else "s" for part in options], "--min-kappa", "0.9")
    assert below.code == 1
    assert below.err.count("the audit stopped the run: keen has kappa") == 1
    assert "under --min-kappa 0.9" in below.err
    assert not (rlaif.folder / "runs/s").exists()


def test_the_labels_of_a_run_are_its_audits_gold(rlaif: Command, gold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    rlaif("generate", "rejudge", "--prompts", gold, *JUDGE, "--run", "r")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n" * 25))
    assert "25 of 25 pairs have your answer" in rlaif("label", "r", "--n", "25").out
    done = rlaif("judge", "audit", "--run", "r", "--json")
    assert (done.code, done.json["items"], done.json["labelled"]) == (0, 30, 25)
