"""The summary of a run: everything that came in is counted once where it ended."""

from __future__ import annotations

import json

from rlaif.llm import Tally
from rlaif.summary import funnel_of, of_invocation, of_run
from rlaif.types import Drop, Record, Response, Verdict

MADE = Record(
    "a",
    (),
    responses=(
        Response("one", "m"),
        Response("two", "m", "length"),
        Response("three", "m", revises=0, principle="kind", critique="unkind"),
    ),
    drops=(Drop(1, "truncated"),),
    verdicts=(Verdict("j", "kind", 0, 2, 0.7, 0.8, 0.6), Verdict("j", "true", 0, 2, outcome="unparsed")),
)
RECORDS = [
    MADE.ended("ok"),
    Record("b", (), responses=(Response("", "m"),), drops=(Drop(0, "empty"),)).ended("dropped", "empty", "filter"),
    Record("c", ()).ended("failed", "context_length", "sample"),
    Record("d", ()).ended("failed", "context_length", "sample"),
]


def test_the_funnel_counts_records_responses_and_verdicts_by_where_they_ended() -> None:
    funnel = funnel_of(iter(RECORDS))
    assert funnel.records == sum(funnel.outcomes.values()) == 4
    assert funnel.outcomes == {"ok": 1, "dropped": 1, "failed": 2}
    assert (funnel.dropped, funnel.failed) == ({"empty": 1}, {"sample: context_length": 2})
    assert (funnel.responses, funnel.revisions) == (4, 1)
    assert funnel.responses_dropped == {"truncated": 1, "empty": 1}
    assert funnel.verdicts == {"ok": 1, "unparsed": 1}
    assert funnel.principles == {"kind": 2, "true": 1}


def test_the_summary_of_the_run_is_plain_json() -> None:
    content = of_run(funnel_of(RECORDS), 3, {"pairs": 1})
    assert json.loads(json.dumps(content)) == content
    assert (content["records"], content["duplicate_prompts"], content["dataset"]) == (4, 3, {"pairs": 1})
    assert content["funnel"]["responses_dropped"] == {"truncated": 1, "empty": 1}
    assert of_run(funnel_of([]), 0, None)["outcomes"] == {}


def test_the_summary_of_an_invocation_adds_up_its_stages() -> None:
    tallies = {
        ("sample", "m"): Tally(sent=4, from_journal=1, failed=1, retried=2, prompt_tokens=40, completion_tokens=20),
        ("judge", "j"): Tally(sent=2, prompt_tokens=10, completion_tokens=2, cached_tokens=5),
    }
    content = of_invocation(tallies, "done", 1.23456)
    assert json.loads(json.dumps(content)) == content
    assert content["calls"] == {"sent": 6, "from_journal": 1, "failed": 1}
    assert content["tokens"] == {"prompt": 50, "cached": 5, "completion": 22}
    assert (content["status"], content["wall_s"]) == ("done", 1.235)
    assert [(stage["stage"], stage["model"], stage["sent"]) for stage in content["stages"]] == [
        ("judge", "j", 2),
        ("sample", "m", 4),
    ]
