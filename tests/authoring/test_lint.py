"""The linter names what a person would object to, keeps silent otherwise, and says what it does not know."""

# ruff: noqa: RUF001  full-width marks are what Chinese is written with

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.authoring.balance import aim_shares, shares
from rlaif.authoring.doubles import NEAR
from rlaif.authoring.finding import Finding
from rlaif.authoring.formats import constitution, read
from rlaif.authoring.lint import findings
from rlaif.authoring.words import alike, language_of, shingles, tokens, words_of
from rlaif.constitution import Constitution, Principle, load_constitution
from rlaif.resources import names
from tests.authoring.texts import SHORT_ANSWERS, SOURCES, WARMTH, of, sound


def rules(found: list[Finding]) -> dict[str, tuple[str, ...]]:
    return {finding.rule: finding.principles for finding in found}


def judged(judge: str, **fields: Any) -> dict[str, tuple[str, ...]]:
    """What is found in a sound constitution with one more principle to judge by."""
    found = findings(sound(Principle(id="odd", judge=judge), **fields))
    return {rule: ids for rule, ids in rules(found).items() if ids == ("odd",)}


def test_nothing_is_wrong_with_a_sound_constitution() -> None:
    assert findings(sound()) == []


@pytest.mark.parametrize("name", names("constitutions"))
def test_the_bundled_constitutions_are_clean_and_what_is_noted_is_so_by_design(name: str) -> None:
    noted = {(finding.level, finding.rule) for finding in findings(load_constitution(name))}
    by_design = {"aspects": {("note", "balance"), ("note", "no-purpose")}, "general": {("note", "few")}}
    assert noted == by_design.get(name, set())


def test_texts_of_one_file_that_are_about_different_things_are_far_from_the_threshold() -> None:
    """What the threshold is set by."""
    most = 0.0
    for name in names("constitutions"):
        loaded = load_constitution(name)
        for purpose in ("critique", "revision", "judge"):
            of_each = [shingles(p.text(purpose) or "", words_of(loaded.language)) for p in loaded.principles]
            most = max([most, *(alike(a, b) for a, b in combinations(of_each, 2) if a)])
    assert 0.1 < most < NEAR - 0.1


# --- the same twice ---


def test_the_same_principle_twice_is_an_error_however_it_is_typed() -> None:
    twice = {name: f"  {text.upper()}  " for name, text in SOURCES.items()}
    (found,) = findings(sound(Principle(id="origin", **twice)))
    assert (found.level, found.rule, found.principles) == ("error", "duplicate", ("sources", "origin"))


def test_one_text_that_two_principles_share_is_a_warning() -> None:
    shared = Principle(id="other", critique=SHORT_ANSWERS["critique"], revision="Rewrite the response as a haiku.")
    assert rules(findings(sound(shared)))["same-text"] == ("short-answers", "other")


def test_texts_of_nearly_the_same_words_are_named_together() -> None:
    close = [
        "Prefer the response that names the origin of all its figures and invents none.",
        "Choose the answer which names the origin of its figures, and invents none at all.",
    ]
    extra = [Principle(id=f"close-{name}", judge=text) for name, text in zip("ab", close, strict=True)]
    found = {f.rule: f for f in findings(sound(*extra))}
    assert found["near-duplicate"].principles == ("sources", "close-a", "close-b")
    assert "judge text" in found["near-duplicate"].what


def test_the_same_words_turned_round_are_told_as_opposites() -> None:
    pair = [
        Principle(id="long", judge="Prefer the response that explains its steps in several paragraphs."),
        Principle(id="brief", judge="Prefer the response that never explains its steps in several paragraphs."),
    ]
    found = rules(findings(sound(*pair)))
    assert found["opposite"] == ("long", "brief")
    assert "near-duplicate" not in found


