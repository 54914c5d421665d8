"""Every bundled recipe runs from prompts to the dataset it promises, and says what it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from rlaif import generate
from rlaif.config import load_settings, stages_of
from rlaif.constitution import load_constitution
from rlaif.job import Result
from rlaif.plan import calls_per_record
from rlaif.resources import bundled, names
from tests.labelled import pairs, write

PIPELINES = names("pipelines")


def ran(name: str, folder: Path, *assignments: str, limit: int = 24) -> Result:
    """The recipe with a scripted model of its own in every role."""
    models = load_settings(name, {}).models
    scripted = [
        f"models.{role}={{provider: scripted, model: {role}, script: {{seed: {i}}}}}" for i, role in enumerate(models)
    ]
    prompts = None
    if name == "rejudge":  # it has no prompts of its own
        folder.mkdir(exist_ok=True)
        prompts = write(folder / "pairs.jsonl", pairs(24))
    return generate(name, prompts=prompts, limit=limit, runs_dir=folder, run=name, set=[*scripted, *assignments])


def rows(result: Result, config: str) -> list[dict[str, Any]]:
    """All rows of one of its datasets; none if it was not written."""
    files = sorted((result.dataset / config).glob("*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def text(messages: list[dict[str, str]]) -> str:
    return messages[-1]["content"]


@pytest.mark.parametrize("name", PIPELINES)
def test_a_recipe_says_what_it_is_by_whom_how_it_is_run_and_what_it_costs(name: str) -> None:
    head = re.match(r"(?:#.*\n)+", bundled("pipelines", name).read_text())
    assert head is not None
    assert f"rlaif generate {name}" in head[0]
    assert re.search(r"arXiv:\d{4}\.\d{5}", head[0]) or name == "small"
    assert "Cost: " in head[0]


@pytest.mark.parametrize("name", PIPELINES)
def test_a_recipe_costs_no_more_than_its_plan(name: str, tmp_path: Path) -> None:
    settings = load_settings(name, {})
    stages = stages_of(settings, allow_code=False)
    given = len(settings.prompts[0].responses)
    planned = calls_per_record(stages, len(load_constitution(settings.constitution).principles), given=given)
    result = ran(name, tmp_path)
    asked = [stage for stage in result.summary["stages"] if stage["stage"] != "preflight"]
    assert 0 < sum(stage["sent"] for stage in asked) <= planned * 24
    assert result.summary["outcomes"].get("failed", 0) == 0
    assert sum(sum(splits.values()) for splits in result.summary["dataset"]["rows"].values())


@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "sl-cai"])
def test_a_recipes_pairs_are_two_different_texts_for_the_same_prompt(name: str, tmp_path: Path) -> None:
    result = ran(name, tmp_path)
    pairs = rows(result, "preference")
    assert len(pairs) == result.summary["dataset"]["pairs"] > 3
    for pair in pairs:
        assert text(pair["chosen"]) != text(pair["rejected"])
        assert pair["prompt"][-1]["role"] == "user"
    expected = set(yaml.safe_load(bundled("pipelines", name).read_text())["export"]["pairs"])
    assert {pair["strategy"] for pair in pairs} == expected


def test_sl_cai_trains_on_the_revisions_of_all_rounds_and_on_plain_answers_to_helpful_prompts(tmp_path: Path) -> None:
    result = ran("sl-cai", tmp_path, limit=67)
    sft = rows(result, "sft")
    by_record: dict[str, list[dict[str, Any]]] = {}
    for row in sft:
        by_record.setdefault(row["id"], []).append(row)
    revised = [found for found in by_record.values() if found[0]["principle"]]
    plain = [found for found in by_record.values() if not found[0]["principle"]]
    assert {len(found) for found in revised} == {4}
    assert {len(found) for found in plain} == {1}
    assert (len(revised), len(plain)) == (27, 40)
    assert sum(map(len, revised)) / sum(map(len, plain)) == 2.7  # of rows, as in the paper
    assert {row["id"] for row in rows(result, "prompts")} == by_record.keys()
    assert not (result.dataset / "preference").exists()
    sent = {stage["stage"]: stage["sent"] for stage in result.summary["stages"]}
    assert sent["revise"] == 27 * 8


def test_rl_cai_keeps_every_label_as_soft_as_the_judge_was(tmp_path: Path) -> None:
    result = ran("rl-cai", tmp_path)
    pairs = rows(result, "preference")
    assert len(pairs) == 24 - sum(result.summary["dataset"]["no_pair"].values())
    assert all(0.5 <= pair["p"] < 1 for pair in pairs)
    assert min(pair["p"] for pair in pairs) < 0.65
    assert len({principle for pair in pairs for principle in pair["principles"]}) > 5
    assert all(len(pair["principles"]) == 1 for pair in pairs)
    assert {row["margin"] for row in rows(result, "reward")} == {pair["margin"] for pair in pairs}


def test_rl_cai_with_reasoning_clamps_the_exported_label_only(tmp_path: Path) -> None:
    pairs = rows(ran("rl-cai", tmp_path, "judge.by.reasoning=true"), "preference")
    assert {round(pair["p"], 9) for pair in pairs if pair["margin"] > 0.25} == {0.6}


def test_rlaif_keeps_what_wins_in_both_orders(tmp_path: Path) -> None:
    fair = rows(ran("rlaif", tmp_path / "fair"), "preference")
    biased = ran("rlaif", tmp_path / "biased", "models.judge.script.position_bias=9.0")
    assert len(fair) > 10
    assert rows(biased, "preference") == []
    assert biased.summary["dataset"]["no_pair"].keys() <= {"inconsistent", "tie"}


def test_ultrafeedback_scores_each_aspect_and_draws_its_rejected_by_chance(tmp_path: Path) -> None:
    result = ran("ultrafeedback", tmp_path)
    scores = rows(result, "scores")
    assert len(scores) == 24 * 4
    assert {row["model"] for row in scores} == {"one", "two", "three", "four"}
    assert all(len(row["scores"]) == 4 for row in scores)
    by_record: dict[str, list[float]] = {}
    for row in scores:
        by_record.setdefault(row["id"], []).append(row["score"])
    pairs = rows(result, "preference")
    of = {(row["id"], text(row["completion"])): row["score"] for row in scores}
    assert all(of[pair["id"], text(pair["chosen"])] == max(by_record[pair["id"]]) for pair in pairs)
    ranks = {sorted(by_record[pair["id"]]).index(of[pair["id"], text(pair["rejected"])]) for pair in pairs}
    assert ranks == {0, 1, 2}


def test_score_pairs_the_highest_mean_with_the_lowest(tmp_path: Path) -> None:
    result = ran("score", tmp_path)
    scores = rows(result, "scores")
    assert all(len(row["scores"]) == 12 for row in scores)
    for pair in rows(result, "preference"):
        means = {text(row["completion"]): row["score"] for row in scores if row["id"] == pair["id"]}
        assert means[text(pair["chosen"])] == max(means.values())
        assert means[text(pair["rejected"])] == min(means.values())
        assert pair["margin"] == pytest.approx((max(means.values()) - min(means.values())) / 2)


def test_self_reward_asks_the_policy_itself_three_times(tmp_path: Path) -> None:
    result = ran("self-reward", tmp_path)
    (rated,) = [stage for stage in result.summary["stages"] if stage["stage"] == "rate"]
    assert (rated["model"], rated["sent"]) == ("policy", 24 * 4 * 3)
    assert {row["scores"][0]["judge"] for row in rows(result, "scores")} == {"policy"}


def test_delta_takes_the_strong_models_answer_and_asks_no_judge(tmp_path: Path) -> None:
    result = ran("delta", tmp_path)
    pairs = rows(result, "preference")
    assert {(pair["chosen_model"], pair["rejected_model"]) for pair in pairs} == {("strong", "weak")}
    assert {pair["p"] for pair in pairs} == {None}
    assert len(pairs) == 24
    assert result.summary["calls"]["sent"] == 2 * 24 + 2  # and one preflight each


def test_rlcd_strips_what_asked_for_the_contrast(tmp_path: Path) -> None:
    result = ran("rlcd", tmp_path)
    pairs = rows(result, "preference")
    assert len(pairs) == 24
    assert {turn["role"] for pair in pairs for turn in pair["prompt"]} == {"user"}
    assert "criterion" not in str(pairs)
    assert len({tuple(pair["principles"]) for pair in pairs}) > 5


def test_rejudge_compares_the_pairs_of_an_earlier_run_anew(tmp_path: Path) -> None:
    first = ran("rlaif", tmp_path)
    columns = ["prompts.responses=[rejected,chosen]", "prompts.generators=[rejected_model,chosen_model]"]
    address = f"hf://{first.dataset}#preference:train"
    judge = "models.judge={provider: scripted, model: judge, script: {seed: 1}}"  # the one of before
    again = generate("rejudge", prompts=address, limit=99, runs_dir=tmp_path, run="again", set=[judge, *columns])
    before = {text(row["prompt"]): row for row in rows(first, "preference")}
    pairs_now = rows(again, "preference")
    assert len(pairs_now) > 5
    for row in pairs_now:
        old = before[text(row["prompt"])]
        assert (text(row["chosen"]), text(row["rejected"])) == (text(old["chosen"]), text(old["rejected"]))
        assert (row["chosen_model"], row["p"]) == (old["chosen_model"], pytest.approx(old["p"]))
    card = (again.dataset / "README.md").read_text()
    assert "Responses came with the prompts and were revised, rated or compared by language models" in card
