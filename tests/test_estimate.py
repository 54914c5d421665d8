"""An estimate covers what then happens, and says so where it does not know."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

import rlaif
from rlaif import resources
from rlaif.config import Settings, asked_roles, load_settings, stages_of
from rlaif.constitution import load_constitution
from rlaif.estimate import Asked, Estimate, Measured, PromptSet, Range, before, from_sample
from rlaif.llm import Tally
from rlaif.plan import calls_per_record
from rlaif.prices import FREE, Price
from rlaif.source import PromptReader
from rlaif.templates import Templates
from tests.labelled import pairs, write

PRICE = Price(input=4, cached=0.2, written=5, output=20, batch=0.5)
Tallies = dict[tuple[str, str], Tally]
NOTHING: Tallies = {}


@pytest.fixture(autouse=True)
def _some_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `rejudge` judges, where it looks for it."""
    write(tmp_path / "pairs.jsonl", pairs(8))
    monkeypatch.chdir(tmp_path)


def settings_of(pipeline: str, *assignments: str) -> Settings:
    settings = load_settings(pipeline, {}, ["limit=8", *assignments])
    roles = asked_roles(stages_of(settings, allow_code=False))
    return load_settings(pipeline, {f"models.{role}": "scripted" for role in roles}, ["limit=8", *assignments])


def estimated(settings: Settings, *, tallies: Tallies = NOTHING, pending: int | None = None, **asked: Any) -> Estimate:
    stages = stages_of(settings, allow_code=False)
    constitution = load_constitution(settings.constitution)
    read = Measured(PromptReader(settings.prompts, settings.limit))
    assert sum(1 for _ in read)
    prompts = read.sets
    return before(
        stages,
        {role: Asked("scripted", **{"price": PRICE, **asked}) for role in asked_roles(stages)},
        prompts,
        Templates(settings.templates, constitution.language),
        constitution,
        tallies,
        sum(one.records for one in prompts.values()) if pending is None else pending,
    )


@pytest.mark.parametrize("pipeline", sorted(resources.names("pipelines")))
def test_what_a_pipeline_then_uses_is_within_what_was_estimated(pipeline: str, tmp_path: Path) -> None:
    stages = stages_of(settings_of(pipeline), allow_code=False)
    # The scripted model answers in 24 tokens, whatever it may use.
    limits = [f"{kind}.max_tokens=128" for kind, _ in stages if kind in ("sample", "contrast", "revise")]
    settings = settings_of(pipeline, *limits)
    models = [f"models.{role}=scripted" for role in asked_roles(stages)]
    result = rlaif.generate(pipeline, runs_dir=tmp_path, run="r", limit=8, set=[*models, *limits])
    lines = {line.stage: line for line in estimated(settings).lines}
    done = [stage for stage in result.summary["stages"] if stage["stage"] != "preflight"]
    assert {stage["stage"] for stage in done} == set(lines)
    for stage in lines:
        calls = sum(one["sent"] for one in done if one["stage"] == stage)
        prompt = sum(one["prompt_tokens"] for one in done if one["stage"] == stage)
        completion = sum(one["completion_tokens"] for one in done if one["stage"] == stage)
        line = lines[stage]
        assert line.calls / 2 <= calls <= line.calls
        assert line.prompt_tokens.low <= prompt <= line.prompt_tokens.high
        assert line.completion_tokens.low <= completion <= line.completion_tokens.high


@pytest.mark.parametrize("pipeline", sorted(resources.names("pipelines")))
@pytest.mark.parametrize("votes", [False, True])
def test_calls_add_up_to_what_the_stages_plan(pipeline: str, votes: bool) -> None:
    settings = settings_of(pipeline)
    stages = stages_of(settings, allow_code=False)
    principles = len(load_constitution(settings.constitution).principles)
    voters = frozenset(asked_roles(stages)) if votes else frozenset[str]()
    given = len(settings.prompts[0].responses)
    whole = [(name, stage) for name, stage in stages if not stage.only]
    if len(whole) == len(stages):
        assert estimated(settings, votes=votes).calls == 8 * calls_per_record(stages, principles, voters, given)
    else:
        assert 0 < estimated(settings, votes=votes).calls <= 8 * calls_per_record(stages, principles, voters, given)


def test_a_reasoning_judge_is_estimated_by_its_kinds_of_calls() -> None:
    plain = estimated(settings_of("rlaif"))
    reasoning = estimated(settings_of("rlaif", "judge.by.reasoning=true"))
    judge, thoughtful = plain.lines[-1], reasoning.lines[-1]
    assert (judge.stage, judge.calls, thoughtful.calls) == ("judge", 8 * 2, 8 * 4)
    assert judge.completion_tokens.high == 8 * 2 * 3
    assert thoughtful.completion_tokens.high == 8 * 2 * (256 + 3)


