"""The stage names its comparisons and principles; what is asked of the judge follows from them."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import rlaif
from rlaif.config import Settings, stages_of
from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.errors import CallFailed, ConfigError, ProviderError
from rlaif.export.comparisons import Comparisons
from rlaif.journal import Traits
from rlaif.judges import Comparer, Principles
from rlaif.judges.pairwise import Pairwise
from rlaif.resources import names
from rlaif.stages.judge import Judge, Rate
from rlaif.store import RunFolder
from rlaif.types import Completion, Drop, Record, Request, Response, Verdict
from tests.judges.test_parse import token
from tests.lab import KIND, TRUE, context, letter, record, shown, through

WITHOUT_JUDGE = Principle(id="silent", revision="Make it short.")


def chain() -> Record:
    """Drafts 0 and 1; 2 and 3 revise 0, 4 revises 1."""
    links: list[tuple[str, int | None]] = [("a", None), ("b", None), ("a+", 0), ("a++", 2), ("b+", 1)]
    return record().having(responses=tuple(Response(text, "policy", revises=parent) for text, parent in links))


def longer(request: Request) -> Completion:
    a, b = shown(request)
    return letter(0.9 if len(a) > len(b) else 0.1 if len(b) > len(a) else 0.5)


def compared(after: Record) -> list[tuple[int, int]]:
    return [(verdict.first, verdict.second) for verdict in after.verdicts]


async def test_all_compares_drafts_and_last_revisions_once_each_in_both_orders() -> None:
    after, asked = await through(Judge(comparisons=("all",)), chain(), longer)
    assert compared(after) == [(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)]
    assert len(asked) == 12 == Judge().plan(4, 20)[0]
    assert Counter(map(frozenset, map(shown, asked))).most_common(1)[0][1] == 2
    winners = {(v.first, v.second): v.p_first for v in after.verdicts}
    assert winners[0, 3] == pytest.approx(0.1)


async def test_revisions_compares_each_last_revision_with_its_own_draft() -> None:
    after, _ = await through(Judge(comparisons=("revisions",)), chain(), longer)
    assert compared(after) == [(0, 3), (1, 4)]
    both, _ = await through(Judge(comparisons=("revisions", "all")), chain(), longer)
    assert len(compared(both)) == 6


async def test_dropped_responses_are_not_compared() -> None:
    made = chain().having(drops=(Drop(0, "empty"), Drop(4, "truncated")))
    after, _ = await through(Judge(comparisons=("revisions", "all")), made, longer)
    assert compared(after) == [(1, 3)]
    alone, asked = await through(Judge(), record("only"), longer)
    assert (alone.verdicts, asked) == ((), [])


async def test_a_dropped_last_revision_gives_its_place_to_the_one_before() -> None:
    after, _ = await through(Judge(comparisons=("revisions",)), chain().having(drops=(Drop(3, "empty"),)), longer)
    assert compared(after) == [(0, 2), (1, 4)]


async def test_each_label_draws_one_principle_of_those_with_a_judge_text() -> None:
    principles = (KIND, TRUE, WITHOUT_JUDGE)
    drawn = set()
    for i in range(12):
        after, asked = await through(Judge(), record("a", "bb", prompt=f"Prompt {i}"), longer, principles=principles)
        (verdict,) = after.verdicts
        text = {"kind": KIND, "true": TRUE}[verdict.principle].judge
        assert all(f"Criterion: {text}" in request.messages[-1].content for request in asked)
        drawn.add(verdict.principle)
    assert drawn == {"kind", "true"}


async def test_all_principles_are_asked_when_all_are_wanted() -> None:
    after, asked = await through(
        Judge(principles="all"), record("a", "bb"), longer, principles=(KIND, TRUE, WITHOUT_JUDGE)
    )
    assert [verdict.principle for verdict in after.verdicts] == ["kind", "true"]
    assert len(asked) == 4


async def test_verdicts_by_all_principles_weigh_what_these_weigh() -> None:
    heavy = KIND.model_copy(update={"weight": 3.0})

    def torn(request: Request) -> Completion:
        kind = KIND.judge in request.messages[-1].content
        return letter(0.9 if (shown(request)[0] == "a") == kind else 0.1)

    after, _ = await through(Judge(principles="all"), record("a", "bb"), torn, principles=(heavy, TRUE))
    assert [verdict.weight for verdict in after.verdicts] == [3.0, 1.0]
    seen = Comparisons(after).of(0, 1)
    assert seen is not None
    assert seen.p == pytest.approx((3 * 0.9 + 0.1) / 4)


async def test_a_second_judge_stage_adds_its_verdicts_to_the_first_ones() -> None:
    once, _ = await through(Judge(), record("a", "bb"), longer)
    twice, _ = await through(Judge(), once, longer)
    assert len(twice.verdicts) == 2


async def test_a_comparison_that_failed_fails_the_record_after_the_others_were_answered() -> None:
    asked: list[Request] = []

    def fails_once(request: Request) -> Completion:
        asked.append(request)
        if shown(request)[0] == "a":
            raise ProviderError("bad_request", "no")
        return longer(request)

    with pytest.raises(CallFailed):
        await through(Judge(), record("a", "bb", "ccc"), fails_once)
    assert len(asked) == 6


def digit(request: Request) -> Completion:
    text = request.messages[-1].content.partition("<response>\n")[2].partition("\n<")[0]
    return Completion(str(len(text)), logprobs=(token({str(len(text)): 1.0}),))


async def test_rate_scores_every_candidate_by_every_principle() -> None:
    stage = Rate()
    after, _ = await through(stage, record("a", "bbbbb", "ccccccccc"), digit, principles=(KIND, TRUE, WITHOUT_JUDGE))
    values: dict[str, list[Any]] = {"kind": [], "true": []}
    for score in after.scores:
        values[score.principle].append((score.response, score.value))
    assert values == {name: [(0, -1.0), (1, 0.0), (2, 1.0)] for name in values}
    assert stage.roles() == ("judge",)


async def test_rate_draws_one_principle_a_record_so_that_its_scores_compare() -> None:
    after, _ = await through(Rate(principles="draw"), record("a", "bb", "ccc"), digit, principles=(KIND, TRUE))
    assert len(after.scores) == 3
    assert len({score.principle for score in after.scores}) == 1


async def test_a_reply_without_a_rating_is_kept_without_a_value() -> None:
    after, _ = await through(Rate(), record("a", "bb"), lambda _: Completion("I cannot rate this."))
    assert {score.value for score in after.scores} == {None}


async def test_a_judge_that_votes_is_planned_with_all_its_votes() -> None:
    stage = Judge(by=Pairwise(votes=6))
    _, asked = await through(stage, record("a", "b", "c"), lambda _: "A", traits=Traits())
    assert len(asked) == stage.plan(3, 20, {"judge"})[0] == 18
    assert stage.plan(3, 20, {"policy"})[0] == 6
    rate = Rate(principles="draw")
    _, asked = await through(rate, record("a", "b"), lambda _: "7", traits=Traits())
    assert len(asked) == rate.plan(2, 20, {"judge"})[0] == 6


# --- panels, judges of other kinds and of one's own ---


def judge_of(by: object, **more: object) -> Judge:
    """As a file's settings make it."""
    return Judge.model_validate({"by": by, **more})