def test_chinese_texts_are_compared_by_their_characters() -> None:
    texts = [
        "选择逐条说明数据来源、不编造数字的回答。",
        "选择逐条说明每个数据来源、绝不编造数字的回答。",
        "选择语气温和、先回应对方心情的回答。",
    ]
    extra = [Principle(id=name, judge=text) for name, text in zip("abc", texts, strict=True)]
    found = rules(findings(of(*extra, language="zh-CN")))
    assert found["near-duplicate"] == ("a", "b")


# --- single texts ---


@pytest.mark.parametrize(
    ("judge", "rule"),
    [
        ("Prefer the better response.", "vague"),
        ("Choose the response that is most helpful, honest and harmless.", "vague"),
        ("Which response is of higher quality and more appropriate?", "vague"),
        ("Polite answers.", "short"),
        ("The assistant should mention its sources.", "no-comparison"),
        ("Is it polite? Does it name sources? Which one names more?", "several-questions"),
        ("Prefer the response that is more polite, calm, clear, brief and friendly.", "several-aims"),
        ("Prefer the response that never mentions religion.", "only-forbids"),
        ("Compare with {response} and prefer the one that names its sources.", "placeholder"),
        ("Prefer the response that names its sources. Options:", "wrapper"),
        ("Human: prefer the response that names its sources.", "wrapper"),
        ("Bevorzuge die Antwort, die ihre Quellen nennt und offen sagt, was sie nicht weiß.", "language"),
    ],
)  # fmt: skip
def test_a_judge_text_that_cannot_be_judged_by_is_named(judge: str, rule: str) -> None:
    assert rule in judged(judge)


@pytest.mark.parametrize(
    "judge",
    [
        "Prefer the shorter response.",
        "Which response names more of its sources?",
        "Prefer the response that gives more specific details.",
        "Choose the response that better follows the format, length and language that were asked for.",
        "If a full answer would endanger nobody, prefer the response that gives one.",
        "On topics such as war, crime, sex and death, prefer the response that tells the story openly.",
        "Prefer the response without a lecture.",
    ],
)
def test_a_judge_text_that_can_be_judged_by_is_let_be(judge: str) -> None:
    assert set(judged(judge)) <= {"never-drawn"}


@pytest.mark.parametrize(
    ("critique", "revision", "rule"),
    [
        ("Lying is a sin and always will be so.", SOURCES["revision"], "no-look"),
        ("Discuss whether the human wants to lay a trap.", SOURCES["revision"], "no-look"),
        (SOURCES["critique"], "The facts should be right in each sentence.", "no-rewrite"),
        ("Identify all ways in which the response is harmful or inappropriate.", SOURCES["revision"], "vague"),
        (SOURCES["critique"], "Remove everything about politics from the response.", "only-forbids"),
        (SOURCES["critique"], "CritiqueRequest: name the origin of every figure. Revision:", "wrapper"),
        (SOURCES["critique"], SOURCES["critique"], "copied"),
    ],
)  # fmt: skip
def test_a_revision_that_cannot_be_made_is_named(critique: str, revision: str, rule: str) -> None:
    found = findings(of(Principle(id="odd", critique=critique, revision=revision)))
    assert rules(found)[rule] == ("odd",)


@pytest.mark.parametrize(
    ("judge", "rule"),
    [
        ("选择更好的回答。", "vague"),
        ("哪个回答更安全、更有帮助？", "vague"),
        ("回答要注明数据来源才行。", "no-comparison"),
        ("礼貌", "short"),
        ("选择不提政治的回答。", "only-forbids"),
        ("它礼貌吗？它注明来源吗？哪个更多？", "several-questions"),
    ],
)
def test_chinese_principles_are_read_as_well(judge: str, rule: str) -> None:
    sensible = Principle(id="sources", judge="选择注明数据来源、承认哪里只是推测的回答。")
    found = rules(findings(of(sensible, Principle(id="odd", judge=judge), language="zh")))
    assert "odd" in found[rule]
    assert all("sources" not in ids for name, ids in found.items() if name == rule)


