"""Each rule finds what it names, in the rows that have it, and nothing in a good dataset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import ConfigError
from rlaif.export.settings import ExportSettings
from rlaif.hygiene.clean import Clean, Cleaner
from rlaif.lint.rules import RULES, SIDE
from tests.lint.made import Row, counts, lint, named, pair, single, text_pair, turns, write

GOOD = [pair(i) for i in range(40)]
GOOD_TEXT = [text_pair(i) for i in range(40)]
LONG = " ".join(f"Word {i} of a long text." for i in range(300))


def test_a_good_dataset_is_clean(tmp_path: Path) -> None:
    for rows in (GOOD, GOOD_TEXT, [single(i, label=bool(i % 2)) for i in range(40)]):
        report = lint(tmp_path, rows)
        assert report.findings == ()
        assert report.worst is None
        assert report.trainers


def answered(chosen: str, rejected: str = "The elder grows near old houses and on the banks of slow rivers.") -> Row:
    return {
        "prompt": turns("Where does the elder grow?"),
        "chosen": turns(chosen, first="assistant"),
        "rejected": turns(rejected, first="assistant"),
    }


SOUND = "It grows on river banks, and in the shade of old walls."
IN_ONE_ROW: dict[str, list[Row]] = {
    "not_text": [pair(99, chosen=None), pair(99, rejected=7), pair(99, prompt=[{"role": "user", "content": None}])],
    "mixed_types": [pair(99, prompt="Where does it grow?")],
    "prompt_twice": [
        pair(
            99,
            chosen=turns("Where?", "In the north of the country, in woods."),
            rejected=turns("Where?", "In the south of the country, on hills."),
        )
    ],
    "dialect": [
        pair(99, chosen=[{"from": "gpt", "value": SOUND}]),
        pair(99, prompt=[{"role": "human", "content": "Where does the elder grow?"}]),
        pair(99, prompt=[{"role": "oracle", "content": "Where does the elder grow?"}]),
    ],
    "none_padded": [pair(99, chosen=[{"role": "assistant", "content": SOUND, "tool_calls": None}])],
    "empty_prompt": [pair(99, prompt=[]), pair(99, prompt=turns("  "))],
    "empty_response": [pair(99, chosen=turns("", first="assistant")), pair(99, rejected=[]), answered(SOUND, " \n ")],
    "identical": [answered(SOUND, SOUND), answered(SOUND, f"{SOUND}\n")],
    "ends_on_user": [pair(99, chosen=turns("In the north.", "Thanks for the answer!", first="assistant"))],
    "role_order": [
        pair(99, prompt=[*turns("Hello there, gardener."), *turns("Where does the elder grow?")]),
        pair(99, prompt=turns("Where does the elder grow?", "It depends.")),
    ],
    "late_system": [
        pair(99, prompt=[*turns("Hello, gardener.", "Hi!"), {"role": "system", "content": "Be kind."}, *turns("Why?")])
    ],
    "empty_turn": [pair(99, prompt=turns("Hello, gardener.", " ", "Where does the elder grow?"))],
    "prompt_too_long": [pair(99, prompt=turns(LONG))],
    "row_too_long": [answered(LONG)],
    "short_prompt": [pair(99, prompt=turns("Why?"))],
    "bad_text": [answered(f"{SOUND}{bad}") for bad in ("\x00", "It doesn\u00e2\u20ac\u2122t.", "\ufffd")],
    "role_tags": [answered("It grows there.\n\nHuman: Where?\n\nAssistant: There."), answered(f"{SOUND}<|im_end|>")],
    "critique_leak": [answered("Critique: the assistant's last response was rude.")],
    "preamble": [answered(f"Sure, here is the revised response: {SOUND}")],
    "self_identification": [answered(f"As an AI language model trained by OpenAI, I can't say. {SOUND}")],
    "truncated": [answered("It grows on the banks of rivers, in the shade of old walls, and then, because the")],
    "repetition": [answered("It grows on the banks of rivers. " * 40)],
    "refusal_chosen": [answered("I'm sorry, but I can't help with that.")],
    "refusal_rejected": [answered(SOUND, "I'm sorry, but I can't help with that.")],
    "refusal_both": [answered("I cannot help you with this request.", "I'm sorry, but I can't help with that.")],
}  # fmt: skip


@pytest.mark.parametrize("rule", IN_ONE_ROW)
def test_a_bad_row_is_found_and_named(tmp_path: Path, rule: str) -> None:
    for row in IN_ONE_ROW[rule]:
        report = lint(tmp_path, [*GOOD, row, *GOOD[:0]])
        finding = named(report, rule)
        assert finding.count == 1
        assert finding.n in (41, report.pairs)
        assert [one.place for one in finding.rows] == ["train row 41"]
        assert finding.why
        assert finding.way_out


@pytest.mark.parametrize("rule", [rule for rule in IN_ONE_ROW if rule not in ("role_tags", "truncated")])
def test_text_is_judged_as_messages_are(tmp_path: Path, rule: str) -> None:
    found = 0
    for row in IN_ONE_ROW[rule]:
        values = [row[name] for name in ("prompt", "chosen", "rejected")]
        if not all(isinstance(value, list) and len(value) == 1 and len(value[0]) == 2 for value in values):
            continue
        if any(not isinstance(value[0].get("content"), str) for value in values):
            continue
        if any(value[0]["role"] not in ("user", "assistant") for value in values):
            continue
        as_text = {name: row[name][0]["content"] for name in ("prompt", "chosen", "rejected")}
        found += counts(lint(tmp_path, [*GOOD_TEXT, as_text]))[rule]
    assert found or rule in ("not_text", "mixed_types", "prompt_twice", "dialect", "none_padded", "role_order",
                             "ends_on_user", "late_system", "empty_turn")  # fmt: skip


@pytest.mark.parametrize(("rows", "level"), [(4, "note"), (40, "warning")])
def test_refusals_are_too_many_only_where_enough_rows_say_so(tmp_path: Path, rows: int, level: str) -> None:
    refused = [
        pair(i, rejected=turns("I'm sorry, but I can't help with that.", first="assistant")) for i in range(rows // 2)
    ]
    report = lint(tmp_path, [*GOOD[: rows // 2], *refused])
    assert named(report, "refusal_rejected").level == level


def test_text_answers_that_repeat_the_prompt_are_found(tmp_path: Path) -> None:
    row = text_pair(99)
    row |= {name: f"{row['prompt']} {row[name]}" for name in ("chosen", "rejected")}
    assert counts(lint(tmp_path, [*GOOD_TEXT, row])) == {"prompt_twice": 1}


def test_a_broken_line_is_an_unreadable_row(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "train.jsonl", GOOD))
    path.write_text(path.read_text() + "{broken\n")
    report = lint_file(path)
    assert counts(report) == {"unreadable": 1}
    assert report.rows == 41


def lint_file(path: Path, **options: Any) -> Any:
    from rlaif.lint.report import linted

    return linted(str(path), **options)


def test_whole_conversations_must_be_the_same_up_to_their_last_turn(tmp_path: Path) -> None:
    def whole(i: int, history: str = "It is a tree.") -> Row:
        start = [f"What is the elder number {i}?", history, "Where does it grow?"]
        north, south = turns(*start, "In the north, mostly."), turns(*start, "On hills in the south.")
        return {"chosen": north, "rejected": south} if i % 2 else {"chosen": south, "rejected": north}

    good = [whole(i) for i in range(20)]
    other = {"chosen": whole(99)["chosen"], "rejected": whole(99, "It is a shrub.")["rejected"]}
    strange = {"chosen": turns("What is an elm?", SOUND), "rejected": turns("What is an ash?", "It is a tree.")}
    report = lint(tmp_path, [*good, other, strange])
    assert counts(report) == {"prefix_mismatch": 1, "no_prompt": 1}
    assert named(report, "prefix_mismatch").rows[0].place == "train row 21"
    assert report.trainers == ("DPO", "KTO", "Reward")


def test_a_prompt_column_that_is_no_turn_of_the_conversations_is_out_of_step(tmp_path: Path) -> None:
    north, south = turns("What is an elm?", SOUND), turns("What is an elm?", "It is a tree of the south, I believe.")
    report = lint(tmp_path, [*GOOD, {"prompt": turns("What is an ash?"), "chosen": north, "rejected": south}])
    assert counts(report) == {"prompt_twice": 1, "prompt_mismatch": 1}


def test_labels_are_bools(tmp_path: Path) -> None:
    good = [single(i, label=bool(i % 2)) for i in range(40)]
    report = lint(tmp_path, [*good, single(41, 1), single(42, "good"), single(43, None), single(44, -1)])
    assert counts(report) == {"bad_label": 3}


def test_a_margin_is_a_number(tmp_path: Path) -> None:
    report = lint(tmp_path, [*[{**row, "margin": 0.5} for row in GOOD], pair(99, margin=None)])
    assert counts(report) == {"bad_margin": 1}


def test_columns_that_no_trainer_takes_are_an_error(tmp_path: Path) -> None:
    renamed = [{"question": row["prompt"], "winner": row["chosen"], "loser": row["rejected"]} for row in GOOD]
    report = lint(tmp_path, renamed)
    assert named(report, "columns").level == "error"
    assert "question for prompt, winner for chosen, loser for rejected" in named(report, "columns").detail
    assert report.trainers == ()


def test_rated_answers_are_no_pairs_yet(tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["chosen"], "score": i % 5} for i, row in enumerate(GOOD)]
    assert named(lint(tmp_path, rows), "no_trainer").level == "warning"


def test_text_without_a_prompt_column_is_cut_by_the_letter(tmp_path: Path) -> None:
    rows = [{"chosen": row["chosen"], "rejected": row["rejected"]} for row in GOOD_TEXT]
    assert counts(lint(tmp_path, rows)) == {"implicit_text": 40}


def test_a_transcript_is_text_to_a_trainer(tmp_path: Path) -> None:
    start = "\n\nHuman: Where does the {} grow?\n\nAssistant: "
    rows = [{name: start.format(i) + row[name] for name in ("chosen", "rejected")} for i, row in enumerate(GOOD_TEXT)]
    report = lint(tmp_path, rows)
    assert counts(report) == {"transcript": 40}
    assert named(report, "transcript").level == "warning"


def test_answers_alone_are_linted_too(tmp_path: Path) -> None:
    report = lint(tmp_path, [{"prompt": row["prompt"], "completion": row["chosen"]} for row in GOOD])
    assert report.findings == ()
    assert report.trainers == ("SFT",)


def test_duplicates_and_contradictions_name_both_rows(tmp_path: Path) -> None:
    again = {**GOOD[3], "chosen": turns(GOOD[3]["chosen"][0]["content"].upper(), first="assistant")}
    turned = {**GOOD[5], "chosen": GOOD[5]["rejected"], "rejected": GOOD[5]["chosen"]}
    report = lint(tmp_path, [*GOOD, again, turned])
    assert counts(report) == {"duplicate_pairs": 1, "duplicate_prompts": 2, "conflicting_labels": 2}
    (twin,) = named(report, "duplicate_pairs").rows
    assert (twin.place, twin.like) == ("train row 41", "train row 4")
    conflict = named(report, "conflicting_labels").rows
    assert [(one.place, one.like) for one in conflict] == [
        ("train row 6", "train row 42"),
        ("train row 42", "train row 6"),
    ]


def test_a_completion_with_both_labels_is_a_contradiction(tmp_path: Path) -> None:
    good = [single(i, label=bool(i % 2)) for i in range(40)]
    report = lint(tmp_path, [*good, {**good[2], "label": True}, good[3]])
    assert counts(report) == {"duplicate_pairs": 1, "conflicting_labels": 2}


def test_splits_must_not_share_prompts(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.jsonl", GOOD[:30])
    write(tmp_path / "data" / "test.jsonl", [*GOOD[30:], GOOD[7], {**GOOD[8], "chosen": GOOD[9]["chosen"]}])
    report = lint_file(tmp_path / "data")
    finding = named(report, "shared_prompts")
    assert (finding.level, finding.count, finding.n, finding.detail) == ("error", 2, 12, "test 2")
    assert [(one.place, one.like) for one in finding.rows] == [
        ("test row 11", "train row 8"),
        ("test row 12", "train row 9"),
    ]
    assert report.splits == {"train": 30, "test": 12}


def test_length_that_tells_is_a_warning(tmp_path: Path) -> None:
    long = "grows near old houses, in the shade, on wet ground, and it likes the neighbourhood of people."
    rows = [text_pair(i, chosen=f"The elder number {i} {long}") for i in range(40)]
    finding = named(lint(tmp_path, rows), "length_bias")
    assert (finding.level, finding.count) == ("warning", 40)
    assert "the longer one is chosen in 100.0%" in finding.detail
    assert "AUC of length is 1.000" in finding.detail


def test_the_length_of_good_answers_may_tell_as_well(tmp_path: Path) -> None:
    rows = [single(i, label=bool(i % 2)) for i in range(100)]
    for row in rows[::2]:
        row["completion"] = turns(row["completion"][0]["content"] * 2, first="assistant")
    assert named(lint(tmp_path, rows, rules=["length_bias"]), "length_bias").level == "warning"


def test_form_that_tells_is_a_warning(tmp_path: Path) -> None:
    rows = [dict(row) for row in GOOD_TEXT]
    for row in rows[:20]:
        row["chosen"] = "- In the north\n- In wet woods\n- On river banks"
    finding = named(lint(tmp_path, rows), "format_bias")
    assert finding.level == "warning"
    assert "list items in 50.0% of the chosen, 0.0% of the rejected" in finding.detail


@pytest.mark.parametrize(
    ("good", "bad", "level", "words"),
    [
        (30, 30, None, ""),
        (40, 32, None, ""),
        (20, 40, "warning", "desirable_weight between 2.00 and 2.66, or undesirable_weight between 0.38 and 0.50"),
        (40, 0, "error", "other label"),
    ],
)
def test_classes_are_weighed_as_trl_advises(tmp_path: Path, good: int, bad: int, level: str | None, words: str) -> None:
    rows = [single(i, label=i < good) for i in range(good + bad)]
    found = [one for one in lint(tmp_path, rows).findings if one.rule == "class_balance"]
    assert [one.level for one in found] == ([level] if level else [])
    assert all(words in one.way_out for one in found)


def test_rare_categories_are_noted(tmp_path: Path) -> None:
    rows = [{**row, "category": "trees" if i else "shrubs"} for i, row in enumerate(GOOD)]
    report = lint(tmp_path, rows)
    assert report.categories == {"trees": 39, "shrubs": 1}
    assert counts(report) == {"category_balance": 39}


def test_near_duplicates_are_looked_for_where_asked(tmp_path: Path) -> None:
    long = [f"{LONG[:600]} And the last word of the row number {i}." for i in range(3)]
    rows = [*GOOD_TEXT, *[text_pair(50, chosen=text) for text in long]]
    assert "near_duplicates" not in counts(lint(tmp_path, rows))
    report = lint(tmp_path, rows, near_too=True)
    assert counts(report)["near_duplicates"] == 2
    assert named(report, "near_duplicates").rows[0].like == "train row 41"
    assert report.near == 43


def test_near_duplicates_are_looked_for_by_name_too_and_with_other_rules(tmp_path: Path) -> None:
    rows = [*GOOD_TEXT, *[text_pair(50, chosen=f"{LONG[:600]} And then the number {i}.") for i in range(3)]]
    report = lint(tmp_path, rows, rules=["near_duplicates"])
    assert counts(report) == {"near_duplicates": 2}
    assert report.rules == ("near_duplicates",)
    assert lint(tmp_path, rows, rules=["identical"], near_too=True).rules == ("identical", "near_duplicates")
    assert "near_duplicates" not in lint(tmp_path, rows).rules


def test_rows_that_say_nothing_are_not_near_to_each_other(tmp_path: Path) -> None:
    nothing = text_pair(0, prompt="", chosen=" ", rejected="")
    path = Path(write(tmp_path / "train.jsonl", [*GOOD_TEXT, nothing, nothing]))
    path.write_text(path.read_text() + "{broken\n{broken too\n")
    report = lint_file(path, near_too=True)
    assert named(report, "unreadable").count == 2
    assert named(report, "empty_prompt").count == 2
    assert "near_duplicates" not in counts(report)
    assert report.near == 44


def test_a_limit_holds_for_near_duplicates_of_each_file(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.jsonl", [*GOOD_TEXT[:10], GOOD_TEXT[0]])
    write(tmp_path / "data" / "test.jsonl", [*GOOD_TEXT[20:29], GOOD_TEXT[3], GOOD_TEXT[4]])
    report = lint_file(tmp_path / "data", near_too=True, limit=10)
    assert (report.rows, report.near) == (20, 20)
    (row,) = named(report, "near_duplicates").rows
    assert (row.place, row.like) == ("test row 10", "train row 4")


def test_the_gravest_finding_comes_first(tmp_path: Path) -> None:
    near = [text_pair(50, chosen=f"{LONG[:600]} And then the number {i}.") for i in range(3)]
    bad = [text_pair(60, prompt="Why?"), text_pair(61, chosen=""), GOOD_TEXT[0]]
    rules = ["short_prompt", "duplicate_pairs", "near_duplicates", "empty_response", "duplicate_prompts"]
    report = lint(tmp_path, [*GOOD_TEXT, *near, *bad], rules=rules)
    assert [(one.level, one.rule) for one in report.findings] == [
        ("error", "empty_response"),
        ("warning", "duplicate_pairs"),
        ("warning", "near_duplicates"),
        ("note", "short_prompt"),
        ("note", "duplicate_prompts"),
    ]


def test_only_the_rules_asked_for_are_told(tmp_path: Path) -> None:
    rows = [*GOOD, answered("", ""), pair(99, prompt=turns("Why?"))]
    assert set(counts(lint(tmp_path, rows, rules=["short_prompt"]))) == {"short_prompt"}
    with pytest.raises(ConfigError, match="unknown rule 'typo'; known: unreadable, "):
        lint(tmp_path, rows, rules=["typo"])


def test_max_length_is_that_of_the_training(tmp_path: Path) -> None:
    assert lint(tmp_path, GOOD).max_length == 1024
    report = lint(tmp_path, GOOD, max_length=5)
    assert counts(report)["prompt_too_long"] == 40
    assert named(report, "prompt_too_long").level == "warning"


def test_every_rule_has_words_for_why_and_is_found_by_a_test() -> None:
    here = Path(__file__).read_text()
    told = (Path(__file__).parents[2] / "docs" / "lint.md").read_text()
    for name, rule in RULES.items():
        assert rule.what
        assert rule.why.endswith(".")
        assert f'"{name}"' in here or f"'{name}'" in here, name
        assert f"`{name}`" in told, name


def test_the_ways_out_name_settings_that_are_there() -> None:
    ours = re.findall(r"export\.(\w+)", " ".join(rule.way_out for rule in RULES.values()))
    theirs = re.findall(r"--set (\w+)=", " ".join(rule.way_out for rule in RULES.values()))
    assert set(ours) == {"max_pairs_per_prompt", "max_length_gap"} <= set(ExportSettings.model_fields)
    assert set(theirs) == {"truncated", "repetition", "refusal", "near"} <= set(Clean.model_fields)


# What the way out of the others needs, or says besides.
CLEANED: dict[str, tuple[bool, bool]] = {"self_identification": (True, False)}


@pytest.mark.parametrize("rule", [rule for rule in SIDE if "drops such rows" in SIDE[rule].way_out or rule in CLEANED])
def test_clean_drops_what_the_way_out_says(rule: str) -> None:
    (row,) = (row for row in IN_ONE_ROW[rule][:1])
    prompt, bad, good = (row[name][-1]["content"] for name in ("prompt", "chosen", "rejected"))
    dropped = tuple(Cleaner(Clean()).reason(prompt, *sides) == rule for sides in ((bad, good), (good, bad)))
    assert dropped == CLEANED.get(rule, (True, True))
    assert ("whose chosen answer does" in SIDE[rule].way_out) == (dropped == (True, False))