def shorter(request: Request) -> Completion:
    a, b = shown(request)
    return letter(0.9 if len(a) < len(b) else 0.1)


async def test_a_panel_looks_at_the_same_pairs_by_the_same_principles() -> None:
    stage = judge_of([{"model": "one"}, {"model": "two"}])
    after, asked = await through(
        stage, record("a", "bb", "ccc"), {"one": longer, "two": shorter}, principles=(KIND, TRUE)
    )
    by_judge = {
        name: [(v.first, v.second, v.principle) for v in after.verdicts if v.judge == name] for name in ("one", "two")
    }
    assert by_judge["one"] == by_judge["two"]
    assert [pair[:2] for pair in by_judge["one"]] == [(0, 1), (0, 2), (1, 2)]
    assert len(asked) == 12 == stage.plan(3, 2)[0]
    assert stage.roles() == ("one", "two")
    assert {(v.judge, (v.p_first or 0) > 0.5) for v in after.verdicts} == {("one", False), ("two", True)}


async def test_judges_of_all_kinds_sit_on_one_panel() -> None:
    kinds = [{"model": "one"}, "listwise", "reward", {"kind": "cascade", "judges": [{"model": "one"}, {}]}]
    stage = judge_of(kinds)

    def ranks(request: Request) -> Completion | str:
        return "A > B" if "Rank all" in request.messages[-1].content else longer(request)

    after, _ = await through(stage, record("a", "bb"), {"one": longer, "judge": ranks, "reward": lambda _: "0.5"})
    assert [verdict.method for verdict in after.verdicts] == ["logprobs", "ranking", "reward", "logprobs"]
    assert stage.roles() == ("one", "judge", "reward")
    assert stage.plan(2, 20)[0] == 2 + 2 + 2 + 4