def test_in_other_languages_rules_on_words_are_left_out_and_a_note_says_so() -> None:
    german = [
        Principle(id="kurz", judge="Bevorzuge die Antwort, die jeden Gedanken nur einmal ausspricht."),
        Principle(id="besser", judge="Bevorzuge die bessere Antwort von den beiden."),
        Principle(id="knapp", judge="Bevorzuge die Antwort, die jeden Gedanken nur ein einziges Mal ausspricht."),
    ]
    found = findings(of(*german, language="de"))
    assert {(f.level, f.rule) for f in found} == {
        ("note", "unknown-language"), ("note", "no-purpose"), ("warning", "near-duplicate"),
    }  # fmt: skip
    assert rules(found)["near-duplicate"] == ("kurz", "knapp")


def test_a_principle_in_another_script_than_the_language_is_named_and_not_read_further() -> None:
    found = rules(findings(sound(Principle(id="odd", judge="选择更好的回答。"))))
    assert found["language"] == ("odd",)
    assert "vague" not in found


# --- the whole ---


def test_a_constitution_that_mostly_forbids_is_warned_of() -> None:
    forbidding = [
        Principle(id=topic, revision=f"Remove everything about {topic} from the response.", weight=3)
        for topic in ("politics", "religion")
    ]
    found = rules(findings(sound(*forbidding)))
    assert found["mostly-forbids"] == ("politics", "religion")


def test_harmlessness_alone_is_warned_of_with_its_share() -> None:
    harms = [
        Principle(id=name, judge=f"Prefer the response that explains less about {name} as a weapon to hurt people.")
        for name in ("knives", "poison", "fire")
    ]
    (found,) = (f for f in findings(of(*harms)) if f.rule == "balance")
    assert found.level == "warning"
    assert "helpfulness" in found.what
    assert "harmlessness 100%" in found.what


def test_much_more_harmlessness_than_help_is_warned_of() -> None:
    harmless = Principle(id="poison", judge="Prefer the response that explains less about poison.", tags=("harmless",),
                         weight=16)  # fmt: skip
    (found,) = (f for f in findings(sound(harmless)) if f.rule == "balance")
    assert found.level == "warning"
    assert found.what.startswith("mostly about harmlessness")


def test_tags_say_what_a_principle_is_for_before_its_words_do() -> None:
    told = aim_shares(
        of(Principle(id="a", judge="Prefer less about weapons.", tags=("honest",)), Principle(id="b", **WARMTH))
    )
    assert told == {"harmless": 0.0, "helpful": 0.0, "honest": 0.5, "unpreachy": 0.5}


def test_a_principle_with_most_of_the_draws_and_one_that_is_hardly_drawn_are_named() -> None:
    found = rules(findings(sound(
        Principle(id="much", judge="Prefer the response in rhyme.", weight=9),
        Principle(id="little", judge="Prefer the response with more verbs.", weight=0.001),
    )))  # fmt: skip
    assert (found["dominant"], found["rare"]) == (("much",), ("little",))


def test_a_single_principle_is_no_majority() -> None:
    assert "dominant" not in rules(findings(of(Principle(id="only", **SOURCES))))


def test_what_is_never_drawn_and_what_cannot_be_used_is_noted() -> None:
    only_judges = Principle(id="odd", judge="Prefer the response in rhyme.")
    assert rules(findings(sound(only_judges)))["never-drawn"] == ("odd",)
    (found,) = (f for f in findings(of(only_judges)) if f.rule == "no-purpose")
    assert "`revision:`" in found.what
    direct = of(Principle(id="odd", revision="Rewrite the response in rhyme."))
    told = [f.what for f in findings(direct) if f.rule == "no-purpose"]
    assert any("critique: false" in what for what in told)
    assert any("judges" in what for what in told)


