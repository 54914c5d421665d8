"""`rlaif judge audit`, `compare`, `agreement` over verdicts that are in a file or a run already."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from tests.cli.command import Command

COLUMNS = ["--columns", "judge=model+how,item=id,group=set"]


def verdicts(n: int = 60, judges: tuple[tuple[str, float], ...] = (("big plain", 0.9), ("small plain", 0.6))) -> str:
    """Rows of a file with names of its own; each judge is right so often, in both orders alike."""
    chance = Random("verdicts")
    rows: list[dict[str, Any]] = []
    for i in range(n):
        label = chance.choice("12")
        for name, share in judges:
            model, how = name.split()
            won = label if chance.random() < share else "21"[int(label) - 1]
            shared = {"id": i, "set": "xy"[i % 2], "label": int(label), "model": model, "how": how}
            rows.append({**shared, "winner_ab": won, "winner_ba": won})
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def file(rlaif: Command) -> str:
    return rlaif.write("answers.jsonl", verdicts())


def test_an_audit_is_shown_and_written(rlaif: Command, file: str) -> None:
    done = rlaif("judge", "audit", file, *COLUMNS)
    assert done.code == 0, done.err
    assert "answers.jsonl: 60 items, 60 of them labelled" in done.out
    lines = done.out.splitlines()
    assert [line.split()[:2] for line in lines if " plain " in line][:2] == [["big", "plain"], ["small", "plain"]]
    assert "in answers-audit: audit.json, audit.md, accuracy.png, judges.png" in done.out
    report = json.loads((rlaif.folder / "answers-audit/audit.json").read_bytes())
    assert [judge["judge"] for judge in report["judges"]] == ["big plain", "small plain"]
    assert (rlaif.folder / "answers-audit/audit.md").read_text().startswith("## Audit of the judges")


def test_json_goes_to_standard_output_and_the_files_where_they_are_wanted(rlaif: Command, file: str) -> None:
    done = rlaif("judge", "audit", file, *COLUMNS, "--json", "--out", "there", "--no-plots")
    assert done.json["labelled"] == 60
    assert {path.name for path in (rlaif.folder / "there").iterdir()} == {"audit.json", "audit.md"}
    assert done.json == json.loads((rlaif.folder / "there/audit.json").read_bytes())


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
def test_a_table_fits_its_terminal_and_its_cells_are_whole(rlaif: Command, file: str, columns: int) -> None:
    out = rlaif("judge", "audit", file, *COLUMNS, "--no-plots", columns=columns).out
    table = [line for line in out.splitlines() if " plain " in line or "───" in line]
    assert max(map(len, table)) <= columns
    assert "…" not in out
    assert ("same winner" in out.splitlines()[2]) == (columns >= 80)


def test_judges_are_compared_on_the_items_that_both_judged(rlaif: Command, file: str) -> None:
    done = rlaif("judge", "compare", file, *COLUMNS)
    assert "big plain  small plain" in done.out
    (difference,) = rlaif("judge", "compare", file, *COLUMNS, "--json").json["differences"]
    assert difference["accuracy"]["low"] > 0
    assert difference["mcnemar"] < 0.01
    assert rlaif("judge", "compare", file, *COLUMNS, "--against", "big plain").out.count("big plain") == 2


def test_principles_are_set_beside_each_other(rlaif: Command) -> None:
    rows = [json.loads(line) for line in verdicts().splitlines()]
    for row in rows:
        row["principle"] = "kind" if row["model"] == "big" else "short"
    rlaif.write("by.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    done = rlaif("judge", "compare", "by.jsonl", *COLUMNS)
    assert "prefer different responses" in done.out
    assert {
        one["principle"] for one in rlaif("judge", "compare", "by.jsonl", *COLUMNS, "--json").json["principles"]
    } == {
        "kind",
        "short",
    }


def test_raters_in_classes_agree_as_far_as_they_do(rlaif: Command) -> None:
    rlaif.write("classes.csv", "ann,bob\nfull,full\npart,none\nnone,none\nfull,full\n")
    done = rlaif("judge", "agreement", "classes.csv", "ann", "bob")
    assert "4 rows in 3 classes: full, none, part" in done.out
    assert "0.600 [" in done.out
    found = rlaif("judge", "agreement", "classes.csv", "ann", "bob", "--json").json
    assert found["pairs"][0][:2] == ["ann", "bob"]


def test_the_verdicts_of_a_run_are_audited_by_the_labels_it_was_given(rlaif: Command) -> None:
    rlaif.generate(limit=4, run="r")
    done = rlaif("judge", "audit", "--run", "r")
    assert done.code == 0, done.err
    assert "No item has a label" in done.out
    assert (rlaif.folder / "runs/r/labels-audit/audit.md").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a labelled file, or --run NAME"),
        (["answers.jsonl", "--run", "r"], "--run"),
        (["answers.jsonl", "--columns", "judge"], "--columns judge: write NAME=VALUE"),
        (["answers.jsonl", "--columns", "label=gold"], "no column 'gold'; there are: id, set, label"),
        (["answers.jsonl", "--columns", "item=id"], "has judged this item in line 1 already"),
        (["answers.jsonl", *COLUMNS, "--labels", "1=left"], "a word means a (the first response)"),
        (["answers.jsonl", *COLUMNS, "--own", "big"], "--own big: write NAME=VALUE"),
        (["nowhere.jsonl"], "no such file"),
        (["--run", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_audited_is_said_with_the_way_out(
    rlaif: Command, file: str, arguments: list[str], said: str
) -> None:
    done = rlaif("judge", "audit", *arguments)
    assert done.code == 2
    assert said in done.err
    assert not list(rlaif.folder.glob("*-audit"))


def test_an_unknown_judge_to_compare_with_is_said(rlaif: Command, file: str) -> None:
    done = rlaif("judge", "compare", file, *COLUMNS, "--against", "big")
    assert done.code == 2
    assert "no judge 'big' in answers.jsonl; there are: big plain, small plain" in done.err