async def test_a_judge_of_a_panel_that_fails_fails_the_record_after_the_others_were_answered() -> None:
    def fails(_: Request) -> Completion:
        raise ProviderError("bad_request", "no")

    asked: list[Request] = []

    def counts(request: Request) -> Completion:
        asked.append(request)
        return longer(request)

    with pytest.raises(CallFailed):
        await through(judge_of([{"model": "one"}, {"model": "two"}]), record("a", "bb"), {"one": fails, "two": counts})
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("by", "why"),
    [
        ([], "must not be empty; name a judge"),
        ({"kind": "pairwse"}, "unknown kind of judge; known: pairwise, listwise, reward, cascade, code"),
        (["pairwise", "best"], "unknown kind of judge"),
        (3, "valid dictionary or instance of Pairwise"),
        ({"kind": "listwise", "votes": 4}, "Extra inputs are not permitted"),
        ({"kind": "code", "code": "no colon"}, "should match pattern"),
    ],
)
def test_what_is_no_judge_is_refused_with_one_reason(by: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why) as caught:
        judge_of(by)
    assert caught.value.error_count() == 1


@pytest.mark.parametrize("by", [{}, {"model": "other", "votes": 6}, "listwise", ["pairwise", "reward"]])
def test_settings_come_back_from_what_is_written_of_them(by: object) -> None:
    stage = judge_of(by)
    assert Judge.model_validate(stage.model_dump(mode="json")) == stage


class LongestWins(Comparer):
    """A judge of the user's own that asks nobody."""

    p: float = 0.9

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        lengths = [len(response.text) for response in record.responses]
        verdicts = []
        for first, second in pairs:
            p = self.p if lengths[first] > lengths[second] else 1 - self.p
            verdicts.append(Verdict("longest", "length", first, second, p, p, p, True))
        return verdicts

    def roles(self) -> tuple[str, ...]:
        return ()

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        return 0


class Unfinished(Comparer):
    """One that lacks what a judge needs."""


def stages_with(code: str, **settings: object) -> Settings:
    own = {"kind": "code", "code": code, "settings": settings}
    return Settings.model_validate({"name": "own", "stages": ["sample", {"judge": {"by": [own, {"model": "judge"}]}}]})


HERE = "tests.stages.test_judge"


async def test_a_judge_of_ones_own_sits_on_a_panel_with_leave() -> None:
    settings = stages_with(f"{HERE}:LongestWins", p=0.8)
    (_, _), (name, stage) = stages_of(settings, allow_code=True)
    after, asked = await through(stage, record("a", "bb"), longer)
    assert (name, stage.roles(), len(asked)) == ("judge", ("judge",), 2)
    assert [(v.judge, v.p_first) for v in after.verdicts] == [
        ("longest", pytest.approx(0.2)),
        ("judge", pytest.approx(0.1)),
    ]
    assert stage.plan(2, 20) == (2, 2)


