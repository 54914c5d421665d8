"""A pipeline file and the command line become checked settings, or an error that names the thing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.backends import ModelSpec
from rlaif.config import Settings, differences, load_settings, meaning, stages_of
from rlaif.constitution import load_constitution
from rlaif.errors import ConfigError
from rlaif.stages import Stage
from rlaif.stages.filter import Filter
from rlaif.stages.judge import Judge, Rate
from rlaif.stages.revise import Revise
from rlaif.stages.sample import Sample
from rlaif.templates import Templates
from rlaif.types import Record

PIPELINE = """\
name: mine
models:
  policy: scripted
  judge: {provider: scripted, script: {seed: 1}}
stages:
  - filter
  - sample: {n: 2}
  - filter:
      min_candidates: 1
  - judge: {by: {votes: 8}}
  - rate:
"""


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(PIPELINE)
    return path


def load(path: Path, *assignments: str, **options: object) -> Settings:
    return load_settings(str(path), options, assignments)


def refused(path: Path, *assignments: str, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        stages_of(load(path, *assignments, **options), allow_code=False)
    return str(caught.value)


def stage_list(settings: Settings) -> list[Stage]:
    return [stage for _, stage in stages_of(settings, allow_code=False)]


def test_stages_are_read_in_order_and_a_kind_used_twice_is_numbered(pipeline: Path) -> None:
    stages = stages_of(load(pipeline), allow_code=False)
    assert stages == [
        ("filter", Filter()),
        ("sample", Sample(n=2)),
        ("filter-2", Filter(min_candidates=1)),
        ("judge", Judge.model_validate({"by": {"votes": 8}})),
        ("rate", Rate()),
    ]


def test_set_changes_every_stage_of_a_kind_in_whatever_form_it_is_written(pipeline: Path) -> None:
    stages = stage_list(load(pipeline, "filter.min_candidates=3", "rate.principles=draw"))
    assert [stage.min_candidates for stage in stages if isinstance(stage, Filter)] == [3, 3]
    assert stages[-1] == Rate(principles="draw")


def test_set_reaches_nested_settings_and_reads_values_as_yaml(pipeline: Path) -> None:
    settings = load(pipeline, "judge.by.votes=12", 'sample.stop=["\\n", x]', "sample.system=", "limit=7")
    stages = stage_list(settings)
    assert isinstance(stages[1], Sample)
    assert isinstance(stages[3], Judge)
    assert stages[3].by[0].votes == 12
    assert stages[1].stop == ("\n", "x")
    assert stages[1].system is None
    assert settings.limit == 7


def test_set_reaches_into_short_forms_of_models_and_prompts(pipeline: Path) -> None:
    settings = load(pipeline, "models.policy.concurrency=3", "models.critic=local", "prompts.column=text")
    assert settings.models["policy"] == ModelSpec(provider="scripted", concurrency=3)
    assert settings.models["critic"].provider == "local"
    assert (settings.prompts[0].path, settings.prompts[0].column) == ("redteam", "text")
    option = load(pipeline, "models.judge.timeout_s=9", **{"models.judge": "openai/gpt-x"})
    assert option.models["judge"] == ModelSpec(provider="openai", model="gpt-x", timeout_s=9)


def test_options_that_were_not_given_change_nothing(pipeline: Path) -> None:
    assert load(pipeline, limit=None, seed=None) == load(pipeline)
    assert load(pipeline, seed=3).seed == 3


def test_the_file_is_not_changed_by_what_is_set_on_top(pipeline: Path) -> None:
    load(pipeline, "sample.n=9")
    assert pipeline.read_text() == PIPELINE
    assert load(pipeline).stages[1].sample == Sample(n=2)


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        ("local", {"provider": "local"}),
        ("local/me/repo/file.gguf", {"provider": "local", "model": "me/repo/file.gguf"}),
        ("openai/gpt-x", {"provider": "openai", "model": "gpt-x"}),
        ("http://h:8000/v1#m", {"provider": "openai", "base_url": "http://h:8000/v1", "model": "m"}),
        ("https://h/v1/#org/m", {"provider": "openai", "base_url": "https://h/v1", "model": "org/m"}),
        ("scripted", {"provider": "scripted"}),
    ],
)
def test_models_have_short_forms(short: str, expected: dict[str, str]) -> None:
    assert ModelSpec.model_validate(short) == ModelSpec.model_validate(expected)


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (["models.policy=gpt-x"], ["models.policy", "unknown model 'gpt-x'", "openai/MODEL"]),
        (["models.policy=http://h/v1"], ["names no model", "http://h/v1#MODEL"]),
        (["models.policy=openai/"], ["models.policy", "needs a name"]),
        (["models.policy.provider=opnai"], ["models.policy.provider", "'openai'"]),
        (["models.policy.consurrency=3"], ["models.policy", "unknown field 'consurrency'", "'concurrency'?"]),
        (["models.policy=nope", "models.policy.timeout_s=3"], ["models.policy: unknown model 'nope'"]),
        (["judge.by.model=critic"], ["stage 'judge' asks model 'critic'", "policy, judge"]),
        (["sample.models=[policy, other]"], ["stage 'sample' asks model 'other'"]),
        (["sampel.n=2"], ["--set sampel.n", "did you mean 'sample'?"]),
        (["filter=1"], ["--set filter", "filter.NAME=VALUE"]),
        (["stages.sample.n=2"], ["'stages' has no fields"]),
        (["sample.nn=2"], ["unknown field 'nn'", "did you mean 'n'?"]),
        (["sample.n=many"], ["with sample.n as given", "stages[1].sample.n", "valid integer"]),
        (["sample.n=0"], ["stages[1].sample.n", "greater than or equal to 1, not 0"]),
        (["sample.n.x=0"], ["'n' has no fields"]),
        (["sample.n"], ["write key=value"]),
        (["=3"], ["write key=value"]),
        (["sample.stop=[a"], ["--set sample.stop=[a", "not YAML"]),
        (["constitution.name=x"], ["constitution: should be text"]),
        (["revise.rounds=2"], ["no stage or field 'revise'"]),
        (["limit=0"], ["limit: should be greater than or equal to 1, not 0"]),
        (["window=0"], ["window: should be greater"]),
        (["export.min_p=0.2"], ["export.min_p: should be greater than or equal to 0.5"]),
        (["export.pairs=[best]"], ["export.pairs", "'best_vs_worst'"]),
        (["judge.by.votes=3"], ["votes: should be a multiple of 2"]),
        (["judge.comparisons=[]"], ["comparisons: must not be empty"]),
        (["seed.x=1"], ["seed: should be a valid integer"]),
        (["stages=3", "sample.n=2"], ["no stage or field 'sample'"]),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_with_a_way_out(
    pipeline: Path, assignments: list[str], words: list[str]
) -> None:
    message = refused(pipeline, *assignments)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("name: mine", "nmae: mine", ["mine.yaml:1", "unknown field 'nmae'", "'name'?"]),
        ("- sample:", "- smaple:", ["mine.yaml:7", "'smaple'", "'sample'?"]),
        ("- filter\n", "- 7\n", ["mine.yaml:6", "stages[0]", "like '- sample: {n: 4}'"]),
        ("- sample: {n: 2}", "- sample: [2]", ["mine.yaml:7", "should be a mapping"]),
        ("  - sample: {n: 2}", "  - {sample: {}, judge: {}}", ["mine.yaml:7", "one kind"]),
        ("{n: 2}", "{n: two}", ["mine.yaml:7", "stages[1].sample.n"]),
        ("policy: scripted", "policy: {model: x}", ["mine.yaml:3", "provider: is missing"]),
        ("{n: 2}", "{models: [writer]}", ["stage 'sample' asks model 'writer'", "policy, judge"]),
    ],
)
def test_a_fault_in_the_file_is_named_with_its_line(pipeline: Path, before: str, after: str, words: list[str]) -> None:
    pipeline.write_text(PIPELINE.replace(before, after, 1))
    message = refused(pipeline)
    for word in words:
        assert word in message


# --- stages of the user's own ---


class Shout(Stage):
    """What a user might write."""

    loud: bool = True

    async def __call__(self, record: Record, context: object) -> Record:
        return record


CODE = f"- {__name__}:Shout: {{loud: false}}"


def with_code(path: Path, entry: str = CODE) -> Path:
    path.write_text(PIPELINE.replace("- filter\n", f"{entry}\n", 1))
    return path


def test_code_is_imported_only_with_leave(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(with_code(pipeline))
    with pytest.raises(ConfigError, match="Shout' is code: run it with --allow-code"):
        stages_of(settings, allow_code=False)
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[Shout.__module__])
    assert stages_of(settings, allow_code=True)[0] == ("shout", Shout(loud=False))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("- no_such_module:Stage: {}", "cannot be imported: No module named"),
        ("- pathlib:Paths: {}", "cannot be imported"),
        ("- pathlib:Path: {}", "is no subclass of rlaif.stages.Stage"),
        ("- rlaif.stages.sample:Sample: {n: 0}", "Sample', field 'n': Input should be greater than or equal to 1"),
    ],
)
def test_code_that_is_no_stage_is_refused(pipeline: Path, entry: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stages_of(load(with_code(pipeline, entry)), allow_code=True)
    assert words in str(caught.value)


# --- what a run means ---


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates()


def means(settings: Settings, templates: Templates) -> dict[str, Any]:
    return meaning(settings, stages_of(settings, allow_code=False), load_constitution(settings.constitution), templates)


@pytest.mark.parametrize(
    "assignments",
    [
        ["limit=9"],
        ["window=2"],
        ["export.min_p=0.9", "export.pairs=[revision_vs_original]"],
        ["models.policy.concurrency=2", "models.policy.timeout_s=5", "models.policy.attempts=1"],
        ["models.policy.script.latency_ms=5"],
        ["name=other"],
        ["sample.temperatures=[1.0]"],  # the default, spelled out
    ],
)
def test_limits_addresses_speed_and_export_are_no_part_of_the_meaning(
    pipeline: Path, templates: Templates, assignments: list[str]
) -> None:
    assert means(load(pipeline, *assignments), templates) == means(load(pipeline), templates)


@pytest.mark.parametrize(
    ("assignment", "changed"),
    [
        ("seed=1", "seed: 0 -> 1"),
        ("sample.n=3", "stages[1].sample.n: 2 -> 3"),
        ("constitution=general", "constitution.name: safety -> general"),
        ("prompts=helpful", "prompts.file: redteam -> helpful"),
        ("prompts.system=Hi", "prompts.hash: "),
        ("models.policy.extra_body={min_p: 0.1}", "models.policy.extra_body.min_p: None -> 0.1"),
        ("models.policy.script.seed=4", "models.policy.identity: "),
    ],
)
def test_what_changes_the_records_changes_the_meaning_and_is_named(
    pipeline: Path, templates: Templates, assignment: str, changed: str
) -> None:
    lines = differences(means(load(pipeline), templates), means(load(pipeline, assignment), templates))
    assert any(line.startswith(changed) for line in lines)
    assert len(lines) <= 2


def test_an_address_is_no_identity_if_the_user_gives_one(pipeline: Path, templates: Templates) -> None:
    def at(address: str, *more: str) -> dict[str, Any]:
        return means(load(pipeline, f"models.policy={address}", *more), templates)

    named = "models.policy.identity=my-pool"
    assert at("http://one/v1#m", named) == at("http://two/v1#m", named)
    assert at("http://one/v1#m") != at("http://two/v1#m")


def test_differences_name_what_was_added_and_removed() -> None:
    assert differences({"a": [1, 2], "b": {"c": 1}}, {"a": [1], "b": {"d": 2}}) == [
        "a: [1, 2] -> [1]",
        "b.c: 1 -> None",
        "b.d: None -> 2",
    ]
    assert differences({"a": [{"n": 1}]}, {"a": [{"n": 2}]}) == ["a[0].n: 1 -> 2"]
    assert differences(1, 1) == []


def test_revise_is_named_by_what_is_set() -> None:
    settings = load_settings("cai", {}, ["revise.rounds=1"])
    assert isinstance(settings.stages[1].revise, Revise)
    assert settings.stages[1].revise.rounds == 1


def test_a_stage_for_prompts_that_are_not_there_is_refused(tmp_path: Path) -> None:
    settings = load_settings("cai", {}, ["revise.only=[calm]"])
    with pytest.raises(
        ConfigError,
        match=r"only for the prompts 'calm', and there are redteam; .* --set prompts\.name=calm",
    ):
        stages_of(settings, allow_code=False)


def test_several_sets_of_prompts_need_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two sets have one name"):
        load_settings("cai", {"prompts": ["redteam", {"path": "redteam", "system": "Be brief."}]})
    settings = load_settings("cai", {"prompts": ["redteam", "helpful"]})
    assert [one.label for one in settings.prompts] == ["redteam", "helpful"]


def test_a_setting_that_came_later_changes_no_older_run_while_it_is_empty() -> None:
    old = {"stages": [{"sample": {"n": 2}}], "seed": 0}
    assert differences(old, {"stages": [{"sample": {"n": 2, "only": [], "side": None}}], "seed": 0}) == []
    assert differences(old, {"stages": [{"sample": {"n": 2, "side": "weak"}}], "seed": 0}) == [
        "stages[0].sample.side: None -> weak"
    ]
