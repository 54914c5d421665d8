"""Where our reading of a row and TRL's must be the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.foreign.columns import shape_of
from rlaif.foreign.shapes import example
from rlaif.importing import import_dataset
from tests.foreign.made import jsonl, turns

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # torch and transformers deprecate a lot

data_utils = pytest.importorskip("trl.data_utils", reason="needs the [train] extra")

CONVERSATION = st.lists(st.sampled_from("ab"), min_size=2, max_size=6).map(lambda said: turns(*said))


@given(CONVERSATION, CONVERSATION)
def test_the_implicit_prompt_is_what_trl_extracts(chosen: list[Any], rejected: list[Any]) -> None:
    row = {"chosen": chosen, "rejected": rejected}
    found = example(row, shape_of(list(row), [row]))
    ours = [[{"role": turn.role, "content": turn.content} for turn in part] for part in found[:3]]
    theirs = data_utils.extract_prompt(row)
    assert ours == [theirs["prompt"], theirs["chosen"], theirs["rejected"]]


def test_an_import_is_conversational_and_left_as_it_is(tmp_path: Path) -> None:
    import datasets

    rows = [
        {"chosen": f"\n\nHuman: {i}?\n\nAssistant: A", "rejected": f"\n\nHuman: {i}?\n\nAssistant: B"} for i in "abc"
    ]
    import_dataset(str(jsonl(tmp_path / "hh.jsonl", rows)), tmp_path / "made")
    for config in ("preference", "sft", "kto", "reward"):
        files = [str(path) for path in sorted((tmp_path / "made" / config).iterdir())]
        for row in datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]:
            assert data_utils.is_conversational(row)
            if config == "preference":
                assert data_utils.maybe_extract_prompt(row) == row