async def test_without_leave_no_code_is_run_and_the_way_out_is_named() -> None:
    with pytest.raises(ConfigError, match="LongestWins' is code: run it with --allow-code if you trust this file"):
        stages_of(stages_with(f"{HERE}:LongestWins"), allow_code=False)
    with pytest.raises(ConfigError, match="run it with --allow-code"):
        await through(judge_of({"kind": "code", "code": f"{HERE}:LongestWins"}), record("a", "bb"), longer)


@pytest.mark.parametrize(
    ("code", "settings", "why"),
    [
        (f"{HERE}:LongestWins", {"q": 1}, "judge '.*LongestWins', field 'q': Extra inputs"),
        (f"{HERE}:Unfinished", {}, "judge '.*Unfinished': .*abstract"),
        (f"{HERE}:Judge", {}, "is no subclass of rlaif.judges.Comparer"),
        (f"{HERE}:Nobody", {}, "cannot be imported"),
        ("no.such.module:Nobody", {}, "cannot be imported"),
    ],
)
def test_code_that_is_no_judge_is_refused_before_the_first_call(code: str, settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        stages_of(stages_with(code, **settings), allow_code=True)


def test_a_reward_model_can_only_be_asked_by_a_judge_of_its_kind() -> None:
    models = {"policy": "scripted", "judge": "scripted", "reward": "reward/my/folder"}

    def stages(by: object, **more: object) -> None:
        document = {"name": "n", "models": models, "stages": [{"sample": more}, {"judge": {"by": by}}]}
        stages_of(Settings.model_validate(document), allow_code=False)

    stages(["pairwise", "reward"])
    with pytest.raises(ConfigError, match="'judge' asks model 'reward', a reward model, which only gives scores"):
        stages([{"model": "reward"}])
    with pytest.raises(ConfigError, match="'sample' asks model 'reward'"):
        stages("reward", models=["reward"])


# --- rubrics ---


RUBRIC = """name: mine
version: "2"
licence: CC0-1.0
aspects:
  - id: short
    judge: How short is it?
    weight: 3.0
    anchors: {"9": a word, "1": a book}
  - id: kind
    judge: How kind is it?
"""


def rubric(folder: Path, text: str = RUBRIC) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


async def test_a_rubrics_aspects_are_rated_with_what_their_anchors_say(tmp_path: Path) -> None:
    stage = Rate.model_validate({"rubric": str(rubric(tmp_path))})
    after, asked = await through(stage, record("a", "bbbbb"), digit, principles=(WITHOUT_JUDGE,))
    assert [(s.principle, s.response, s.value, s.weight) for s in after.scores] == [
        ("short", 0, -1.0, 3.0),
        ("short", 1, 0.0, 3.0),
        ("kind", 0, -1.0, 1.0),
        ("kind", 1, 0.0, 1.0),
    ]
    assert "Criterion: How short is it?\n1: a book\n9: a word\n\n<response>" in asked[0].messages[-1].content
    assert "Criterion: How kind is it?\n\n<response>" in asked[-1].messages[-1].content
    assert len(asked) == 4 == stage.plan(2, 20)[0]
    assert stage.draws() == {}  # of the constitution nothing is needed


async def test_the_principles_of_a_constitution_all_weigh_one_in_scores() -> None:
    heavy = KIND.model_copy(update={"weight": 5.0})
    after, _ = await through(Rate(), record("a"), digit, principles=(heavy, TRUE))
    assert {score.weight for score in after.scores} == {1.0}


def test_a_rubric_is_read_once_and_travels_in_the_settings(tmp_path: Path) -> None:
    path = rubric(tmp_path)
    stage = Rate.model_validate({"rubric": str(path)})
    path.unlink()
    written = stage.model_dump(mode="json")
    assert written["rubric"]["aspects"][0]["anchors"] == {"9": "a word", "1": "a book"}
    assert Rate.model_validate(json.loads(json.dumps(written))) == stage
    assert pickle.loads(pickle.dumps(stage)) == stage
    other = Rate.model_validate({"rubric": str(rubric(tmp_path, RUBRIC.replace("3.0", "2.0")))})
    assert other.model_dump(mode="json") != written


@pytest.mark.parametrize("name", sorted(names("rubrics")))
def test_the_bundled_rubrics_have_anchored_aspects(name: str) -> None:
    aspects = Rate.model_validate({"rubric": name}).rubric
    assert aspects is not None
    assert (aspects.name, aspects.licence, aspects.language) == (name, "Apache-2.0", "en")
    assert all({1, 5, 9} == set(aspect.anchors) for aspect in aspects.aspects)
    assert len(aspects.aspects) == (1 if name == "compliance" else 4)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("weight: 3.0", "weight: -1", "mine.yaml:7: aspects[0].weight: should be greater than 0"),
        ('"9": a word', '"10": a word', "mine.yaml:8: aspects[0].anchors.10: should be less than or equal to 9"),
        ('"9": a word', "9: a word", "mine.yaml:8: a field's name must be text; put it in quotes"),
        ("id: kind", "id: short", "mine.yaml:4: aspects: two aspects have the id 'short'"),
        ("judge: How kind", "judg: How kind", "mine.yaml:10: aspects[1]: unknown field 'judg'; did you mean 'judge'?"),
        ('version: "2"', "version: 2", "mine.yaml:2: version: should be text, but YAML reads 2 as a int"),
    ],
)
def test_a_mistake_in_a_rubric_is_named_with_its_line(old: str, new: str, why: str, tmp_path: Path) -> None:
    assert old in RUBRIC
    with pytest.raises(ConfigError) as caught:
        Rate.model_validate({"rubric": str(rubric(tmp_path, RUBRIC.replace(old, new)))})
    assert why in str(caught.value)


