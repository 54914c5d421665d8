"""`show`: a list whose ids can be copied, and a page that says what a row came from; a model's text is only text."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from rlaif.cli.show import word_diff
from rlaif.cli.text import harmless, said
from rlaif.store import RunFolder, encode
from rlaif.types import Drop, Message, Record, Response, Score, Verdict
from tests.cli.command import Command

EVIL = "[red]x[/red] [link=http://evil]y[/link] :smile: \x1b[31mred\x1b[0m \x1b]52;c;ZXZpbA==\x07 \x9b2J\u202eabc\r\x08"


def keep(rlaif: Command, *records: Record) -> None:
    """A run with these records."""
    rlaif.generate()
    folder = RunFolder(rlaif.folder / "runs", "first")
    folder.write_part(0, [encode(record) for record in records])


def evil_record() -> Record:
    return Record(
        id="00ff00ff00ff00ff",
        prompt=(Message("user", EVIL),),
        category=EVIL,
        responses=(
            Response(f"one two three {EVIL}", EVIL),
            Response(f"one two four {EVIL}", EVIL, revises=0, principle=EVIL, critique=EVIL),
        ),
        drops=(Drop(0, EVIL),),
        verdicts=(
            Verdict(EVIL, EVIL, 0, 1, 0.3, 0.2, 0.4, True, rationale=EVIL),
            Verdict(EVIL, EVIL, 0, 1, outcome="unparsed", replies=(EVIL,)),
        ),
        scores=(Score(EVIL, EVIL, 0, 0.5),),
        outcome="failed",
        reason=EVIL,
        detail=EVIL,
    )


@pytest.mark.parametrize("columns", [60, 80, 100, 140])
def test_ids_are_never_cut_and_each_opens_its_record(rlaif: Command, columns: int) -> None:
    rlaif.generate(limit=4)
    done = rlaif("show", "first", columns=columns)
    ids = re.findall(r"\b[0-9a-f]{16}\b", done.out)
    assert len(ids) == 4
    assert max(map(len, done.out.splitlines())) <= columns
    assert f"record {ids[2]}" in rlaif("show", "first", ids[2][:8]).out


def test_a_record_is_one_line_of_the_list_whatever_its_category(rlaif: Command) -> None:
    lined = evil_record()
    keep(rlaif, Record(lined.id, lined.prompt, category="## a\n\nb", outcome="ok"))
    line = next(line for line in rlaif("show", "first", columns=100).out.splitlines() if lined.id in line)
    assert "## a b" in line


def test_the_list_has_a_limit_and_says_of_how_many(rlaif: Command) -> None:
    rlaif.generate(limit=4)
    done = rlaif("show", "first", "--limit", "2")
    assert len(re.findall(r"\b[0-9a-f]{16}\b", done.out)) == 2
    assert "2 of 4 records; read one with: rlaif show first ID" in done.out


def test_a_page_shows_prompt_drafts_critiques_differences_and_verdicts(rlaif: Command) -> None:
    rlaif.generate(limit=1)
    (record,) = RunFolder(rlaif.folder / "runs", "first").records()
    page = rlaif("show", "first", record.id).out
    words = " ".join(page.split())
    assert record.prompt[-1].content in words
    assert "response 0: draft, script" in page
    assert f"response 2: revision of 0 by {record.responses[2].principle}" in page
    assert f"critique: {record.responses[2].critique}" in words
    assert "{+" in page
    assert "wins, both orders agree; p(0) = " in words


@pytest.mark.parametrize(
    "arguments", [["show", "first"], ["show", "first", "00ff"], ["show", "first", "00ff", "--replies"]]
)
def test_text_of_a_model_is_printed_as_it_stands_and_controls_nothing(rlaif: Command, arguments: list[str]) -> None:
    keep(rlaif, evil_record())
    done = rlaif(*arguments, columns=400)
    assert done.code == 0
    assert "[red]x[/red]" in done.out
    assert ":smile:" in done.out
    assert "\\x1b[31mred" in done.out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.out)


def judged(verdicts: tuple[Verdict, ...], **changes: Any) -> Record:
    responses = (Response("one", "policy"), Response("two", "policy", reasoning="thought aloud"))
    prompt = (Message("user", "What is it?"),)
    return Record("00ff00ff00ff00ff", prompt, responses=responses, verdicts=verdicts, outcome="ok").having(**changes)


def test_a_page_says_which_pair_was_made_by_which_verdict_and_what_was_replied(rlaif: Command) -> None:
    clear = Verdict("judge", "p", 0, 1, 0.1, 0.1, 0.1, True, replies=("B" + "!" * 90, *("A",) * 7))
    keep(rlaif, judged((Verdict("judge", "p", 0, 1, outcome="unparsed", replies=("what?",)), clear)))
    rlaif("export", "first")
    page = " ".join(rlaif("show", "first", "00ff").out.split())
    assert "verdict 1: 0 against 1 by p (judge): 1 wins" in page
    assert "1 chosen, 0 rejected: best_vs_worst by verdicts 0, 1, p = 0.90, margin = 0.80, principles p" in page
    assert "rows of the dataset with this id: kto train 2, preference train 1, prompts train 1" in page
    assert f"replies: 'B{'!' * 39}...', 'A', 'A', 'A', 'A', 'A' and 2 more" in page
    assert "thought aloud" not in page
    whole = rlaif("show", "first", "00ff", "--replies").out
    assert "B" + "!" * 90 in "".join(whole.split())
    assert "reply: what?" in whole
    assert "reasoning: thought aloud" in whole


def test_a_page_says_why_there_is_no_pair(rlaif: Command) -> None:
    keep(rlaif, judged((Verdict("judge", "p", 0, 1, 0.55, 0.9, 0.2, False),)))
    rlaif("export", "first")
    words = " ".join(rlaif("show", "first", "00ff").out.split())
    assert "no pair: inconsistent (the winner changes with the order in which they are shown)" in words
    assert "rows of the dataset with this id: prompts train 1" in words
    rlaif("export", "first", "--set", "export.require_consistent=false", "--set", "export.min_p=0.5")
    assert "0 chosen, 1 rejected: best_vs_worst by verdict 0" in " ".join(rlaif("show", "first", "00ff").out.split())
    keep(rlaif, judged((), outcome="dropped", reason="empty"))
    assert "no pair: the record did not end well" in rlaif("show", "first", "00ff").out


def test_json_has_all_of_the_record_and_its_pairs_and_a_list_has_a_line_each(rlaif: Command) -> None:
    record = judged((Verdict("judge", EVIL, 0, 1, 0.1, 0.1, 0.1, True, replies=(EVIL,)),))
    keep(rlaif, record)
    rlaif("export", "first")
    done = rlaif("show", "first", "00ff", "--json")
    assert done.out.isascii()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", done.out)
    assert msgspec.convert(done.json["record"], Record) == record
    (pair,) = done.json["pairs"]
    assert (pair["chosen"], pair["rejected"], pair["verdicts"], pair["exported"]) == (1, 0, [0], True)
    assert (done.json["no_pair"], done.json["rows"]["preference train"]) == (None, 1)
    lines = rlaif("show", "first", "--json").out.splitlines()
    assert [msgspec.convert(json.loads(line), Record) for line in lines] == [record]
    assert rlaif("show", "first", "--json", "--outcome", "failed").out == ""


def test_the_example_pair_at_the_end_of_a_run_is_harmless_too(rlaif: Command) -> None:
    texts = (f"A {EVIL}", f"B {EVIL}")
    responses = tuple(Response(text, "policy") for text in texts)
    verdict = Verdict("judge", "p", 0, 1, 0.9, 0.9, 0.9, True)
    keep(rlaif, evil_record().having(responses=responses, drops=(), verdicts=(verdict,), outcome="ok"))
    done = rlaif("export", "first")
    assert "[red]x[/red]" in done.out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", done.out)


def test_differences_are_coloured_or_marked_and_texts_with_little_in_common_are_shown_whole() -> None:
    assert word_diff("call him now", "call her now", coloured=False).plain == "call [-him-] {+her+} now "
    coloured = word_diff("call him now", "call her now")
    assert coloured.plain == "call him her now "
    assert {str(span.style) for span in coloured.spans} == {"red strike", "green"}
    assert word_diff("one two three", "something else", coloured=False).plain == "something else"
    assert word_diff("", "new", coloured=False).plain == "new"


def test_line_ends_tabs_and_letters_of_any_script_stay() -> None:
    text = "a\n\tb\r\nc é 日本 🙂 \u200dz"
    assert harmless(text) == text.replace("\r\n", "\n")
    assert said("[bold]x[/bold]").spans == []


def test_a_page_says_which_side_a_response_is_of_and_what_it_scored(rlaif: Command) -> None:
    stages = "stages: [contrast, {judge: {}}, {rate: {principles: draw}}]"
    rlaif.write("mine.yaml", f"name: mine\n{stages}\nexport: {{pairs: [strong_vs_weak]}}\n")
    models = ("--policy", "scripted", "--judge", "scripted")
    rlaif("generate", "mine.yaml", *models, "--limit", "1", "--run", "sides")
    (record,) = RunFolder(rlaif.folder / "runs", "sides").records()
    page = rlaif("show", "sides", record.id).out
    strong, weak = record.responses
    assert f"response 0: strong side, by {strong.principle}, scripted" in page
    assert f"response 1: weak side, against {weak.principle}, scripted" in page
    assert "scores, from -1 (a rating of 1) to 1 (a rating of 9)" in page
    assert re.search(r"response 1: [+-]\d\.\d\d on average \(scripted\): [\w-]+ [+-]\d\.\d\d", page)
