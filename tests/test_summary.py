"""The summary of a run: everything that came in is counted once where it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif.job import Job
from rlaif.journal import Charge
from rlaif.llm import Tally
from rlaif.summary import Drafts, enough_drafts, funnel_of, of_invocation, of_run, refusing, reused
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
    assert funnel.drafts.plain() == {"n": 2, "refusals": 0}


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


NO, YES = Response("I'm sorry, but I can't help with that.", "m"), Response("Sure: first, open the lid.", "m")


def drafts(*responses: Response) -> Drafts:
    seen = Drafts()
    for i, response in enumerate(responses):
        seen.read(Record(str(i), (), responses=(response,)))
    return seen


def test_of_each_record_the_first_draft_tells_whether_the_policy_refuses() -> None:
    record = Record("x", (), responses=(YES, NO, Response("No.", "m", "refusal", revises=0)))
    sides = Response("I can't.", "weak", side="weak"), Response("I won't.", "strong", side="strong")
    seen = drafts(NO, YES, YES, Response("", "m", "content_filter"))
    assert seen.plain() == {"n": 4, "refusals": 2}
    for _ in range(2):  # a record of a later pass is no other one
        seen.read(record)
        seen.read(Record("y", (), responses=(*sides, YES)))
        seen.read(Record("z", ()))
    assert seen.plain() == {"n": 6, "refusals": 2}


def test_of_many_drafts_a_sample_is_looked_at_whatever_their_order() -> None:
    responses = [NO if i % 10 < 3 else YES for i in range(10_000)]
    seen = drafts(*responses)
    assert seen.n == 1024
    assert seen.refusals / seen.n == pytest.approx(0.3, abs=0.05)
    other = Drafts()
    for i in reversed(range(10_000)):
        other.read(Record(str(i), (), responses=(responses[i],)))
    assert other.plain() == seen.plain()


@pytest.mark.parametrize(("records", "enough"), [(None, 32), (4, 16), (200, 20), (10_000, 32)])
def test_a_tenth_of_a_run_is_enough_to_see_refusals_but_not_under_16(records: int | None, enough: int) -> None:
    assert enough_drafts(records) == enough


def test_most_drafts_must_refuse_and_enough_be_seen_before_it_is_said() -> None:
    assert refusing(32, 15, True) is refusing(15, 15, True) is None
    assert str(refusing(32, 23, True)).startswith("23 of 32 first drafts refuse already: there is little to revise. ")
    assert "no pair to learn from" in str(refusing(32, 16, False))


def test_what_a_run_itself_had_asked_before_is_not_reused() -> None:
    tallies = {
        ("preflight", "m"): Tally(sent=1),
        ("sample", "m"): Tally(sent=7, retried=1, failed=1, from_journal=30),
        ("judge", "m"): Tally(sent=5, from_journal=10),
    }
    assert reused(tallies) == {"answers": 40, "of": 50}
    ledger = [
        Charge("r", "preflight", "m", "2026-11-21", 2, 0, 0, 0, 0),
        Charge("r", "sample", "m", "2026-11-21", 12, 2, 0, 0, 0),  # 5 of them now
        Charge("r", "judge", "m", "2026-11-20", 12, 0, 0, 0, 0),
    ]
    assert reused(tallies, ledger) == {"answers": 28, "of": 50}


# --- whole runs ---


class Seen:
    """An observer that keeps the job."""

    def __call__(self, job: Job) -> Seen:
        self.job = job
        return self

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def generate(folder: Path, run: str, limit: int = 40, **options: Any) -> rlaif.Result:
    return rlaif.generate("cai", policy="scripted", judge="scripted", limit=limit, runs_dir=folder, run=run, **options)


def test_a_policy_that_refuses_is_reported_while_the_run_is_young(tmp_path: Path) -> None:
    seen = Seen()
    script = ["models.policy.script.refusal_rate=0.8"]
    summary = generate(tmp_path, "r", set=script, observer=seen).summary
    assert seen.job.warning in seen.job.notices
    assert "of 16 first drafts refuse already: there is little to revise" in seen.job.warning
    assert summary["drafts"]["n"] == 40
    assert 24 <= summary["drafts"]["refusals"] <= 39
    generate(tmp_path, "s", observer=seen)
    assert seen.job.warning == ""


def test_looking_at_drafts_changes_no_call(tmp_path: Path) -> None:
    generate(tmp_path, "few", limit=15)
    more = generate(tmp_path, "more", limit=40).summary
    assert more["reused"]["answers"] == 15 * 16
    assert more["calls"]["from_journal"] == 15 * 16


def test_a_run_says_how_many_answers_it_owes_to_earlier_ones(tmp_path: Path) -> None:
    assert generate(tmp_path, "a", limit=10).summary["reused"] == {"answers": 0, "of": 160}
    assert generate(tmp_path, "b").summary["reused"] == {"answers": 160, "of": 640}
    assert generate(tmp_path, "b").summary["reused"] == {"answers": 160, "of": 640}  # nothing was looked at again
    assert generate(tmp_path, "b", rebuild=True).summary["reused"] == {"answers": 160, "of": 640}
    assert generate(tmp_path, "b", limit=50).summary["reused"] == {"answers": 160, "of": 800}


def test_the_summary_has_each_principles_part(tmp_path: Path) -> None:
    summary = generate(tmp_path, "r").summary
    of_all = list(summary["principles"].values())
    assert sum(one["drawn"] for one in of_all) == summary["funnel"]["revisions"] == 160
    assert sum(one["verdicts"] for one in of_all) == sum(summary["funnel"]["verdicts"].values())
    assert sum(one["agreed"] for one in of_all) > 0
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["principles"] == summary["principles"]