def test_an_unknown_rubric_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no rubric 'qualty'; did you mean 'quality'"):
        Rate.model_validate({"rubric": "qualty"})


def test_a_rubric_and_a_drawn_principle_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="a rubric's aspects are all rated; leave out `principles: draw`"):
        Rate.model_validate({"rubric": "quality", "principles": "draw"})


# --- whole runs ---


def test_a_run_with_a_panel_of_every_kind_is_put_together_by_the_export_and_continues_as_it_was(tmp_path: Path) -> None:
    judges = (
        "[{model: judge}, {kind: listwise, model: other}, {kind: cascade, judges: [{model: small}, {model: judge}]}]"
    )
    names = {role: f"{{provider: scripted, model: {role}}}" for role in ("judge", "other", "small")}
    settings = [f"models.{role}={spec}" for role, spec in names.items()]
    settings += [f"judge.by={judges}", "models.policy=scripted", "export.min_p=0.5", "judge.comparisons=[all]"]

    def run(*more: str, dry_run: bool = False) -> rlaif.Result:
        given = [*settings, *more]
        return rlaif.generate("cai", limit=6, run="r", runs_dir=tmp_path, set=given, dry_run=dry_run, environment={})

    planned = run(dry_run=True).estimate
    first = run()
    assert (first.status, first.failed) == ("done", 0)
    assert planned is not None
    foreseen = {line.model: line for line in planned.lines if line.stage == "judge"}
    used = {stage["model"]: stage for stage in first.summary["stages"] if stage["stage"] == "judge"}
    assert foreseen.keys() == used.keys() == {"judge", "other", "small"}
    for model, line in foreseen.items():
        assert 0 < used[model]["sent"] <= line.calls
        assert used[model]["prompt_tokens"] <= line.prompt_tokens.high
        assert used[model]["completion_tokens"] <= line.completion_tokens.high
    records = list(RunFolder(tmp_path, "r").records())
    methods = {(v.judge, v.method, v.outcome) for record in records for v in record.verdicts}
    assert {("judge", "logprobs", "ok"), ("other", "ranking", "ok")} <= methods
    assert any(judge == "small" for judge, *_ in methods)
    assert not {outcome for *_, outcome in methods} - {"ok", "escalated"}
    again = run("export.panel=majority")
    assert sum(stage["sent"] for stage in again.summary["stages"]) == 0
    weights = "export.weights={judge: 2.0, other: 1.0, small: 0.5}"
    pairs = [run(*more).summary["dataset"]["pairs"] for more in ((), ("export.panel=weighted", weights))]
    assert all(pairs)
    with pytest.raises(ConfigError, match=r"no weight for the judge '\w+'; it has: judge"):
        run("export.panel=weighted", "export.weights={judge: 2.0}")


