"""A training's curves as pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from rlaif.train import lines, plots
from rlaif.train.plots import draw, smoothed

pytest.importorskip("matplotlib")
from PIL import Image


def course(folder: Path, n: int = 30, **more: Any) -> None:
    for i in range(1, n + 1):
        line = {"step": i, "max_steps": n, "time_s": i, "loss": 1 / i, "grad_norm": 1.0, **more}
        lines.append(folder, line)


def test_a_picture_for_each_family_that_has_figures(tmp_path: Path) -> None:
    course(tmp_path, **{"rewards/margins": 0.1, "rewards/accuracies": 0.7, "drift": 2.0, "beta": 0.1})
    drawn = draw(tmp_path)
    assert [path.name for path in drawn] == ["loss.png", "margin.png", "accuracy.png", "kl.png", "gradient.png"]
    for path in drawn:
        picture = Image.open(path).convert("L")
        assert picture.size == (640, 350)
        assert len(set(picture.tobytes())) > 20, "not empty"


def test_nothing_is_drawn_of_a_training_that_logged_nothing_or_one_step(tmp_path: Path) -> None:
    assert draw(tmp_path) == []
    course(tmp_path, n=1)
    assert draw(tmp_path) == []
    assert not (tmp_path / "plots").exists()


def test_a_figure_that_is_no_number_is_a_gap(tmp_path: Path) -> None:
    course(tmp_path, grad_norm=None)
    assert [path.name for path in draw(tmp_path)] == ["loss.png"]


def test_a_warning_is_marked_where_it_came_up_in_its_own_picture_only(tmp_path: Path) -> None:
    def orange(name: str) -> int:
        """Columns that are orange from top to bottom, more or less."""
        picture = Image.open(io.BytesIO((tmp_path / "plots" / name).read_bytes())).convert("RGB")
        w, h = picture.size
        found = [[picture.getpixel((x, y)) == (0xD5, 0x5E, 0x00) for y in range(h)] for x in range(w)]
        return sum(sum(column) > h / 3 for column in found)

    course(tmp_path, drift=2.0)
    draw(tmp_path)
    assert orange("kl.png") == 0
    lines.append(tmp_path, {"step": 31, "max_steps": 31, "loss": 0.1, "warnings": [{"name": "drift", "step": 10}]})
    draw(tmp_path)
    assert orange("kl.png") > 0
    assert orange("loss.png") == 0


def test_without_matplotlib_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    course(tmp_path)
    monkeypatch.setattr(plots, "find_spec", lambda name: None)
    assert draw(tmp_path) == []


def test_smoothing_keeps_the_ends_and_a_straight_line() -> None:
    assert smoothed([1.0, 2.0]) == [1.0, 2.0]
    straight = [float(i) for i in range(100)]
    assert smoothed(straight) == pytest.approx(straight)
    noisy = [i + (-1) ** i for i in straight]
    assert max(abs(a - b) for a, b in zip(smoothed(noisy)[5:-5], straight[5:-5], strict=True)) < 0.2