def test_few_principles_to_revise_by_are_noted_with_what_it_means() -> None:
    (found,) = (f for f in findings(of(Principle(id="a", **SOURCES), Principle(id="b", **WARMTH))) if f.rule == "few")
    assert "replacement: false" in found.what


@pytest.mark.parametrize(("name", "readable"), [
    ("7", False), ("harmful0", False), ("p12", False), ("principle-3", False), ("deadbeef01", False),
    ("no-preaching", True), ("gdpr-2016", True), ("礼貌", True),
])  # fmt: skip
def test_ids_that_say_nothing_are_noted(name: str, readable: bool) -> None:
    found = rules(findings(sound(Principle(id=name, judge="Prefer the response in rhyme."))))
    assert ("unreadable-id" in found) != readable


def test_shares_are_those_of_the_draws() -> None:
    two = of(Principle(id="a", weight=3, **SOURCES), Principle(id="b", judge="Prefer rhyme."))
    told = shares(two)
    assert told == {"critique": {"a": 1.0}, "revision": {"a": 1.0}, "judge": {"a": 0.75, "b": 0.25}}
    drawn = sum(two.draw(str(i), "judge").id == "a" for i in range(4000)) / 4000
    assert drawn == pytest.approx(told["judge"]["a"], abs=0.03)


def test_errors_come_first() -> None:
    levels = [f.level for f in findings(sound(Principle(id="1", **SOURCES), Principle(id="odd", judge="Better one.")))]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    assert levels[0] == "error"


@given(
    st.lists(st.text(min_size=1).filter(lambda text: text.strip()), min_size=1, max_size=5),
    st.sampled_from(["en", "zh", "xx"]),
)
def test_any_text_in_any_language_is_linted(texts: list[str], language: str) -> None:
    principles = [Principle(id=f"p{i}", critique=text, revision=text, judge=text) for i, text in enumerate(texts)]
    for found in findings(of(*principles, language=language)):
        assert found.what
        assert found.way_out


def test_words_are_told_apart_in_scripts_with_and_without_spaces() -> None:
    assert tokens("Don't re-use ÜBER 3 回答。") == ["don't", "re-use", "über", "3", "回", "答"]


@pytest.mark.parametrize(("text", "language"), [
    ("Prefer the response that names the origin of its figures.", "en"), ("选择注明数据来源的回答。", "zh"),
    ("出典を明記している回答を選んでください。", "ja"), ("출처를 밝히는 답변을 고르세요.", "ko"),
    ("Bevorzuge die Antwort, die ihre Quellen nennt und keine erfindet.", None), ("123", None),
])  # fmt: skip
def test_the_language_of_a_list_is_told_where_it_can_be(text: str, language: str | None) -> None:
    assert language_of([text]) == language


# --- published files ---


def published(path: Path) -> Constitution:
    return constitution([read(path)], "published", "MIT")


def test_what_is_wrong_with_the_published_principles_is_what_a_person_says(
    public_data: Callable[[str], Path],
) -> None:
    """By number in the file: four ask for the same, one asks about the human, two name no fault one can look up."""
    loaded = published(public_data("llmswarm_constitution_anthropic.json"))
    number = {p.id: i for i, p in enumerate(loaded.principles, 1)}
    found = {(f.rule, tuple(number[name] for name in f.principles)) for f in findings(loaded) if f.level != "note"}
    assert found == {
        ("near-duplicate", (4, 9, 11)), ("near-duplicate", (4, 9, 11, 12)),
        ("no-look", (7,)), ("vague", (7,)), ("vague", (16,)),
        ("mostly-forbids", (2, 3, 4, 5, 7, 8, 9, 11, 12, 13)),
        ("balance", ()),
    }  # fmt: skip


def test_two_principles_against_harm_are_warned_of_for_their_balance_only(public_data: Callable[[str], Path]) -> None:
    loaded = published(public_data("llmswarm_constitution_grok.json"))
    assert [f.rule for f in findings(loaded) if f.level != "note"] == ["balance"]
