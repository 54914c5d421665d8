"""Before a run: pairs that its stages leave no evidence for are refused, with what to do about it."""

from __future__ import annotations

import pytest

from rlaif.context import Context
from rlaif.errors import ConfigError
from rlaif.export import ExportSettings
from rlaif.export.settings import Strategy
from rlaif.plan import calls_per_record, check_export, check_responses
from rlaif.source import Prompts
from rlaif.stages import Evidence, Stage
from rlaif.stages.contrast import Contrast
from rlaif.stages.filter import Filter
from rlaif.stages.judge import Judge, Rate
from rlaif.stages.revise import Revise
from rlaif.stages.sample import Sample
from rlaif.types import Record


def by(strategy: Strategy) -> ExportSettings:
    return ExportSettings(pairs=(strategy,))


class Leaves(Stage):
    evidence: frozenset[Evidence] = frozenset()

    async def __call__(self, record: Record, context: Context) -> Record:
        return record

    def leaves(self) -> frozenset[Evidence]:
        return self.evidence


@pytest.mark.parametrize(
    ("strategy", "enough", "too_little", "missing"),
    [
        ("best_vs_worst", [{"all"}, {"scores"}], {"revisions", "strong", "weak"}, "'judge' stage with .*[all].*'rate'"),
        ("best_vs_random", [{"all"}, {"scores"}], {"revisions", "strong"}, "'judge' stage with .*[all].*'rate'"),
        ("mean_minus_2sd", [{"all"}, {"scores"}], {"revisions", "weak"}, "'judge' stage with .*[all].*'rate'"),
        ("above_margin", [{"all"}, {"revisions"}, {"scores"}], {"strong", "weak"}, "'judge' stage with .*'rate'"),
        ("closure", [{"all"}], {"scores", "revisions"}, r"'judge' stage with .*\[all\]"),
        ("revision_vs_original", [{"revisions"}], {"scores", "weak"}, r"'judge' stage with .*\[revisions\]"),
        ("strong_vs_weak", [{"strong", "weak"}], {"all", "scores", "weak"}, "'contrast' stage, or 'sample' stages"),
    ],
)
def test_a_plan_that_cannot_make_the_pairs_is_told_which_stage_to_add(
    strategy: Strategy, enough: list[set[Evidence]], too_little: set[Evidence], missing: str
) -> None:
    for one in enough:
        check_export(by(strategy), [("it", Leaves(evidence=frozenset(one)))])
    with pytest.raises(ConfigError, match=rf"'{strategy}' needs .*{missing}.*export\.pairs=\[\]"):
        check_export(by(strategy), [("it", Leaves(evidence=frozenset(too_little)))])
    check_export(ExportSettings(pairs=()), [])


SAMPLE, REVISE, FILTER, JUDGE, RATE = Sample(), Revise(), Filter(), Judge(), Rate()
REVISIONS = Judge(comparisons=("revisions",))


def named(*stages: Stage) -> list[tuple[str, Stage]]:
    return [(type(stage).__name__.lower(), stage) for stage in stages]


@pytest.mark.parametrize(
    ("strategy", "stages", "late"),
    [
        ("best_vs_worst", [SAMPLE, JUDGE, REVISE], "'revise' after 'judge'"),
        ("mean_minus_2sd", [SAMPLE, RATE, SAMPLE], "'sample' after 'rate'"),
        ("best_vs_random", [SAMPLE, RATE, SAMPLE, Contrast()], "'sample' and 'contrast' after 'rate'"),
        ("best_vs_worst", [SAMPLE, JUDGE, REVISE, FILTER, REVISIONS], "'revise' after 'judge'"),
        ("revision_vs_original", [SAMPLE, REVISE, REVISIONS, REVISE, RATE], "'revise' after 'judge'"),
        ("best_vs_worst", [SAMPLE, JUDGE, Revise(only=("a",)), Rate(only=("b",))], "'revise' after 'judge'"),
    ],
)
def test_responses_that_come_after_their_judge_are_refused_before_a_run(
    strategy: Strategy, stages: list[Stage], late: str
) -> None:
    with pytest.raises(
        ConfigError, match=rf"'{strategy}' .*{late}: move '\w+' to the end .* or set export\.pairs=\[\]"
    ):
        check_export(by(strategy), named(*stages))


