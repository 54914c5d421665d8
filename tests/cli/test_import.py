"""`rlaif import`: what the command says of a foreign dataset, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tests.cli.command import Command

PAIRS = [{"prompt": f"Q{i}?", "chosen": "A", "rejected": "B"} for i in range(20)]
DIRT = [{"prompt": "Q", "chosen": "A", "rejected": " A"}, {"prompt": "R", "chosen": "", "rejected": "B"}]


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_it_says_what_was_read_written_and_left_out(rlaif: Command) -> None:
    rlaif.write("pairs.jsonl", lines([*PAIRS, *DIRT]))
    done = rlaif("import", "pairs.jsonl", "--to", "made", "--set", "test_fraction=0", "--licence", "MIT")
    assert done.code == 0
    assert done.out.splitlines() == [
        "read as pairs, chosen over rejected (text), the prompt in prompt (text)",
        "22 rows read, 20 pairs",
        "  preference: train 20",
        "  sft: train 20",
        "  kto: train 40",
        "  reward: train 20",
        "left out, see made/dropped.jsonl:",
        "  1 empty_chosen: the better answer says nothing",
        "  1 identical: both answers say the same",
        "dataset: made",
    ]
    assert "licence: `MIT`" in (rlaif.folder / "made/README.md").read_text()


def test_columns_that_nothing_is_made_of_are_told(rlaif: Command) -> None:
    rlaif.write(
        "pairs.jsonl", lines([{"prompt": "Q", "history": [["a", "b"]], "chosen": "A", "rejected": "B", "\x1b": 1}])
    )
    done = rlaif("import", "pairs.jsonl", "--to", "made")
    assert "columns left aside: history, \\x1b" in done.out
    assert "- columns left aside: `history`" in (rlaif.folder / "made/README.md").read_text()


def test_columns_of_other_names_are_named(rlaif: Command) -> None:
    rlaif.write("pairs.jsonl", lines([{"ask": "Q", "yes": "A", "no": "B"}]))
    refused = rlaif("import", "pairs.jsonl", "--to", "made")
    assert (refused.code, "--columns chosen=NAME,rejected=NAME" in refused.err) == (2, True)
    done = rlaif("import", "pairs.jsonl", "--to", "made", "--columns", "prompt=ask,chosen=yes,rejected=no")
    assert (done.code, "1 rows read, 1 pairs" in done.out) == (0, True)


def test_a_ranking_is_imported_as_one(rlaif: Command) -> None:
    answers = [{"answer": text, "rank": rank} for rank, text in enumerate("abc", 1)]
    rlaif.write("ranked.jsonl", lines([{"prompt": "Q", "answers": answers}]))
    done = rlaif("import", "ranked.jsonl", "--to", "made", "--as", "nectar", "--set", "pick=all")
    assert "1 rows read, 3 pairs" in done.out
    done = rlaif("import", "ranked.jsonl", "--to", "made", "--set", "pick=all", "--set", "min_margin=0.6")
    assert "1 rows read, 1 pairs" in done.out
    assert "2 low_margin: less than min_margin between the two" in done.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.jsonl"], "no file or folder nowhere.jsonl"),
        (["pairs.jsonl", "--as", "thumbs"], "no preference data that is unpaired in the columns prompt, chosen"),
        (["pairs.jsonl", "--as", "odd"], "odd"),
        (["pairs.jsonl", "--set", "margin=1"], "--set margin: unknown; there are: pick, max_pairs_per_prompt, min"),
        (["pairs.jsonl", "--set", "min_margin=2"], "--set min_margin: Input should be less than or equal to 1"),
        (["pairs.jsonl", "--set", "scale=[5, 1]"], "`scale` is the lowest rating and then the highest"),
        (["pairs.jsonl", "--set", "configs=[sft,dpo]"], "--set configs.1: Input should be 'preference', 'sft'"),
        (["pairs.jsonl", "--split", "dev"], "no split 'dev'; there are: train"),
        (["pairs.jsonl", "--columns", "chosen"], "--columns chosen: write NAME=VALUE"),
        (["pairs.jsonl", "--to", "."], "is not a dataset that rlaif wrote"),
    ],
)
def test_what_cannot_be_done_is_one_error(rlaif: Command, arguments: list[str], says: str) -> None:
    rlaif.write("pairs.jsonl", lines(PAIRS))
    to = [] if "--to" in arguments else ["--to", "made"]
    refused = rlaif("import", *arguments, *to)
    assert refused.code == 2
    assert says in refused.err
    assert not (rlaif.folder / "made").exists()
