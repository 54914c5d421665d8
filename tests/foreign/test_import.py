"""Any preference dataset becomes a folder that TRL reads; what was left out is counted, with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from rlaif.errors import ConfigError
from rlaif.export import About, ExportSettings, export_dataset
from rlaif.export.parquet import SCHEMAS
from rlaif.foreign.columns import shape_of
from rlaif.foreign.read import open_dataset
from rlaif.foreign.shapes import FATAL, PROBLEMS, example
from rlaif.importing import Imported, ImportSettings, import_dataset
from rlaif.importing.tally import NOTES as WORDS
from rlaif.importing.tally import REASONS
from rlaif.source import Prompts, read_prompts
from rlaif.types import prompt_id
from tests.export.made import run
from tests.foreign.made import jsonl, nectar, table, turns, ultrafeedback


def imported(tmp_path: Path, rows: list[Any], **options: Any) -> Imported:
    chosen = ImportSettings(**{"test_fraction": 0, **options.pop("settings", {})})
    source = jsonl(tmp_path / "source.jsonl", rows)
    return import_dataset(str(source), tmp_path / "made", settings=chosen, **options)


def rows_of(made: Path, config: str = "preference") -> list[dict[str, Any]]:
    return [row for path in sorted((made / config).iterdir()) for row in parquet.read_table(path).to_pylist()]


def texts(made: Path, config: str = "preference") -> list[tuple[str, str]]:
    return [(row["chosen"][-1]["content"], row["rejected"][-1]["content"]) for row in rows_of(made, config)]


def dropped(made: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (made / "dropped.jsonl").read_text().splitlines()]


def test_pairs_of_text_become_messages_in_all_forms_that_trl_trains_on(tmp_path: Path) -> None:
    done = imported(tmp_path, [{"prompt": "Q: what?", "chosen": " A", "rejected": "B\n", "category": "c", "id": 7}])
    assert done.written == {
        name: {"train": 2 if name == "kto" else 1} for name in ("preference", "sft", "kto", "reward")
    }
    for config in done.written:
        assert parquet.read_schema(tmp_path / "made" / config / "train-00000-of-00001.parquet").equals(SCHEMAS[config])
    row = rows_of(tmp_path / "made")[0]
    asked = [{"role": "user", "content": "Q: what?"}]
    assert {name: row[name] for name in ("prompt", "chosen", "rejected", "category", "strategy", "p", "margin")} == {
        "prompt": asked,
        "chosen": [{"role": "assistant", "content": "A"}],
        "rejected": [{"role": "assistant", "content": "B"}],
        "category": "c",
        "strategy": "imported",
        "p": None,
        "margin": None,
    }
    (prompt,) = read_prompts(Prompts(path=str(tmp_path / "source.jsonl")))
    assert row["id"] == prompt_id(prompt.prompt)
    reward = rows_of(tmp_path / "made", "reward")[0]
    assert (reward["chosen"], reward["margin"]) == ([*asked, {"role": "assistant", "content": "A"}], 0.0)
    kto = [(row["completion"][0]["content"], row["label"]) for row in rows_of(tmp_path / "made", "kto")]
    assert kto == [("A", True), ("B", False)]
    assert done.notes == {"outer_space": 1}


def test_what_is_dirty_is_left_out_with_its_place_and_its_reason(tmp_path: Path) -> None:
    good = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    dirt = [
        good | {"chosen": " "},
        good | {"rejected": None},
        good | {"prompt": turns("Q", "A")},
        good | {"rejected": "A\n"},
        good,
    ]
    done = imported(tmp_path, [good, *dirt])
    assert (done.rows, done.pairs) == (6, 1)
    assert [(line["where"], line["reason"]) for line in dropped(tmp_path / "made")] == [
        ("source.jsonl:2", "empty_chosen"),
        ("source.jsonl:3", "not_text"),
        ("source.jsonl:4", "role_error"),
        ("source.jsonl:5", "identical"),
        ("source.jsonl:6", "duplicate"),
    ]
    assert sum(done.dropped.values()) + done.pairs == done.rows
    start = {"reason": "identical", "split": "train", "where": "source.jsonl:5"}
    assert dropped(tmp_path / "made")[3] == {**start, "prompt": "Q", "chosen": "A", "rejected": "A"}


def test_a_turn_that_says_nothing_in_the_midst_of_a_prompt_is_noted(tmp_path: Path) -> None:
    done = imported(tmp_path, [{"prompt": turns("Q", "", "R"), "chosen": "A", "rejected": "B"}])
    assert (done.pairs, done.dropped, done.notes) == (1, {}, {"empty_turn": 1})


def test_of_several_problems_the_most_telling_is_the_reason(tmp_path: Path) -> None:
    dirty = {"prompt": turns("Q", "A"), "chosen": " ", "rejected": ""}
    imported(tmp_path, [{"prompt": "Q", "chosen": "A", "rejected": "B"}, dirty])
    (line,) = dropped(tmp_path / "made")
    assert (line["reason"], line["because"]) == ("empty_chosen", "role_error, empty_rejected, identical")


def test_every_problem_has_words_for_the_card() -> None:
    assert set(FATAL) <= REASONS.keys()
    assert set(PROBLEMS) - set(FATAL) <= WORDS.keys()


def test_a_line_that_is_no_json_is_left_out(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "a.jsonl", [{"prompt": "Q", "chosen": "A", "rejected": "B"}])
    source.write_text(source.read_text() + "{broken\n")
    done = import_dataset(str(source), tmp_path / "made")
    assert (done.rows, done.pairs, done.dropped) == (2, 1, {"unreadable": 1})
    assert dropped(tmp_path / "made")[0]["where"] == "a.jsonl:2"


def test_of_the_public_transcripts_two_are_empty_and_two_have_different_prefixes(
    tmp_path: Path, public_data: Callable[[str], Path]
) -> None:
    done = import_dataset(str(public_data("hh_harmless_test_part.jsonl.gz")), tmp_path / "made", as_="hh")
    assert (done.rows, done.pairs, done.dropped) == (899, 895, {"empty_chosen": 2, "prefix_mismatch": 2})
    assert [(line["where"].rpartition(":")[2], line["reason"]) for line in dropped(tmp_path / "made")] == [
        ("205", "empty_chosen"),
        ("367", "empty_chosen"),
        ("494", "prefix_mismatch"),
        ("759", "prefix_mismatch"),
    ]
    prompts = [row["prompt"] for row in rows_of(tmp_path / "made")]
    assert all(prompt[-1]["role"] == "user" for prompt in prompts)
    assert max(map(len, prompts)) > 5
    assert sum(": " in turn["content"] for prompt in prompts for turn in prompt) > 5


# --- rankings, ratings, thumbs ---


def test_ultrafeedback_gives_the_best_against_the_worst_with_a_margin(tmp_path: Path) -> None:
    first = ultrafeedback(("1", "1"), ("5", "5"), ("3", "3"))
    others = [
        {**ultrafeedback(*rated), "instruction": f"{rated}?"} for rated in ((("4", "4"), ("3", "3")), ((4, 4), (4, 4)))
    ]
    done = imported(tmp_path, [first, *others], as_="ultrafeedback")
    assert done.scale == (1, 5)
    assert done.dropped == {"tie": 1}
    rows = rows_of(tmp_path / "made")
    assert [row["margin"] for row in rows] == [1.0, 0.25]
    assert (rows[0]["chosen_model"], rows[0]["rejected_model"], rows[0]["category"]) == ("model-1", "model-0", "garden")
    assert imported(tmp_path, [first, *others], settings={"min_margin": 0.5}).dropped == {"low_margin": 1, "tie": 1}


@pytest.mark.parametrize(
    ("margins", "options", "kept"),
    [
        ((3.0, 1.5), {}, [1.0, 0.5]),
        ((3.0, 1.0), {"scale": (1, 5)}, [0.75, 0.25]),
        ((0.8, 0.4), {}, [0.8, 0.4]),  # a share already
        ((3.0, 1.0), {"min_margin": 0.5}, [1.0]),
        ((2.0, 0.0), {}, [1.0, 0.0]),  # as in rows that say no margin by saying 0
    ],
)
def test_a_column_of_margins_becomes_shares(
    tmp_path: Path, margins: tuple[float, ...], options: dict[str, Any], kept: list[float]
) -> None:
    rows = [{"prompt": f"Q{i}", "chosen": "A", "rejected": "B", "margin": m} for i, m in enumerate(margins)]
    imported(tmp_path, rows, settings=options)
    assert [row["margin"] for row in rows_of(tmp_path / "made")] == kept


def test_a_margin_below_zero_disagrees_with_the_pair(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{m}", "chosen": "A", "rejected": "B", "margin": m} for m in (2.0, -0.5)]
    done = imported(tmp_path, rows)
    assert (done.pairs, done.dropped) == (1, {"scores_disagree": 1})


def test_all_pairs_of_a_ranking_leave_each_answer_one_label(tmp_path: Path) -> None:
    done = imported(tmp_path, [nectar(1, 2, 3, 3)], as_="nectar", settings={"pick": "all"})
    assert texts(tmp_path / "made") == [
        ("Reply 0.", "Reply 2."),
        ("Reply 0.", "Reply 3."),
        ("Reply 0.", "Reply 1."),
        ("Reply 1.", "Reply 2."),
        ("Reply 1.", "Reply 3."),
    ]
    labels = {row["completion"][0]["content"]: row["label"] for row in rows_of(tmp_path / "made", "kto")}
    assert labels == {"Reply 0.": True, "Reply 1.": False, "Reply 2.": False, "Reply 3.": False}
    assert done.written["kto"] == {"train": 4}
    assert done.written["sft"] == {"train": 1}
    assert done.scale is None
    done = imported(tmp_path, [nectar(1, 2, 3)], settings={"pick": "all", "max_pairs_per_prompt": 1})
    assert [row["margin"] for row in rows_of(tmp_path / "made")] == [1.0]


def test_an_answer_has_one_label_wherever_its_pairs_stand(tmp_path: Path) -> None:
    rows = [("P", "A", "B"), ("Q", "A", "B"), ("P", "B", "C")]
    imported(tmp_path, [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in rows])
    said = [
        (row["prompt"][0]["content"], row["completion"][0]["content"], row["label"])
        for row in rows_of(tmp_path / "made", "kto")
    ]
    assert said == [("P", "A", True), ("P", "B", False), ("Q", "A", True), ("Q", "B", False), ("P", "C", False)]
    assert len(rows_of(tmp_path / "made", "sft")) == 2


def test_ratings_of_one_prompt_are_compared_however_far_apart_they_are(tmp_path: Path) -> None:
    rated = [("Q1", "a", 4), ("Q2", "x", 1), ("Q1", "b", 0), ("Q3", "alone", 2), ("Q2", "y", 2), ("Q1", "c", -1)]
    rows = [{"prompt": p, "response": r, "helpfulness": n, "verbosity": 4} for p, r, n in rated]
    done = imported(tmp_path, rows, as_="ratings")
    assert texts(tmp_path / "made") == [("a", "b"), ("y", "x")]
    assert [row["margin"] for row in rows_of(tmp_path / "made")] == [1.0, 0.25]
    assert done.dropped == {"too_few_rated": 2}  # the one that is alone, and the -1, which is no rating
    assert not (tmp_path / "made.partial").exists()


def test_thumbs_become_labels_and_what_is_unclear_is_counted(tmp_path: Path) -> None:
    labels = ["up", "down", 1, 0, "true", True, None, "maybe"]
    rows = [{"prompt": "Q", "completion": f"A{i}", "label": label} for i, label in enumerate(labels)]
    done = imported(tmp_path, rows, as_="thumbs")
    assert list(done.written) == ["sft", "kto"]
    assert [row["label"] for row in rows_of(tmp_path / "made", "kto")] == [True, False, True, False, True, True]
    assert len(rows_of(tmp_path / "made", "sft")) == 4
    assert done.dropped == {"no_label": 2}
    assert (done.pairs, done.rows) == (0, 8)


# --- the folder ---


def test_what_we_export_comes_back_as_it_was(tmp_path: Path) -> None:
    about = About(run="demo", constitution_name="safety", constitution_version="1.0")
    export_dataset(run(60), tmp_path / "dataset", ExportSettings(), about=about)
    done = import_dataset(str(tmp_path / "dataset"), tmp_path / "made")
    assert (done.rows, done.pairs, done.dropped, done.notes) == (60, 60, {}, {})
    kept = ("prompt", "chosen", "rejected", "id", "category", "margin")
    for path in sorted((tmp_path / "dataset/preference").iterdir()):
        again = parquet.read_table(tmp_path / "made/preference" / path.name, columns=list(kept))
        assert again.equals(parquet.read_table(path, columns=list(kept)))
    done = import_dataset(f"{tmp_path}/dataset#kto", tmp_path / "made")
    assert done.written["kto"] == {
        "train": len(rows_of(tmp_path / "dataset", "kto")) - done.written["kto"]["test"],
        "test": done.written["kto"]["test"],
    }


def test_the_library_loads_every_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"prompt": f"Q{i}", "chosen": "A", "rejected": "B"} for i in range(40)]
    done = imported(tmp_path, rows, settings={"test_fraction": 0.3})
    for config, splits in done.written.items():
        loaded = datasets.load_dataset(str(tmp_path / "made"), config)
        assert {name: len(split) for name, split in loaded.items()} == splits
        assert set(splits) == {"train", "test"}
    recipe = yaml.safe_load((tmp_path / "made/trl-dpo.yaml").read_text())
    assert recipe["dataset_name"] == "./preference"


HALF = ImportSettings(test_fraction=0.5)


def test_several_splits_stay_apart(tmp_path: Path) -> None:
    for split, n in (("train", 5), ("validation", 2)):
        table(
            tmp_path / f"set/{split}.parquet",
            [{"prompt": f"{split} {i}", "chosen": "A", "rejected": "B"} for i in range(n)],
        )
    done = import_dataset(str(tmp_path / "set"), tmp_path / "made")
    assert done.written["preference"] == {"train": 5, "test": 2}
    alone = import_dataset(str(tmp_path / "set"), tmp_path / "made", split="validation")
    assert alone.written["preference"] == {"test": 2}, "nobody trains on it because it came alone"
    assert not list((tmp_path / "made").glob("trl-*.yaml"))
    assert "trl " not in (tmp_path / "made/README.md").read_text()
    alone = import_dataset(str(tmp_path / "set"), tmp_path / "made", split="train", settings=HALF)
    assert alone.written["preference"].keys() == {"train", "test"}


def test_imported_pairs_can_be_judged_anew(tmp_path: Path) -> None:
    imported(tmp_path, [{"chosen": turns("Q", "A"), "rejected": turns("Q", "B"), "topic": "c"}])
    path = tmp_path / "made/preference/train-00000-of-00001.parquet"
    (record,) = read_prompts(Prompts(path=str(path), responses=("chosen", "rejected")))
    assert [response.text for response in record.responses] == ["A", "B"]
    assert (record.prompt[0].content, record.category) == ("Q", "c")


def test_the_card_says_where_it_is_from_and_what_was_left_out(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "chosen": "A", "rejected": "B"}, {"prompt": "SECRET", "chosen": "A", "rejected": "A"}]
    imported(tmp_path, rows, licence="MIT")
    card = (tmp_path / "made/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit"
    assert "- source: `source.jsonl`; splits: `train`" in card
    assert "- licence: `MIT`" in card
    assert "| `identical` | both answers say the same | 1 |" in card
    assert str(tmp_path) not in card + (tmp_path / "made/dropped.jsonl").read_text()
    assert "SECRET" not in card
    imported(tmp_path, rows)
    card = (tmp_path / "made/README.md").read_text()
    assert "- licence: unknown: see the source" in card
    assert "license" not in yaml.safe_load(card.split("---")[1])


@pytest.mark.parametrize(
    ("licence", "front"),
    [("MIT", {"license": "mit"}), ("my own licence", {"license": "other", "license_name": "my-own-licence"})],
)
def test_a_licence_is_written_as_the_hub_knows_it(tmp_path: Path, licence: str, front: dict[str, str]) -> None:
    imported(tmp_path, [{"prompt": "Q", "chosen": "A", "rejected": "B"}], licence=licence)
    found = yaml.safe_load((tmp_path / "made/README.md").read_text().split("---")[1])
    assert {name: value for name, value in found.items() if name.startswith("license")} == front


def test_an_import_that_fails_leaves_the_last_one(tmp_path: Path) -> None:
    imported(tmp_path, [{"prompt": "Q", "chosen": "A", "rejected": "B"}])
    before = (tmp_path / "made/README.md").read_text()
    with pytest.raises(ConfigError, match=r"no row of 1 could be used \(1 identical\); it was read as pairs, chosen"):
        imported(tmp_path, [{"prompt": "Q", "chosen": "A", "rejected": "A"}])
    with pytest.raises(ConfigError, match="leave out --as hh"):
        imported(tmp_path, [{"prompt": "Q", "chosen": "A", "rejected": "B"}], as_="hh")
    assert (tmp_path / "made/README.md").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "source.jsonl"]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    jsonl(tmp_path / "made/mine.jsonl", [1])
    with pytest.raises(ConfigError, match="is not a dataset that rlaif wrote"):
        imported(tmp_path, [{"prompt": "Q", "chosen": "A", "rejected": "B"}])


TEXTS = st.text(st.sampled_from("ab :\n"), max_size=4)
SIDES = TEXTS | st.none() | st.lists(TEXTS, max_size=3).map(lambda said: turns(*said))


@given(
    rows=st.lists(st.fixed_dictionaries({"prompt": SIDES, "chosen": SIDES, "rejected": SIDES}), max_size=12),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None)
def test_a_pair_is_never_of_equals_and_every_row_is_accounted_for(
    rows: list[Any], chance: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    good = {"prompt": "always", "chosen": "this", "rejected": "that"}
    done = imported(folder, [good, *rows])
    assert done.pairs + sum(done.dropped.values()) == done.rows == len(rows) + 1
    found = rows_of(folder / "made")
    for row in found:
        assert row["prompt"][-1]["role"] == "user"
        assert row["chosen"] != row["rejected"]
        assert row["chosen"][-1]["content"] == row["chosen"][-1]["content"].strip() != ""
    again = open_dataset(str(folder / "made"))
    shape = shape_of(again.columns, again.first())
    read = [example(row.values, shape) for row in again.rows()]
    assert {problem for one in read for problem in one.problems} <= {"empty_turn"}
    shuffled = list(rows)
    chance.shuffle(shuffled)
    done = imported(folder, [good, *shuffled])
    assert sorted(map(str, rows_of(folder / "made"))) == sorted(map(str, found))
