"""`rlaif lint`: what it prints and writes, and what its exit code tells a CI."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.lint.made import Row, pair, turns, write

GOOD = [pair(i) for i in range(20)]
EMPTY = pair(30, chosen=turns("", first="assistant"))
REPEATED = GOOD[0]


def made(rlaif: Command, *rows: Row, name: str = "pairs.jsonl") -> str:
    write(rlaif.folder / name, [*GOOD, *rows])
    return name


def test_a_clean_dataset_ends_with_0(rlaif: Command) -> None:
    done = rlaif("lint", made(rlaif), "--strict")
    assert done.code == 0
    assert "clean: no rule found anything" in done.out
    assert "pairs.jsonl: 20 rows: train 20" in done.out


def test_errors_end_with_1_and_warnings_do_if_strict(rlaif: Command) -> None:
    warned = made(rlaif, REPEATED)
    assert rlaif("lint", warned).code == 0
    assert rlaif("lint", warned, "--strict").code == 1
    done = rlaif("lint", made(rlaif, EMPTY))
    assert done.code == 1
    assert "error    empty_response: rows with an empty response" in done.out
    assert "train row 21" in done.out
    assert "`rlaif clean pairs.jsonl --to FOLDER` drops such rows." in " ".join(done.out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jsonl"], "no file or folder nowhere.jsonl"),
        (["pairs.jsonl", "--rules", "typo"], "unknown rule 'typo'; known: unreadable"),
        (["pairs.jsonl", "--split", "test"], "no split 'test'; there are: train"),
        (["other.jsonl"], "no preference data in the columns text"),
        (["pairs.jsonl", "--limit", "0"], "greater than or equal to 1"),
    ],
)
def test_bad_usage_ends_with_2_and_the_way_out(rlaif: Command, arguments: list[str], words: str) -> None:
    made(rlaif)
    write(rlaif.folder / "other.jsonl", [{"text": "An elm."}])
    done = rlaif("lint", *arguments)
    assert done.code == 2
    assert words in done.err


def test_json_goes_to_a_file_or_to_standard_output(rlaif: Command) -> None:
    name = made(rlaif, EMPTY)
    done = rlaif("lint", name, "--json", "-")
    assert done.code == 1
    assert done.json["format"] == 1
    assert [one["rule"] for one in done.json["findings"]] == ["empty_response"]
    assert "written: report.json" in rlaif("lint", name, "--json", "report.json").out
    assert json.loads((rlaif.folder / "report.json").read_bytes()) == done.json


def test_every_option_is_told_of(rlaif: Command) -> None:
    told = (Path(__file__).parents[2] / "docs" / "lint.md").read_text()
    options = set(re.findall(r"--[a-z-]+", rlaif("lint", "--help", columns=200).out)) - {"--help"}
    assert len(options) > 8
    assert [name for name in sorted(options) if name not in told.partition("## What")[0]] == []


def test_a_rule_that_is_named_is_checked(rlaif: Command) -> None:
    done = rlaif("lint", made(rlaif, REPEATED), "--rules", "near_duplicates")
    assert "near_duplicates: rows that say nearly what an earlier row says" in done.out
    assert "1 rules" not in done.out
    assert "1 rule; near duplicates: the first 21 rows" in done.out


def test_the_page_is_one_file(rlaif: Command) -> None:
    done = rlaif("lint", made(rlaif, EMPTY), "--html", "report.html")
    assert "written: report.html" in done.out
    assert (rlaif.folder / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in rlaif.folder.iterdir()) == ["pairs.jsonl", "report.html"]


def test_rules_limit_and_other_columns(rlaif: Command) -> None:
    name = made(rlaif, EMPTY, REPEATED)
    assert rlaif("lint", name, "--rules", "duplicate_pairs,identical").code == 0
    assert rlaif("lint", name, "--limit", "20").code == 0
    rows = [{"best": row["chosen"], "worst": row["rejected"], "prompt": row["prompt"]} for row in GOOD]
    write(rlaif.folder / "other.jsonl", rows)
    done = rlaif("lint", "other.jsonl", "--columns", "chosen=best,rejected=worst")
    assert "columns: the columns have other names than TRL's" in done.out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_report_fits_its_terminal(rlaif: Command, columns: int) -> None:
    out = rlaif("lint", made(rlaif, EMPTY, REPEATED), columns=columns).out
    assert max(map(len, out.splitlines())) <= columns


def test_what_a_dataset_says_does_not_reach_the_terminal(rlaif: Command) -> None:
    rows = [pair(i, category="\x1b[31mred\x1b[0m" if i else "[bold]plain[/bold]") for i in range(20)]
    out = rlaif("lint", made(rlaif, *[pair(40 + i, category=row["category"]) for i, row in enumerate(rows)])).out
    assert "category_balance" in out
    assert "\x1b" not in out
    assert "[bold]plain[/bold]" in out or "\\x1b[31mred" in out


def test_what_rlaif_exports_is_free_of_errors(rlaif: Command) -> None:
    assert rlaif.generate(limit=24).code == 0
    folder = Path("runs") / "first" / "dataset"
    configs = sorted(path.name for path in (rlaif.folder / folder).iterdir() if path.is_dir())
    assert "preference" in configs
    for config in configs:
        if config == "prompts":  # no answers in it
            continue
        done = rlaif("lint", str(folder), "--config", config, "--json", "-")
        errors = [one for one in done.json["findings"] if one["level"] == "error"]
        assert (done.code, errors) == (0, []), config