def test_a_run_by_a_rubric_needs_no_file_to_go_on_and_is_another_run_when_the_file_changes(tmp_path: Path) -> None:
    path = rubric(tmp_path)

    def run(chosen: str | None) -> rlaif.Result:
        settings = ["models.policy=scripted", "models.judge=scripted", f"rate.rubric={chosen}"]
        return rlaif.generate("score", limit=4, run="r", runs_dir=tmp_path, set=settings, environment={})

    result = run(str(path))
    assert (result.status, result.failed) == ("done", 0)
    scores = [score for record in RunFolder(tmp_path, "r").records() for score in record.scores]
    assert {(score.principle, score.weight) for score in scores} == {("short", 3.0), ("kind", 1.0)}
    rubric(tmp_path, RUBRIC.replace("3.0", "2.0"))
    with pytest.raises(ConfigError, match=r"rubric\.aspects\[0\]\.weight: 3\.0 -> 2\.0"):
        run(str(path))
    path.unlink()
    assert rlaif.retry("r", runs_dir=tmp_path, environment={}).status == "done"


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (None, "must return a list of rlaif.types.Verdict"),
        ([Verdict("mine", "p", 7, 9, p_ab=0.5, p_ba=0.5)], "a verdict on 7 and 9"),
        ([Verdict("mine", "p", 0, 1, p_ab=9.0, p_ba=0.5)], "from 0 to 1"),
        ([Verdict("mine", "p", 0, 1, p_ab=float("nan"), p_ba=0.5)], "from 0 to 1"),
    ],
)
async def test_what_a_judge_of_ones_own_gets_wrong_is_said_and_never_written(verdicts: Any, words: str) -> None:
    async with context(lambda _: "A") as working:
        with pytest.raises(ConfigError, match=words):
            await Judge.model_construct(by=(Careless(says=verdicts),))(record("one", "two"), working)


class Stumbling(Comparer):
    """Fails on one prompt."""

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        if "two" in record.prompt[-1].content:
            raise ValueError("a number of words")
        return [Verdict("mine", "p", *pair, p_ab=0.9, p_ba=0.9, p_first=0.9, consistent=True) for pair in pairs]

    def roles(self) -> tuple[str, ...]:
        return ()

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        return 0


def test_a_judge_of_ones_own_that_fails_on_a_record_fails_that_record_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "Count to {n}."}}\n' for n in ("one", "two", "six")))
    (tmp_path / "own.yaml").write_text(
        f"name: own\nstages:\n  - sample: {{n: 2}}\n  - judge: {{by: {{kind: code, code: '{HERE}:Stumbling'}}}}\n"
        "models: {policy: scripted}\nexport: {pairs: [best_vs_worst]}\n"
    )
    prompts = str(tmp_path / "prompts.jsonl")
    done = rlaif.generate(
        str(tmp_path / "own.yaml"), prompts=prompts, run="r", runs_dir=tmp_path, allow_code=True, environment={}
    )
    assert (done.status, done.summary["outcomes"]) == ("done", {"ok": 2, "failed": 1})
    (failed,) = [one for one in RunFolder(tmp_path, "r").records() if one.outcome == "failed"]
    assert (failed.reason, failed.stage) == ("judge", "judge")
    assert failed.detail == f"judge '{HERE}:Stumbling' failed: ValueError: a number of words"


class Careless(Comparer):
    """Says what it was given."""

    says: Any

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        return self.says  # type: ignore[no-any-return] # whatever it is

    def roles(self) -> tuple[str, ...]:
        return ()

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        return 0