@pytest.mark.parametrize(
    ("strategy", "stages"),
    [
        ("best_vs_worst", [SAMPLE, JUDGE, REVISE, JUDGE]),
        ("best_vs_worst", [SAMPLE, JUDGE, REVISE, RATE]),
        ("best_vs_worst", [SAMPLE, REVISE, JUDGE, FILTER]),
        ("revision_vs_original", [SAMPLE, REVISE, JUDGE, FILTER]),
        ("best_vs_worst", [SAMPLE, Judge(only=("a",)), Revise(only=("b",))]),
        ("strong_vs_weak", [Sample(side="weak"), JUDGE, Sample(side="strong")]),
        ("above_margin", [SAMPLE, JUDGE, REVISE]),
        ("closure", [SAMPLE, JUDGE, REVISE]),
    ],
)
def test_a_judge_that_sees_all_it_must_may_stand_anywhere(strategy: Strategy, stages: list[Stage]) -> None:
    check_export(by(strategy), named(*stages))


def test_what_it_says_holds_for_a_run_that_is_already_there() -> None:
    for settings in (by("best_vs_worst"), by("strong_vs_weak"), ExportSettings(pairs=(), quality_floor=0.25)):
        with pytest.raises(ConfigError, match=r"\(in a new run, if this one has begun\), or "):
            check_export(settings, named(SAMPLE))


@pytest.mark.parametrize(
    ("settings", "stages", "way_out"),
    [
        ({"ties": "soft"}, [SAMPLE, RATE], r"ties=soft needs verdicts: add a 'judge' stage .*ties=drop"),
        ({"ties": "soft", "configs": ["preference"]}, [SAMPLE, JUDGE], r"name it in export\.configs, or say ties=drop"),
        ({"min_on_policy": 0.2}, [Sample(models=("other",)), JUDGE], r"no stage asks .*'policy'.*export\.policy=NAME"),
        ({"policy": "ours"}, [SAMPLE, JUDGE], r"for export\.min_on_policy: give that too"),
        ({"clean": {"evals": ["nowhere.jsonl"]}}, [SAMPLE, JUDGE], r"nowhere\.jsonl"),
        ({"pairs": [], "balance": 2}, [SAMPLE], r"export\.balance is about pairs, and export\.pairs=\[\] makes none"),
        ({"pairs": [], "clean": {}}, [SAMPLE], r"export\.clean is about pairs"),
        ({"pairs": [], "ties": "soft"}, [SAMPLE, JUDGE], r"export\.ties is about pairs"),
    ],
)
def test_settings_that_go_nowhere_are_one_clear_error(
    settings: dict[str, object], stages: list[Stage], way_out: str
) -> None:
    with pytest.raises(ConfigError, match=way_out):
        check_export(ExportSettings.model_validate(settings), named(*stages))


def test_settings_that_choose_among_pairs_pass_where_there_are_some() -> None:
    everything = {
        "pairs": ["above_margin", "closure"],
        "ties": "soft",
        "clean": {},
        "min_on_policy": 0.2,
        "balance": 2,
        "max_per_category": 100,
        "max_refusal_share": 0.1,
        "max_length_gap": 400,
    }
    check_export(ExportSettings.model_validate(everything), named(SAMPLE, JUDGE))
    named_policy = ExportSettings.model_validate({"min_on_policy": 0.2, "policy": "theirs"})
    check_export(named_policy, named(Sample(models=("other",)), JUDGE))


def test_one_side_alone_makes_no_pair() -> None:
    with pytest.raises(ConfigError, match="'strong_vs_weak' needs two sides"):
        check_export(ExportSettings(pairs=("strong_vs_weak",)), [("sample", Sample(side="strong"))])
    both = [("sample", Sample(side="strong")), ("sample-2", Sample(side="weak"))]
    check_export(ExportSettings(pairs=("strong_vs_weak",)), both)


def test_stages_that_begin_with_nothing_to_work_on_are_refused() -> None:
    for name, stage in (("judge", Judge()), ("filter", Filter()), ("revise", Revise())):
        with pytest.raises(ConfigError, match=f"'{name}' comes first and has no responses"):
            check_responses([(name, stage), ("sample", Sample())])
    check_responses([("contrast", Contrast())])


def test_stages_may_begin_with_any_of_them_where_the_prompts_bring_responses() -> None:
    pairs, plain = Prompts(path="pairs.jsonl", responses=("a", "b")), Prompts()
    for name, stage in (("judge", Judge()), ("rate", Rate()), ("filter", Filter()), ("revise", Revise())):
        check_responses([(name, stage)], [pairs])
        with pytest.raises(ConfigError, match=f"'{name}' comes first .* --set prompts.responses="):
            check_responses([(name, stage)], [pairs, plain])
        check_responses([(name, stage.model_copy(update={"only": ("pairs",)}))], [pairs, plain])
    assert calls_per_record([("judge", Judge())], 1, given=3) == 6
    assert calls_per_record([("judge", Judge())], 1) == 0
