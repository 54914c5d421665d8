"""What an audit says in words, in a table, in audit.json and in audit.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rlaif.audit.report import Audit, as_json, as_markdown, audited, classes_of, compared, write
from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.audit.text import rows

N = 200
CHANCE = np.random.default_rng(7)
GOLD = CHANCE.integers(0, 2, N).astype(float)


def items(gold: FloatArray = GOLD, *, longer: float = 0.5, **more: object) -> Items:
    """In a share `longer` of them the better response is the longer one."""
    n = len(gold)
    first_longer = np.where(CHANCE.random(n) < longer, gold, 1 - gold)
    lengths = np.where(first_longer[:, None] == 1, [200.0, 100.0], [100.0, 200.0])
    return Items(tuple(map(str, range(n))), gold, lengths, **more)  # type: ignore[arg-type]


def judged(name: str, ab: FloatArray, ba: FloatArray | None = None) -> Judged:
    ba = ab if ba is None else ba
    return Judged(name, ab, ba, tuple("unparsed" if np.isnan(p) else "ok" for p in ab + ba))


def right(share: float, gold: FloatArray = GOLD) -> FloatArray:
    """Verdicts that are right in this share of the items."""
    return np.where(np.arange(len(gold)) < share * len(gold), gold, 1 - gold)


def notes(found: Audit, about: str) -> list[str]:
    return [note for note in found.notes if note.startswith(about)]


@pytest.mark.parametrize(
    ("about", "good", "bad"),
    [
        ("Not to be told from a coin", right(0.9), right(0.52)),
        ("Wrong more often than right", right(0.9), right(0.2)),
        ("Gives no usable answer", right(0.9), np.where(np.arange(N) % 10 == 0, np.nan, right(0.9))),
        ("Surer than it is right", 0.5 + (right(0.9) - 0.5) * 0.8, right(0.8)),
    ],
)
def test_what_stands_out_is_said_with_its_figure_and_a_way_out(about: str, good: FloatArray, bad: FloatArray) -> None:
    found = audited("gold.jsonl", items(), [judged("good", good), judged("bad", bad)])
    (note,) = notes(found, about)
    assert "`bad` (" in note
    assert "`good`" not in note
    assert len(note.rpartition(": ")[2]) > 30


def test_a_taste_for_a_position_is_said() -> None:
    picks_first = np.where(np.arange(N) % 3 == 0, 1.0, GOLD), np.where(np.arange(N) % 3 == 0, 0.0, GOLD)
    found = audited("gold.jsonl", items(), [judged("first", *picks_first), judged("fair", right(0.9))])
    (note,) = notes(found, "Prefers a position")
    assert "`first` (+16.8*)" in note
    assert "`fair`" not in note


def test_a_taste_for_length_is_said_against_people_s_and_beside_the_longer_is_better_baseline() -> None:
    made = items(longer=0.8)
    longer = (made.lengths[:, 0] > made.lengths[:, 1]).astype(float)
    found = audited("gold.jsonl", made, [judged("longer", longer), judged("fair", right(0.95))])
    (note,) = notes(found, "No better than taking the longer response")
    assert "`longer`" in note
    assert "`fair`" not in note
    (note,) = notes(found, "Prefers the longer response more")
    assert "`longer` (+" in note
    assert "The longer response is the better one in " in as_markdown(found)


def test_a_taste_for_its_own_responses_is_said() -> None:
    generators = tuple(("me", "other") if i % 2 else ("other", "me") for i in range(N))
    mine = np.array([float(pair[0] == "me") for pair in generators])
    made = items(generators=generators)
    assert notes(audited("f", made, [judged("me", mine)]), "Prefers its own")
    assert not notes(audited("f", made, [judged("me two", mine)]), "Prefers its own")
    assert notes(audited("f", made, [judged("me two", mine)], {"me two": ["me"]}), "Prefers its own")


def test_few_labels_and_none_are_said() -> None:
    few = audited("f", items(GOLD[:12]), [judged("m", GOLD[:12])])
    assert notes(few, "Only 12 labels")
    two = audited("f", items(GOLD[:12]), [judged("m", GOLD[:12]), judged("k", GOLD[:12])])
    assert notes(two, "Fewer than 20 labels")
    none = audited("f", items(np.full(5, np.nan)), [judged("m", GOLD[:5])])
    assert notes(none, "No item has a label")
    assert none.judges[0].accuracy.value is None


def test_judges_that_saw_different_items_are_not_to_be_compared_as_they_stand() -> None:
    half = replace(judged("half", right(0.9)), outcomes=("ok",) * 100 + (None,) * 100)
    half.p_ab[100:] = np.nan
    assert notes(audited("f", items(), [half, judged("all", right(0.9))]), "The judges were not asked about the same")
    assert not notes(audited("f", items(), [judged("a", right(0.9)), judged("b", right(0.8))]), "The judges were not")


def test_of_a_panel_it_is_said_what_it_is_worth_and_who_copies_whom() -> None:
    flips = [CHANCE.random(N) < share for share in (0.1, 0.3, 0.35)]
    one, two, three = (np.where(flip, 1 - GOLD, GOLD) for flip in flips)
    found = audited("f", items(), [judged("one", one), judged("copy", one), judged("two", two), judged("three", three)])
    (together,) = notes(found, "Right together")
    assert "majority" in together
    assert "weighted by labels" in together
    (copies,) = notes(found, "They err on the same items")
    assert "`one` and `copy` (1.00)" in copies
    assert found.panel.weights is not None
    assert found.panel.weights["one"] > found.panel.weights["three"]


def test_one_order_only_is_said() -> None:
    once = Judged("once", right(0.9), np.full(N, np.nan), ("ok",) * N, both_orders=False)
    found = audited("f", items(), [once])
    assert notes(found, "Asked in one order only")
    head, _ = rows(found.judges)
    assert "same winner" not in head  # nobody has a figure for it


def test_a_long_list_of_judges_is_cut_and_counted() -> None:
    found = audited("f", items(), [judged(f"coin {i}", right(0.5)) for i in range(9)])
    (note,) = notes(found, "Not to be told from a coin")
    assert note.count("`coin") == 4
    assert "and 5 more" in note


def test_the_table_has_the_best_judge_first_and_intervals() -> None:
    found = audited("f", items(), [judged("poor", right(0.6)), judged("fine", right(0.9))])
    head, lines = rows(found.judges)
    assert head[:3] == ["judge", "labels", "right"]
    assert lines[0][:3] == ["fine", "200", "90.0% [85, 93]"]
    assert [line[0] for line in lines] == ["fine", "poor"]


def test_audit_json_keeps_its_keys() -> None:
    found = audited("gold.jsonl", items(groups=("x", "y") * 100), [judged("a", right(0.9)), judged("b", right(0.8))])
    content = json.loads(as_json(found))
    assert content["format"] == 1
    assert content.keys() >= {
        "rlaif", "source", "items", "labelled", "ties", "longer_is_better", "judges", "curves", "panel", "notes",
    }  # fmt: skip
    judge = content["judges"][0]
    assert judge.keys() >= {"judge", "asked", "usable", "accuracy", "kappa", "consistency", "position_bias", "ece"}
    assert judge["accuracy"].keys() == {"value", "low", "high", "n"}
    assert judge["accuracy"]["value"] == pytest.approx(0.9)
    assert judge["prefers_own"] == {"value": None, "low": None, "high": None, "n": 0}
    assert set(judge["by_group"]) == {"x", "y"}
    assert content["panel"]["judges"]["raters"] == ["a", "b"]
    assert content["curves"]["a"][-1]["coverage"] == 1.0


def test_a_name_cannot_leave_the_markdown_it_is_in() -> None:
    wild = "x` | <b>\n# y"
    made = items(groups=("g|", "h") * 100, annotators={"p|q": GOLD, "r": right(0.9)})
    text = as_markdown(audited("f`|", made, [judged(wild, right(0.52)), judged("b", right(0.9))]))
    assert "`x' / <b> # y`" in text
    assert wild not in text
    for table in text.split("\n\n"):
        if table.startswith("|"):
            assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert "`g/`" in text
    assert "`p/q`" in text
    assert "# y\n" not in text


def test_people_stand_beside_each_other_and_the_label() -> None:
    people = {"ann": GOLD, "bob": right(0.9), "cy": right(0.8)}
    found = audited("f", items(annotators=people), [])
    assert found.panel.annotators is not None
    text = as_markdown(found)
    assert text.startswith("## Audit of the labels")
    assert "| `ann` | 1.00 [" in text
    assert "| `bob` | 0.80 |  | " in text  # of each two; not with itself
    assert "Krippendorff's alpha is 0." in text


def test_the_report_is_written_whole_and_in_place_of_an_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "deep/audit"
    found = audited("f", items(), [judged("a", right(0.9)), judged("b", right(0.8))])
    written = {path.name for path in write(found, folder)}
    assert written == {"audit.json", "audit.md", "accuracy.png", "judges.png"} == {p.name for p in folder.iterdir()}
    alone = audited("f", items(), [judged("a", right(0.9))])
    write(alone, folder)
    assert {path.name for path in folder.iterdir()} == {"audit.json", "audit.md", "accuracy.png"}
    write(alone, tmp_path / "plain", plots=False)
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {"audit.json", "audit.md"}


def test_of_many_judges_each_is_compared_with_the_best() -> None:
    judges = [judged(f"j{i}", right(0.5 + i / 20)) for i in range(7)]
    found = compared(items(), judges)
    assert found.against == "j6"
    assert {(one.first, one.second) for one in found.differences} == {(f"j{i}", "j6") for i in range(6)}
    few = compared(items(), judges[:3])
    assert few.against is None
    assert len(few.differences) == 3


def raters(folder: Path, *choices: Sequence[str]) -> Path:
    path = folder / "classes.jsonl"
    path.write_text("".join(json.dumps({"one": a, "two": b}) + "\n" for a, b in zip(*choices, strict=True)))
    return path


def test_classes_have_kappas_and_an_alpha(tmp_path: Path) -> None:
    found = classes_of(raters(tmp_path, "xxyyzz", "xxyyzx"), ["one", "two"])
    assert (found.rows, found.classes) == (6, ("x", "y", "z"))
    (pair,) = found.pairs
    assert pair[:2] == ("one", "two")
    # Agreement 5/6; by chance (2*3 + 2*2 + 2*1) / 36.
    assert pair[2].value == pytest.approx((5 / 6 - 1 / 3) / (1 - 1 / 3))
    # Of 12 choices 5 are x, 4 y, 3 z; one row in six differs.
    assert found.alpha == pytest.approx(1 - (2 / 12) / (2 * (5 * 4 + 5 * 3 + 4 * 3) / (12 * 11)))


@pytest.mark.parametrize(("model", "people", "labeller"), [("gpt4", 0.970, 0.873), ("llama2orig", 0.929, 0.579)])
def test_the_published_kappas_of_xstest_come_out(
    public_data: Callable[[str], Path], model: str, people: float, labeller: float
) -> None:
    path = public_data(f"xstest_{model}_gpteval.csv")
    found = classes_of(path, ["annotation_1", "annotation_2", "final_label", "gpt4_label"])
    kappas = {(a, b): figure.value for a, b, figure in found.pairs}
    assert kappas["annotation_1", "annotation_2"] == pytest.approx(people, abs=5e-4)
    assert kappas["final_label", "gpt4_label"] == pytest.approx(labeller, abs=5e-4)
