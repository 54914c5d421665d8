"""Rows that are alike, however they lie in their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rlaif.lint.twins import KEYS, Spill, twins


def spilled(folder: Path, shares: list[list[tuple[int, int, int]]]) -> None:
    """The three hashes of each row."""
    for number, rows in enumerate(shares):
        keys = np.zeros(len(rows), KEYS)
        for i, row in enumerate(rows):
            keys[i] = (*row, number, i)
        spill = Spill(folder, number)
        spill.add(keys[: len(rows) // 2])
        spill.add(keys[len(rows) // 2 :])
        spill.close()


def test_nothing_is_alike_where_there_is_nothing(tmp_path: Path) -> None:
    spilled(tmp_path, [[], []])
    found = twins(tmp_path, ["train", "train"])
    assert (found.prompts, found.pairs, found.conflicts, found.shared) == (0, 0, 0, {})


def test_examples_are_the_first_of_all_files_and_splits(tmp_path: Path) -> None:
    far = 1 << 63  # another file than that of small numbers
    spilled(tmp_path, [[(far, 1, 2), (5, 1, 2)], [(5, 3, 4), (far, 2, 1)], [(5, 1, 2), (far, 1, 2)]])
    found = twins(tmp_path, ["train", "train", "test"], most=3)
    assert (found.prompts, found.pairs, found.conflicts) == (4, 2, 3)
    assert found.shared == {"test": 2}
    assert found.examples is not None
    assert list(found.examples["prompts"]) == [((1, 0), (0, 1)), ((1, 1), (0, 0)), ((2, 0), (0, 1))]
    assert list(found.examples["pairs"]) == [((2, 0), (0, 1)), ((2, 1), (0, 0))]
    assert list(found.examples["conflicts"]) == [((0, 0), (1, 1)), ((1, 1), (0, 0)), ((2, 1), (1, 1))]
    assert list(found.examples["shared"]) == [((2, 0), (0, 1)), ((2, 1), (0, 0))]


def test_a_row_without_a_prompt_shares_none(tmp_path: Path) -> None:
    spilled(tmp_path, [[(0, 1, 2), (0, 1, 2), (0, 3, 3), (0, 3, 3)]])
    found = twins(tmp_path, ["train"])
    assert (found.prompts, found.pairs, found.conflicts) == (0, 2, 0)
