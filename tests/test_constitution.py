"""A constitution is checked strictly, and its draws follow the weights and move as little as they can."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.constitution import Constitution, Principle, load_constitution
from rlaif.errors import ConfigError
from rlaif.resources import names


def principle(id: str, weight: float = 1.0, **texts: str) -> Principle:
    return Principle(id=id, weight=weight, **(texts or {"critique": "c", "revision": "r", "judge": "j"}))


def constitution(*principles: Principle) -> Constitution:
    return Constitution(name="test", version="1", licence="CC0", principles=principles)


HEAD = "name: mine\nversion: '1'\nlicence: CC0-1.0\n"


def complaint(tmp_path: Path, principles: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + principles)
    with pytest.raises(ConfigError) as caught:
        load_constitution(path)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("name", names("constitutions"))
def test_every_bundled_constitution_loads_and_can_be_drawn_from(name: str) -> None:
    bundled = load_constitution(name)
    assert bundled.name == name
    for purpose in ("judge",) if name == "aspects" else ("critique", "revision", "judge"):
        assert bundled.draw("0/record/stage/0", purpose) in bundled.principles


def test_the_safety_constitution_has_at_least_16_principles_and_the_general_one_has_one() -> None:
    assert len(load_constitution("safety.yaml").principles) >= 16
    assert len(load_constitution("general").principles) == 1


@pytest.mark.parametrize(
    ("principles", "expected"),
    [
        ("principles: []\n", "mine.yaml:4: principles: must not be empty; give at least one principle"),
        ("", "mine.yaml:1: principles: is missing"),
        ("principles:\n  - id: a\n    critque: c\n    revision: r\n",
         "mine.yaml:6: principles[0]: unknown field 'critque'; did you mean 'critique'?"),
        ("principles:\n  - {id: a, judge: j}\n  - {id: b, judge: j}\n  - id: a\n    judge: k\n",
         "mine.yaml:7: principles[2].id: another principle has the id 'a' already"),
        ("principles:\n  - id: a\n    judge: '  '\n", "mine.yaml:6: principles[0].judge: must not be empty"),
        ("principles:\n  - id: a\n",
         "mine.yaml:5: principles[0]: principle 'a' needs `revision:` (and `critique:`), or `judge:`, or all"),
        ("principles:\n  - {id: a, critique: c, judge: j}\n",
         "mine.yaml:5: principles[0]: principle 'a' has a critique but no revision; add `revision:`"),
        ("principles:\n  - {id: a, judge: j, weight: 0}\n",
         "mine.yaml:5: principles[0].weight: should be greater than 0, not 0"),
        ("principles:\n  - {id: a, judge: j, weight: .inf}\n",
         "mine.yaml:5: principles[0].weight: should be a finite number, not inf"),
        ("principles:\n  - {id: a, judge: j, weight: yes}\n",
         "mine.yaml:5: principles[0].weight: should be a valid number, not True"),
        ("principles:\n  - {id: a b, judge: j}\n",
         "mine.yaml:5: principles[0].id: 'a b' is no id; use letters, digits and . _ - only"),
    ],
)  # fmt: skip
def test_a_faulty_constitution_is_refused_with_line_and_field(tmp_path: Path, principles: str, expected: str) -> None:
    assert complaint(tmp_path, principles) == expected


def test_an_unknown_constitution_lists_the_bundled_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"no constitution 'safty'; did you mean 'safety'\?; bundled: aspects, general"
    ):
        load_constitution("safty")


def test_the_fingerprint_is_of_the_content_not_of_the_writing(tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{n}.yaml" for n in "123")
    one.write_text(HEAD + "principles:\n  - id: a\n    judge: >-\n      Prefer\n      this.\n")
    two.write_text("# another way\n" + HEAD + "principles: [{judge: Prefer this., id: a, weight: 1}]\n")
    three.write_text(HEAD + "principles: [{judge: Prefer that., id: a}]\n")
    prints = [load_constitution(path).fingerprint for path in (one, two, three)]
    assert prints[0] == prints[1] != prints[2]


def test_the_draw_is_pinned() -> None:
    """A change here would draw other principles in every run that is continued."""
    five = constitution(*(principle(name, weight) for name, weight in zip("abcde", (1, 2, 3, 1, 0.5), strict=True)))
    assert "".join(five.draw(f"0/r{i}/revise/0", "judge").id for i in range(24)) == "abdabdcbcbbeccbbbbeacbcc"


def test_frequencies_follow_the_weights() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 0.5, "e": 2.5}
    drawn = constitution(*(principle(name, weight) for name, weight in weights.items()))
    n = 20_000
    counts = Counter(drawn.draw(f"7/{i:016x}/judge/0", "judge").id for i in range(n))
    expected = {name: n * weight / sum(weights.values()) for name, weight in weights.items()}
    chi_square = sum((counts[name] - e) ** 2 / e for name, e in expected.items())
    assert chi_square < 18.47  # p = 0.001 with 4 degrees of freedom


IDS = [f"{i:03}" for i in range(200)]
weighted = st.dictionaries(
    st.text("abcdefgh.-_", min_size=1, max_size=6), st.floats(0.01, 100), min_size=2, max_size=12
)


@given(weighted, st.data())
def test_removing_a_principle_changes_only_the_draws_it_held(weights: dict[str, float], data: st.DataObject) -> None:
    removed = data.draw(st.sampled_from(sorted(weights)))
    order = data.draw(st.permutations(sorted(weights)))
    before = constitution(*(principle(name, weights[name]) for name in order))
    after = constitution(*(principle(name, weight) for name, weight in weights.items() if name != removed))
    for draw_id in IDS:
        held = before.draw(draw_id, "judge").id
        now = after.draw(draw_id, "judge").id
        assert now == held if held != removed else now != removed
        assert before.draw(draw_id, "judge", {removed}).id == now


@given(st.text(), st.floats(1e-9, 1e9))
def test_any_draw_id_and_any_weight_draw_something(draw_id: str, weight: float) -> None:
    if not draw_id.isascii():
        draw_id = ascii(draw_id)
    assert constitution(principle("a", weight)).draw(draw_id, "judge").id == "a"


def test_only_principles_with_the_texts_take_part() -> None:
    mixed = constitution(
        principle("full"), principle("judging", judge="j"), principle("direct", revision="r"),
        principle("critical", critique="c", revision="r"),
    )  # fmt: skip

    def drawn(purpose: Any) -> set[str]:
        return {mixed.draw(draw_id, purpose).id for draw_id in IDS}

    assert drawn("judge") == {"full", "judging"}
    assert drawn("critique") == {"full", "critical"}
    assert drawn("revision") == {"full", "critical", "direct"}


def test_a_draw_without_replacement_takes_each_once_and_then_says_that_none_is_left() -> None:
    three = constitution(*(principle(name) for name in "abc"))
    used: set[str] = set()
    for step in range(3):
        used.add(three.draw(f"0/r/revise/{step}", "critique", used).id)
    assert used == {"a", "b", "c"}
    with pytest.raises(ConfigError, match=r"'test' has only 3 principle\(s\) with `critique:` and all are used up"):
        three.draw("0/r/revise/3", "critique", used)


def test_a_constitution_without_the_needed_text_says_which_is_missing() -> None:
    only_judge = constitution(principle("a", judge="j"))
    with pytest.raises(ConfigError, match="no principle of constitution 'test' has `critique:`"):
        only_judge.draw("0/r/revise/0", "critique")