@pytest.mark.parametrize(("pipeline", "stage"), [("rlaif", "judge"), ("score", "rate")])
def test_a_judge_that_votes_may_say_more_in_each_answer(pipeline: str, stage: str) -> None:
    for votes, most in ((False, 3), (True, 16)):
        line = next(line for line in estimated(settings_of(pipeline), votes=votes).lines if line.stage == stage)
        assert line.completion_tokens.high == line.calls * most


def test_only_the_first_stage_is_sure_to_make_all_its_calls() -> None:
    first, later = estimated(settings_of("rlaif")).lines
    assert first.completion_tokens.high == first.calls * 384
    assert first.completion_tokens.low == pytest.approx(first.calls * 384 / 10)
    assert later.completion_tokens.high == later.calls * 3
    assert later.completion_tokens.low < later.calls


def test_a_stage_for_one_set_of_prompts_counts_its_records_only() -> None:
    settings = settings_of("sl-cai")
    stages = [
        (name, stage.model_copy(update={"only": ("a",)})) for name, stage in stages_of(settings, allow_code=False)
    ]
    constitution = load_constitution(settings.constitution)
    sets = {"a": PromptSet(3, 100), "b": PromptSet(50, 100)}
    models = {role: Asked("m", PRICE) for role in asked_roles(stages)}
    found = before(stages, models, sets, Templates({}), constitution, {}, 53)
    assert found.calls == 3 * calls_per_record(stages, len(constitution.principles))


def test_thoughts_of_a_reasoning_model_are_billed_but_not_shown_to_the_judge() -> None:
    plain, thinking = (estimated(settings_of("rlaif"), thinks=thinks) for thinks in (False, True))
    assert thinking.completion_tokens.high == plain.completion_tokens.high + thinking.calls * 2048
    assert thinking.prompt_tokens == plain.prompt_tokens


def test_what_the_journal_answers_is_not_to_be_sent() -> None:
    settings = settings_of("rlaif")
    everything = estimated(settings)
    assert [(line.stage, line.calls) for line in everything.lines] == [("sample", 16), ("judge", 16)]
    half = {("sample", "scripted"): Tally(from_journal=14, unsent=2), ("judge", "scripted"): Tally(from_journal=6)}
    rest = estimated(settings, tallies=half, pending=5)
    assert [(line.calls, line.from_journal) for line in rest.lines] == [(2, 14), (10, 6)]
    assert rest.cost_usd is not None
    assert everything.cost_usd is not None
    assert 0 < rest.cost_usd.high < everything.cost_usd.high
    done = {("sample", "scripted"): Tally(from_journal=16), ("judge", "scripted"): Tally(from_journal=14)}
    finished = estimated(settings, tallies=done, pending=0)
    assert (finished.calls, finished.from_journal, finished.cost_usd) == (0, 30, Range())


def test_what_a_dry_run_saw_unanswered_is_to_be_sent() -> None:
    seen = {("sample", "scripted"): Tally(from_journal=16, unsent=3)}  # by a stage of the user's own, say
    assert estimated(settings_of("rlaif"), tallies=seen, pending=4).lines[0].calls == 3


def test_the_judge_reads_both_responses_and_the_reviser_one_and_the_critique() -> None:
    def shown(stage: str, *assignments: str) -> float:
        lines = {line.stage: line for line in estimated(settings_of("cai", *assignments)).lines}
        return lines[stage].prompt_tokens.high

    longer, wordier = "sample.max_tokens=1384", "revise.critique_max_tokens=1160"
    # 8 records; 4 rounds of a critique and a rewrite; 3 comparisons in both orders, of the rewrites' length.
    assert shown("revise", longer) - shown("revise") == pytest.approx(8 * 4 * 2 * 1000)
    assert shown("revise", wordier) - shown("revise") == pytest.approx(8 * 4 * 1000)
    assert shown("judge", "revise.max_tokens=1384") - shown("judge") == pytest.approx(8 * 6 * 2 * 1000)


def test_an_unknown_price_makes_the_sum_unknown_and_is_named() -> None:
    unknown = estimated(settings_of("rlaif"), price=None)
    assert unknown.cost_usd is None
    assert unknown.unpriced == ("scripted",)
    assert all(line.cost_usd is None for line in unknown.lines)
    assert estimated(settings_of("rlaif"), price=None, tallies={}, pending=0).cost_usd == Range()  # nothing to ask
    assert estimated(settings_of("rlaif"), price=FREE).cost_usd == Range()


