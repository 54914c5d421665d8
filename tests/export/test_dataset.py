"""What is written can be loaded, keeps prompts on their side, and replaces the old only as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import datasets
import pytest
import yaml

from rlaif.errors import ConfigError, StoreError
from rlaif.export import About, ExportSettings, ExportSummary, export_dataset
from rlaif.export.rows import split_of
from rlaif.types import Record
from tests.export.made import record, run

ABOUT = About(run="demo", constitution_name="safety", constitution_version="1.0", licence="Apache-2.0", language="en")


def export(
    records: Callable[[], Iterable[Record]], folder: Path, settings: ExportSettings | None = None
) -> ExportSummary:
    return export_dataset(records, folder, settings or ExportSettings(), about=ABOUT)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Path, str], datasets.DatasetDict]:
    return lambda folder, config: datasets.load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))


def interrupted() -> Iterator[Record]:
    yield from run(3)()
    raise KeyboardInterrupt


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_config_loads_with_its_splits(tmp_path: Path, load: Callable[..., datasets.DatasetDict]) -> None:
    summary = export(run(60), tmp_path / "dataset")
    preference = load(tmp_path / "dataset", "preference")
    assert {split: d.num_rows for split, d in preference.items()} == summary.rows["preference"]
    assert sum(summary.rows["preference"].values()) == summary.pairs == 60
    assert 0 < summary.rows["preference"]["test"] < 20
    row = preference["train"][0]
    question, draft, revision = "Question 0: how do I", "Sure, here is how, number 0.", "locksmith, 0."
    assert row["prompt"][0]["role"] == "user"
    assert row["prompt"][0]["content"].startswith(question)
    assert row["rejected"] == [{"role": "assistant", "content": draft}]
    assert row["chosen"][0]["content"].endswith(revision)
    assert (row["p"], row["category"], row["judges"]) == (pytest.approx(0.85), None, ["judge"])

    sft = load(tmp_path / "dataset", "sft")
    assert sft["train"][0]["completion"] == row["chosen"]
    assert sft["train"][0]["principle"] == "p"
    kto = load(tmp_path / "dataset", "kto")
    assert kto["train"]["label"][:2] == [True, False]
    assert kto["train"].num_rows == 2 * preference["train"].num_rows
    ids = {
        config: {split: set(d["id"]) for split, d in load(tmp_path / "dataset", config).items()}
        for config in summary.rows
    }
    assert ids["preference"] == ids["sft"] == ids["kto"]
    assert not ids["preference"]["train"] & ids["preference"]["test"]


def test_only_what_has_rows_is_written(tmp_path: Path, load: Callable[..., datasets.DatasetDict]) -> None:
    def no_pairs() -> Iterator[Record]:
        yield record(["draft", ("revision", 0)], [(0, 1, 0.5, 0.5)])

    summary = export(no_pairs, tmp_path / "dataset", ExportSettings(test_fraction=0.999))
    assert summary.rows == {"sft": {"train": 1}, "prompts": {"train": 1}}  # a lone row is for training
    assert summary.no_pair == {"tie": 1}
    assert load(tmp_path / "dataset", "sft").keys() == {"train"}
    parquet = {f"{config}/train-00000-of-00001.parquet" for config in ("sft", "prompts")}
    assert set(files(tmp_path / "dataset")) == {"README.md", "trl-sft.yaml", *parquet}


def test_no_dataset_is_left_without_rows_to_train_on(tmp_path: Path, load: Callable[..., datasets.DatasetDict]) -> None:
    """One pair that falls to test, beside prompts on both sides."""
    made = list(run(20)())
    (first, *_) = (one for one in made if split_of(one, 0.5) == "test")
    plain = [one if one is first else one.having(verdicts=(), responses=one.responses[:1]) for one in made]
    settings = ExportSettings(test_fraction=0.5, sft=("chosen",))
    summary = export(lambda: plain, tmp_path / "dataset", settings)
    assert summary.rows["preference"] == {"train": 1}
    assert summary.rows["prompts"] == {"train": 20}
    assert {split: len(d) for split, d in load(tmp_path / "dataset", "prompts").items()} == {"train": 20}
    assert "eval_strategy" not in (tmp_path / "dataset" / "trl-dpo.yaml").read_text()


def test_a_run_without_any_row_still_has_a_card(tmp_path: Path) -> None:
    summary = export(list, tmp_path / "dataset")
    assert (summary.records, summary.example, summary.longer_chosen) == (0, None, 0.0)
    assert "No rows were written" in (tmp_path / "dataset" / "README.md").read_text()


def test_more_rows_than_a_row_group_keep_their_order(tmp_path: Path, load: Callable[..., datasets.DatasetDict]) -> None:
    export(run(2100), tmp_path / "dataset", ExportSettings(test_fraction=0.0, configs=("kto",)))
    loaded = load(tmp_path / "dataset", "kto")["train"]
    assert loaded.num_rows == 4200
    assert [row[0]["content"] for row in loaded["prompt"][-1:]] == ["Question 2099: how do I open it?"]


def test_another_runs_dataset_and_one_exported_anew_are_not_taken_for_the_one_in_the_cache(
    tmp_path: Path, load: Callable[..., datasets.DatasetDict]
) -> None:
    for folder, n in (("one", 20), ("two", 30), ("one", 40)):
        written = export(run(n), tmp_path / folder / "dataset").rows["prompts"]
        loaded = load(tmp_path / folder / "dataset", "prompts")
        assert {split: part.num_rows for split, part in loaded.items()} == written


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        export(run(30), tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_prompt_stays_on_its_side_when_the_run_grows() -> None:
    small = {r.id: split_of(r, 0.1) for r in run(50)()}
    large = {r.id: split_of(r, 0.1) for r in run(1000)()}
    assert small.items() <= large.items()
    assert 70 < list(large.values()).count("test") < 130
    grown = {r.id for r in run(1000)() if split_of(r, 0.3) == "test"}
    assert {i for i, split in large.items() if split == "test"} <= grown


def test_an_interrupted_export_leaves_the_old_one(tmp_path: Path) -> None:
    export(run(5), tmp_path / "dataset")
    before = files(tmp_path / "dataset")
    with pytest.raises(KeyboardInterrupt):
        export(interrupted, tmp_path / "dataset")
    assert files(tmp_path / "dataset") == before
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_a_kill_between_the_two_renames_is_put_right(tmp_path: Path) -> None:
    export(run(5), tmp_path / "dataset")
    before = files(tmp_path / "dataset")
    (tmp_path / "dataset").rename(tmp_path / "dataset.old")
    with pytest.raises(KeyboardInterrupt):
        export(interrupted, tmp_path / "dataset")
    assert files(tmp_path / "dataset") == before
    assert export(run(6), tmp_path / "dataset").pairs == 6
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "README.md").write_text("my thesis")
    with pytest.raises(ConfigError, match="not a dataset that rlaif wrote"):
        export(run(5), tmp_path / "thesis")
    (tmp_path / "empty").mkdir()
    export(run(5), tmp_path / "empty")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        export(run(5), tmp_path / "file" / "dataset")


def test_only_records_that_ended_well_are_exported_and_all_are_counted(tmp_path: Path) -> None:
    good, *rest = run(3)()
    ended = [good, rest[0].ended("dropped", "truncated"), rest[1].ended("failed", "timeout")]
    summary = export(lambda: ended, tmp_path / "dataset", ExportSettings(test_fraction=0.0))
    assert summary.outcomes == {"ok": 1, "dropped: truncated": 1, "failed: timeout": 1}
    assert (summary.records, summary.pairs, summary.strategies) == (3, 1, {"best_vs_worst": 1})
    assert summary.example is not None
    assert summary.example.chosen.startswith("I would rather")


def test_a_floor_of_a_run_where_no_rating_came_out_bars_its_pairs_and_nothing_else(tmp_path: Path) -> None:
    summary = export(run(5), tmp_path / "dataset", ExportSettings(quality_floor=0.25, test_fraction=0.0))
    assert summary.no_pair == {"unscored": 5}
    assert summary.rows == {"sft": {"train": 5}, "prompts": {"train": 5}}


def test_a_floor_is_a_quantile_of_the_whole_runs_scores(tmp_path: Path) -> None:
    def records() -> Iterator[Record]:
        for i in range(8):
            yield record(["a", "b"], [(0, 1, 0.9, 0.9)], prompt=str(i), scores=[1.0, i / 10])

    assert export(records, tmp_path / "dataset", ExportSettings(quality_floor=0.25)).no_pair == {"low_quality": 4}


def test_judges_are_counted_in_both_orders(tmp_path: Path) -> None:
    asked = [(0, 1, 0.9, 0.9), (0, 1, 0.9, 0.1), (0, 1, 0.8, 0.5), (0, 1, None, 0.2)]
    stats = export(lambda: [record(["a", "b"], asked)], tmp_path / "dataset").judges["judge"]
    assert (stats.verdicts, stats.usable, stats.consistent, stats.first_picks) == (4, 3, 1, 1 + 2 + 1.5)
    assert stats.unusable_share == 0.25
    assert stats.position_bias == pytest.approx(4.5 / 6 - 0.5)
    nothing = export(lambda: [record(["a", "b"], asked[3:])], tmp_path / "dataset").judges["judge"]
    assert (nothing.swap_consistency, nothing.position_bias) == (None, None)


def test_the_card_lists_the_numbers_and_quotes_what_users_named(tmp_path: Path) -> None:
    about = About("a`<b>|x", "safety: best", "1.0", models={"policy": "local"}, stages=("sample", "judge"))
    export_dataset(run(60), tmp_path / "dataset", ExportSettings(), about=about)
    text = (tmp_path / "dataset" / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    configs = ["preference", "sft", "kto", "reward", "prompts"]
    assert [config["config_name"] for config in front["configs"]] == configs
    assert [line.split("`")[1] for line in text.splitlines() if line.startswith("- `") and "`: " in line] == configs
    assert [file["split"] for file in front["configs"][0]["data_files"]] == ["train", "test"]
    assert "# `a'<b>/x`" in text
    assert "| pairs | `best_vs_worst` | 60 |" in text
    assert "| `judge` | 60 | 0% | 100% (94%-100%) | +0.00 |" in text
    assert "A `best_vs_worst` pair by verdicts needs p >= 0.65 (the same winner in both orders)." in text
    assert "locksmith" not in text
    assert len(text.splitlines()) < 160


def test_the_card_says_for_each_strategy_what_its_pairs_needed(tmp_path: Path) -> None:
    pairs = ("best_vs_random", "revision_vs_original", "strong_vs_weak", "above_margin")
    settings = ExportSettings.model_validate({"pairs": pairs, "require_consistent": False, "min_p": 0.7})
    export(run(5), tmp_path / "dataset", settings)
    text = (tmp_path / "dataset" / "README.md").read_text()
    assert "`best_vs_random` pair by verdicts needs p >= 0.7 (either order may disagree)" in text
    assert "`revision_vs_original` pair by verdicts needs p >= 0.7 (the same winner in both orders)" in text
    assert "`strong_vs_weak` pair by verdicts needs p >= 0.5 (either order may disagree)" in text
    assert "An `above_margin` pair by verdicts" in text
    assert "2p - 1, at most 0.2, after a judge that reasoned first" in text


def test_the_card_of_a_run_without_verdicts_does_not_speak_of_them(tmp_path: Path) -> None:
    settings = ExportSettings(min_margin=0.2)
    export(lambda: [record("ab", scores=[0.5, -0.5])], tmp_path / "dataset", settings)
    text = (tmp_path / "dataset" / "README.md").read_text()
    assert "| pairs | `best_vs_worst by score` | 1 |" in text
    assert "A pair needs a margin >= 0.2" in text
    assert "pair by verdicts" not in text
    assert "No two responses were compared" in text
    assert "- `scores`: " in text


def test_a_run_without_a_judge_gives_sft_rows(tmp_path: Path) -> None:
    settings = ExportSettings(pairs=(), sft=("drafts",))
    summary = export(lambda: [record("ab")], tmp_path / "dataset", settings)
    assert summary.rows == {"sft": {"train": 2}, "prompts": {"train": 1}}
    text = (tmp_path / "dataset" / "README.md").read_text()
    assert "trl sft --config trl-sft.yaml\n```" in text


@pytest.mark.parametrize(
    "bad",
    [{"min_p": 0.4}, {"pairs": ["best_vs_worst"] * 2}, {"configs": []}, {"margin": 1}, {"min_margin": 2}, {"sft": []}],
)
def test_settings_are_checked_at_the_door(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        ExportSettings.model_validate(bad)


@pytest.mark.parametrize("method", ["dpo", "sft", "kto", "reward"])
def test_trl_settings_are_yaml_with_real_numbers(tmp_path: Path, method: str) -> None:
    export(run(60), tmp_path / "dataset")
    settings = yaml.safe_load((tmp_path / "dataset" / f"trl-{method}.yaml").read_text())
    assert isinstance(settings["learning_rate"], float)
    assert (tmp_path / "dataset" / settings["dataset_name"]).is_dir()
    assert settings["eval_strategy"] == "epoch"
    assert str(tmp_path) not in str(settings)


def test_the_card_counts_what_was_rated_and_what_came_of_it(tmp_path: Path) -> None:
    made = [record("abc", scores=[0.5, None, -0.5], prompt=str(i)) for i in range(4)]
    export_dataset(lambda: made, tmp_path / "dataset", ExportSettings(), about=ABOUT)
    text = (tmp_path / "dataset" / "README.md").read_text()
    assert "`judge` rated single responses 12 times; 4 ratings were unusable." in text
