"""Each picture is a PNG that can be read, of the figures that there are."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest

from rlaif.audit.measures import coverage_curve, figures
from rlaif.audit.panels import panel_figures
from rlaif.audit.plots import NAMES, plots
from rlaif.audit.table import FloatArray, Items, Judged

N = 120


def drawn(items: Items, judges: Sequence[Judged]) -> dict[str, bytes]:
    found = [figures(items, judged) for judged in judges]
    curves = {judged.judge: coverage_curve(items, judged) for judged in judges}
    return dict(plots(found, curves, panel_figures(items, judges)))


def items(lengths: float = np.nan, **more: object) -> Items:
    gold = np.arange(N) % 2.0
    return Items(tuple(map(str, range(N))), gold, np.full((N, 2), lengths), **more)  # type: ignore[arg-type]


def judge(name: str, p: FloatArray) -> Judged:
    return Judged(name, p, p, ("ok",) * len(p))


def soft(seed: int) -> FloatArray:
    chance = np.random.default_rng(seed)
    return np.clip(0.5 + (items().gold - 0.5) * chance.random(N) + chance.normal(0, 0.1, N), 0, 1)


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.rstrip(b"\0").endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


@pytest.mark.parametrize("n", [1, 2, 4, 7, 14])
def test_any_number_of_judges_is_drawn(n: int) -> None:
    found = drawn(items(100.0), [judge(f"judge {i}", soft(i)) for i in range(n)])
    assert set(found) == {"accuracy.png", "reliability.png", "coverage.png", *(["judges.png"] if n > 1 else [])}
    for png in found.values():
        width, height = size(png)
        assert 200 < width < 1600
        assert 100 < height < 2000


def test_the_picture_of_accuracies_grows_with_the_judges() -> None:
    few, many = (drawn(items(), [judge(f"judge {i}", soft(i)) for i in range(n)])["accuracy.png"] for n in (3, 30))
    assert size(many)[1] > size(few)[1] + 300


def test_people_are_drawn_without_any_judge() -> None:
    people = {name: np.where(np.arange(N) % step, items().gold, 0.5) for name, step in (("ann", 5), ("bob", 7))}
    found = drawn(items(annotators=people), [])
    assert set(found) == {"people.png"}
    assert size(found["people.png"])


def test_a_judge_with_one_confidence_has_no_curve_and_one_without_labels_nothing_at_all() -> None:
    assert set(drawn(items(), [judge("hard", items().gold)])) == {"accuracy.png"}
    nobody = Items(items().ids, np.full(N, np.nan), items().lengths)
    assert drawn(nobody, [judge("hard", items().gold)]) == {}


def test_raters_that_share_no_item_are_drawn() -> None:
    first, second = items().gold.copy(), items().gold.copy()
    first[:60], second[60:] = np.nan, np.nan
    found = drawn(items(), [judge("one", first), judge("other", second)])
    assert set(found) == {"accuracy.png", "judges.png"}
    assert set(found) < set(NAMES)


def test_a_name_is_drawn_as_it_stands_and_of_a_bounded_width() -> None:
    names = ["$x_{", "_under", "评判", "<b> & \\frac", "long " * 40]
    wild = drawn(items(), [judge(name, soft(i)) for i, name in enumerate(names)])
    tame = drawn(items(), [judge("x" * 36 + str(i), soft(i)) for i in range(len(names))])
    for name, png in wild.items():
        assert size(png) == size(tame[name])