def test_the_batch_price_halves_the_cost() -> None:
    live, batch = (estimated(settings_of("cai"), batch=batch).cost_usd for batch in (False, True))
    assert live is not None
    assert batch is not None
    assert batch.high == pytest.approx(live.high / 2)
    assert batch.middle == pytest.approx(live.middle / 2)


def test_longer_prompts_cost_more() -> None:
    stages = stages_of(settings_of("rlaif"), allow_code=False)
    constitution = load_constitution("general")
    models = {role: Asked("m", PRICE) for role in asked_roles(stages)}
    short, long = (
        before(stages, models, {"p": PromptSet(10, size)}, Templates({}), constitution, {}, 10) for size in (100, 5100)
    )
    # 20 answers and 20 judgements, each with 5,000 bytes more.
    assert long.prompt_tokens.high - short.prompt_tokens.high == pytest.approx(40 * 5000 / 2.5)
    assert long.completion_tokens == short.completion_tokens


def sample(random: Random, records: int, shape: float) -> Tally:
    """What these records use, in calls of very different sizes."""
    tally = Tally()
    for _ in range(records):
        size = random.gammavariate(shape, 1 / shape)  # mean 1, variation 1 / sqrt(shape)
        tally += Tally(sent=2, prompt_tokens=round(1000 * size), completion_tokens=round(300 * size))
    return tally


@pytest.mark.parametrize("shape", [1.0, 2.0])
@pytest.mark.parametrize("ran", [5, 20, 100])
def test_nine_of_ten_times_and_more_the_rest_costs_what_the_sample_said(ran: int, shape: float) -> None:
    random, left, tries, within = Random(f"{ran}/{shape}"), 400, 200, 0
    for _ in range(tries):
        said = from_sample({("sample", "m"): sample(random, ran, shape)}, {"m": PRICE}, ran, left, 10.0, 1).cost_usd
        rest = sample(random, left, shape)
        truth = PRICE.cost(rest.prompt_tokens, 0, rest.completion_tokens, batch=False) / 1e12
        assert said is not None
        within += said.low <= truth <= said.high
    assert within >= 0.9 * tries


def test_more_records_tell_more() -> None:
    few, many = (
        from_sample({("s", "m"): Tally(sent=n, prompt_tokens=100 * n)}, {"m": PRICE}, n, 1000, 1.0 * n, 1).cost_usd
        for n in (4, 100)
    )
    assert few is not None
    assert many is not None
    assert few.middle == pytest.approx(many.middle) == pytest.approx(1000 * 100 * 4e-6)
    assert few.low < many.low < many.middle < many.high < few.high


def test_calls_the_journal_answered_in_the_sample_are_paid_for_in_the_rest() -> None:
    # Ten records needed 40 calls; 30 of them were known, and the 10 sent had 100 tokens each.
    tally = Tally(sent=12, retried=1, failed=1, from_journal=30, completion_tokens=1000)
    (line,) = from_sample({("s", "m"): tally}, {"m": PRICE}, 10, 90, 1.0, 1).lines
    assert line.calls == 360
    assert line.completion_tokens.middle == pytest.approx(36_000)


def test_with_nothing_left_nothing_is_to_be_paid() -> None:
    found = from_sample({("s", "m"): Tally(sent=10, prompt_tokens=100)}, {"m": PRICE}, 10, 0, 5.0, 64)
    assert (found.calls, found.cost_usd, found.time_s) == (0, Range(), Range())


def test_a_sample_of_a_model_without_a_price_names_it() -> None:
    tallies = {("s", "m"): Tally(sent=10, prompt_tokens=100), ("s", "n"): Tally(sent=10, prompt_tokens=100)}
    found = from_sample(tallies, {"m": PRICE, "n": None}, 10, 10, 5.0, 64)
    assert found.cost_usd is None
    assert found.unpriced == ("n",)
    assert found.priced_usd.middle == pytest.approx(100 * 4e-6)


def test_time_lies_between_a_full_server_and_one_that_takes_all_at_once() -> None:
    tallies = {("s", "m"): Tally(sent=10, prompt_tokens=100)}
    time_s = from_sample(tallies, {"m": PRICE}, 10, 1000, 20.0, 100, variation=0.0).time_s
    assert time_s is not None
    assert (time_s.low, time_s.high) == (pytest.approx(200.0), pytest.approx(2000.0))
    full = from_sample(tallies, {"m": PRICE}, 10, 1000, 20.0, 10, variation=0.0).time_s
    assert full is not None
    assert full.low == full.high == pytest.approx(2000.0)


def test_ranges_add_low_to_low() -> None:
    assert Range(1, 2, 3) + Range(10, 20, 30) == Range(11, 22, 33)
    assert Range(1, 2, 3) * 2 == Range(2, 4, 6)
    assert Range(1, 2, 3) * Range(0.5, 1, 2) == Range(0.5, 2, 6)
