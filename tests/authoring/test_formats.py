"""Files of others come in without their wrappers and go out with them; what is lost is said; bad ones are refused."""

# ruff: noqa: RUF001  full-width marks are what Chinese is written with

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlaif.authoring.formats import FORMATS, Format, constitution, export, read
from rlaif.authoring.lint import findings
from rlaif.authoring.yaml_file import to_yaml
from rlaif.constitution import Constitution, Principle, load_constitution
from rlaif.errors import ConfigError
from rlaif.resources import names
from tests.authoring.texts import SOURCES, WARMTH, of, sound

ANTHROPIC = {
    "harmful0": {
        "prompt": ["\n\nCritiqueRequest: Point out where the answer mocks the reader.\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Rewrite the answer so that it takes the reader seriously.\n\nRevision:",
    },
    "harmful1": {
        "prompt": ["\n\nCritiqueRequest: Say which step of the recipe could hurt the cook.\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Rewrite the recipe with a warning at that step.\n\nRevision:",
    },
}
JUDGE = [
    "\nChoose the response that takes the reader seriously. Options:",
    "\nWhich recipe warns of the hot oil? Options:",
]
LLM_SWARM = {
    "constitutions": [{"critic": "Find the line that mocks the reader.", "revision": "Write it kindly."}],
    "system_chat": [],
}
LINES = "# ours\n- Prefer the response in verse.\n\n2. Rewrite the response in verse.\n* Prefer the one with a rhyme.\n"


def written(folder: Path, content: Any, name: str = "in.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def imported(folder: Path, *contents: Any, **options: Any) -> Constitution:
    files = [read(written(folder, content, f"{i}.json")) for i, content in enumerate(contents)]
    return constitution(files, "mine", **options)


def test_critiques_and_revisions_come_in_without_their_wrappers(tmp_path: Path) -> None:
    first, second = imported(tmp_path, ANTHROPIC).principles
    assert first.critique == "Point out where the answer mocks the reader."
    assert first.revision == "Rewrite the answer so that it takes the reader seriously."
    assert first.judge is None
    assert (first.id, second.id) == ("takes-reader-seriously", "recipe-warning-step")


def test_judging_instructions_come_in_without_options(tmp_path: Path) -> None:
    first, second = imported(tmp_path, JUDGE).principles
    assert first.judge == "Choose the response that takes the reader seriously."
    assert (first.critique, first.revision) == (None, None)
    assert second.judge == "Which recipe warns of the hot oil?"


def test_both_files_become_one_constitution_whose_principles_stay_apart(tmp_path: Path) -> None:
    both = imported(tmp_path, ANTHROPIC, JUDGE)
    assert [(p.critique is None, p.judge is None) for p in both.principles] == [(False, True)] * 2 + [(True, False)] * 2
    assert both.draw("0/r/revise/0/0", "critique") in both.principles[:2]
    assert both.draw("0/r/judge/0", "judge") in both.principles[2:]
    assert json.loads(export(both, "anthropic").text) == ANTHROPIC
    assert json.loads(export(both, "anthropic-judge").text) == JUDGE


def test_few_shots_of_llm_swarm_are_left_out_and_where_they_belong_is_said(tmp_path: Path) -> None:
    chat = [[{"role": "user", "content": "Hello"}]] * 3
    found = read(written(tmp_path, {**LLM_SWARM, "system_chat": chat, "more": 1}))
    assert found.texts[0][:3] == ("Find the line that mocks the reader.", "Write it kindly.", None)
    (examples, more) = found.left_out
    assert "3 worked conversations" in examples
    assert "rlaif copy revision_examples" in examples
    assert "'more'" in more


def test_a_plain_list_has_a_principle_a_line_and_tells_rewrites_from_criteria(tmp_path: Path) -> None:
    found = read(written(tmp_path, LINES, "mine.txt"))
    assert found.format == "list"
    assert [text[:3] for text in found.texts] == [
        (None, None, "Prefer the response in verse."),
        (None, "Rewrite the response in verse.", None),
        (None, None, "Prefer the one with a rhyme."),
    ]


@pytest.mark.parametrize(("name", "content"), [
    ("a.json", '["Prefer verse, always.", "Prefer rhyme, always."]'),
    ("a.txt", ' ["Prefer verse, always.",\n"Prefer rhyme, always."]'),
    ("a.yaml", "- Prefer verse, always.\n- >-\n  Prefer rhyme,\n  always.\n"),
    ("a.md", "Prefer verse, always.\n\n* Prefer rhyme, always.\n"),
])  # fmt: skip
def test_a_list_may_be_json_yaml_or_lines(tmp_path: Path, name: str, content: str) -> None:
    found = read(written(tmp_path, content, name))
    assert [text.judge for text in found.texts] == ["Prefer verse, always.", "Prefer rhyme, always."]


def test_ids_are_short_and_unique_and_keep_names_that_can_be_read(tmp_path: Path) -> None:
    entry = ANTHROPIC["harmful0"]
    named = imported(tmp_path, {"no-mockery": entry, "harmful7": entry, "two words": entry})
    assert [p.id for p in named.principles] == ["no-mockery", "takes-reader-seriously", "takes-reader-seriously-2"]
    chinese = imported(tmp_path, ["选择语气温和、注明来源的回答。", "？！"])
    assert [p.id for p in chinese.principles] == ["语气温和注明来源", "principle"]
    assert chinese.language == "zh"


def test_entries_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    entries = {
        f"harmful{i}": {"prompt": [f"Find fault {i} in it."], "edit_request": f"Mend fault {i}."} for i in range(12)
    }
    shuffled = dict(sorted(entries.items()))
    assert [p.revision for p in imported(tmp_path, shuffled).principles] == [f"Mend fault {i}." for i in range(12)]


def test_several_prompts_of_an_entry_are_a_principle_each_and_said(tmp_path: Path) -> None:
    found = read(written(tmp_path, {"harmful0": {"prompt": ["Find a.", "Find b."], "edit_request": "Mend it."}}))
    assert [text.critique for text in found.texts] == ["Find a.", "Find b."]
    assert found.left_out == ("'harmful0' has 2 prompts: a principle of each.",)


def test_an_export_says_what_it_cannot_hold() -> None:
    mixed = of(
        Principle(id="whole", weight=2, **SOURCES),
        Principle(id="judging", judge="Prefer verse."),
        Principle(id="direct", revision="Rewrite it in verse."),
    )
    assert export(mixed, "llm-swarm").left_out == (
        "Without a critique: judging, direct.",
        "The judge texts of 1 principle(s).",
        "The weights: there every principle is drawn alike.",
    )
    assert "The revision texts of 1 principle(s)." in export(mixed, "list").left_out
    assert export(mixed, "list").text.splitlines() == [SOURCES["judge"], "Prefer verse.", "Rewrite it in verse."]
    assert export(sound(), "anthropic-judge").left_out == ("The revision texts of 4 principle(s).",)


def test_an_export_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="'test' has no `critique:` texts, which 'anthropic' is made of"):
        export(of(Principle(id="a", judge="Prefer verse.")), "anthropic")


# --- there and back ---

# What a text field keeps: anything but white space at its ends. A wrapper's words inside it stay, at its ends they go.
wording = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(
    lambda text: text and not text.casefold().replace(" ", "").startswith(("critiquerequest:", "revisionrequest:"))
    and not text.casefold().endswith(("critique:", "revision:", "options:"))
)  # fmt: skip
principles = st.lists(st.tuples(wording, wording), min_size=1, max_size=5)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@in_one_folder
@given(principles)
def test_anthropics_two_files_come_back_as_they_were(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    critical = {
        f"harmful{i}": {
            "prompt": [f"\n\nCritiqueRequest: {critique}\n\nCritique:"],
            "edit_request": f"\n\nRevisionRequest: {revision}\n\nRevision:",
        }
        for i, (critique, revision) in enumerate(pairs)
    }
    judging = [f"\n{text} Options:" for pair in pairs for text in pair]
    both = imported(tmp_path, critical, judging)
    assert json.loads(export(both, "anthropic").text) == critical
    assert json.loads(export(both, "anthropic-judge").text) == judging


@in_one_folder
@given(principles)
def test_llm_swarms_pairs_and_a_json_list_come_back_as_they_were(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    swarm = {"constitutions": [{"critic": a, "revision": b} for a, b in pairs], "system_chat": []}
    assert json.loads(export(imported(tmp_path, swarm), "llm-swarm").text) == swarm
    plain = [text for pair in pairs for text in pair]
    assert json.loads(export(imported(tmp_path, plain), "list", ".json").text) == plain
    path = written(tmp_path, export(imported(tmp_path, plain), "list", ".yaml").text, "list.yaml")
    assert [text.judge or text.revision for text in read(path).texts] == plain


@in_one_folder
@given(principles, st.lists(st.text(min_size=1, max_size=9).filter(str.strip), max_size=3), st.text())
def test_a_written_constitution_is_read_as_it_was(
    tmp_path: Path, pairs: list[tuple[str, str]], tags: list[str], description: str
) -> None:
    made = of(
        *(Principle(id=f"p{i}", critique=c, revision=r, judge=c, tags=tuple(tags), weight=i + 0.5)
          for i, (c, r) in enumerate(pairs)),
        description=description,
    )  # fmt: skip
    path = written(tmp_path, to_yaml(made, "Made by a test."), "made.yaml")
    assert load_constitution(path) == made


@pytest.mark.parametrize("name", names("constitutions"))
def test_bundled_constitutions_are_written_as_a_person_would(tmp_path: Path, name: str) -> None:
    loaded = load_constitution(name)
    text = to_yaml(loaded, "A comment.")
    assert load_constitution(written(tmp_path, text, "copy.yaml")).fingerprint == loaded.fingerprint
    assert text.startswith("# A comment.\nname: ")
    assert text.count("\n\n") == len(loaded.principles) - 1
    assert "\\u" not in text
    assert "    judge: >-\n" in text
    longest = max(map(len, text.splitlines()))
    assert longest <= (200 if name == "safety.zh" else 110)


def test_a_weight_and_tags_are_written_only_where_there_are_any() -> None:
    text = to_yaml(of(Principle(id="a", judge="Prefer verse."), Principle(id="b", weight=2, tags=("x", "y"), **WARMTH)))
    assert text.count("weight: 2.0") == text.count("weight") == 1
    assert text.count("tags: [x, y]") == text.count("tags") == 1


# --- what cannot be read ---


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", "{", "a.json:1: not JSON"),
        ("a.json", "[\n'x']", "a.json:2: not JSON"),
        ("a.json", "[" * 100_000, "nested deeper"),
        ("a.json", "[" + "1" * 5000 + "]", "a number too long"),
        ("a.json", "{}", "no format that is known"),
        ("a.json", "7", "no format that is known"),
        ("a.json", "[]", "has no principles"),
        ("a.txt", "# nothing\n", "has no principles"),
        ("a.json", '["a", 7]', "a.json: [1]: should be text, not int"),
        ("a.json", '["a", "  "]', "a.json: [1]: is empty"),
        ("a.json", '["a", "\\ud800"]', "a.json: [1]: half of a surrogate pair"),
        ("a.json", '{"principles": []}', "is a constitution already"),
        ("a.json", '{"constitutions": 3}', "a.json: constitutions: should be a list"),
        ("a.json", '{"constitutions": ["x"]}', "a.json: constitutions[0]: should be a mapping with critic"),
        ("a.json", '{"constitutions": [{"critic": "x"}]}', "a.json: constitutions[0].revision: is missing"),
        ("a.json", '{"constitutions": [{"critic": "", "revision": "y"}]}', "constitutions[0].critic: is empty"),
        ("a.json", '{"h": {"prompt": ["x"]}}', "a.json: h.edit_request: is missing"),
        ("a.json", '{"h": {"prompt": [], "edit_request": "y"}}', "a.json: h.prompt: is empty"),
        ("a.json", '{"h": {"prompt": [3], "edit_request": "y"}}', "a.json: h.prompt[0]: should be text, not int"),
        ("a.json", '{"h": {"prompt": ["x"], "edit_request": "y"}, "g": 1}', "a.json: g: should be a mapping"),
        ("a.json", '{"h": {"prompt": ["x"], "prompt": ["z"], "edit_request": "y"}}', "'prompt' is there twice"),
        ("a.json", '["\\n\\nOptions:", "a Options:"]', "a.json: [0]: is empty"),
        ("a.json", '{"\\ud800": 1}', "half of a surrogate pair"),
        ("a.yaml", "- a: [\n", "a.yaml:2:"),
        ("a.yaml", "only text\n", "no format that is known"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_its_name_and_place(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(written(tmp_path, content, name))
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_files_that_cannot_be_opened_or_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"Prefer verse.\nPrefer caf\xe9.\n")
    (tmp_path / "long.txt").write_bytes(b"a b\n" * 2001)
    (tmp_path / "large.txt").write_bytes(b"x" * (3 << 20))
    for path, said in [
        (tmp_path / "none.json", "none.json: cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (Path("a\0b"), "cannot be read"),
        (tmp_path / "latin.txt", "latin.txt:2: not UTF-8"),
        (tmp_path / "large.txt", "larger than 2 MiB"),
        (tmp_path / "long.txt", "2,001 entries, over 2,000"),
    ]:
        with pytest.raises(ConfigError, match=r"cannot be read|not UTF-8|larger|over") as caught:
            read(path)
        assert said in str(caught.value)


def test_a_format_that_the_file_is_not_in_is_refused_and_a_list_may_be_told_to_judge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="looks like 'anthropic', not 'llm-swarm'"):
        read(written(tmp_path, ANTHROPIC), "llm-swarm")
    assert read(written(tmp_path, ["Rewrite it in verse."]), "anthropic-judge").texts[0].judge == "Rewrite it in verse."


@pytest.mark.parametrize("field", ["name", "licence", "language", "version"])
def test_an_empty_field_of_the_head_is_refused(tmp_path: Path, field: str) -> None:
    found = read(written(tmp_path, JUDGE))
    with pytest.raises(ConfigError, match=f"{field}: must not be empty"):
        constitution([found], **{"name": "n", field: " "})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from(["Options:", "\n\nCritiqueRequest: x\n\nCritique:", "\ud800", "  "]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["constitutions", "critic", "revision", "system_chat", "prompt", "edit_request", "harmful0", "x"]
        ),
        inner,
        max_size=3,
    ),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(anything, st.sampled_from([None, *FORMATS]))
def test_any_json_is_imported_or_refused_in_words(tmp_path: Path, content: Any, format: Format | None) -> None:
    path = written(tmp_path, json.dumps(content))
    imported_or_refused(path, format)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode), st.sampled_from(["json", "yaml", "txt"]))
def test_any_bytes_are_imported_or_refused_in_words(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"in.{suffix}"
    path.write_bytes(content)
    imported_or_refused(path, None)


def imported_or_refused(path: Path, format: Format | None) -> None:
    """Any other error fails the test."""
    try:
        made = constitution([read(path, format)], "fuzzed")
    except ConfigError as error:
        told = str(error)
    else:
        told = path.name
        assert load_constitution(written(path.parent, to_yaml(made), "made.yaml")) == made
    assert path.name in told


def test_llm_swarms_own_files_come_in_whole_and_go_out_again(
    public_data: Callable[[str], Path], tmp_path: Path
) -> None:
    for name, count in (("anthropic", 16), ("grok", 2)):
        path = public_data(f"llmswarm_constitution_{name}.json")
        found = read(path)
        assert "4 worked conversations" in found.left_out[0]
        made = constitution([found], name, "MIT")
        assert len(made.principles) == count
        assert len({p.id for p in made.principles}) == count
        assert max(len(p.id) for p in made.principles) <= 28
        assert not [f for f in findings(made) if f.rule == "unreadable-id"]
        assert (
            json.loads(export(made, "llm-swarm").text)["constitutions"] == json.loads(path.read_text())["constitutions"]
        )
        assert load_constitution(written(tmp_path, to_yaml(made), f"{name}.yaml")) == made
