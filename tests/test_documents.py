"""YAML is read safely, and every complaint names the file, the line and the field."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from rlaif.documents import Document, check, load
from rlaif.errors import ConfigError


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    critique: str
    weight: float = 1.0
    kind: Literal["pairwise", "rubric"] = "pairwise"

    @field_validator("critique")
    @classmethod
    def _polite(cls, text: str) -> str:
        if "rude" in text:
            raise ValueError("be polite")
        return text


class Other(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: str
    parts: list[Part] = Field(min_length=1)
    mixed: Part | Other | None = None
    options: dict[str, Other] = {}


def document(tmp_path: Path, text: str | bytes) -> Document:
    path = tmp_path / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(path)


def complaint(tmp_path: Path, text: str | bytes) -> str:
    """The error's text without the folder."""
    with pytest.raises(ConfigError) as caught:
        check(document(tmp_path, text), Whole)
    return str(caught.value).replace(f"{tmp_path}/", "")


GOOD = """\
# a comment
version: "1.0"
parts:
  - critique: >-
      several
      lines
    weight: 2

  - weight: 1.5
    critique: second
"""


def test_a_document_becomes_the_model_and_knows_its_lines(tmp_path: Path) -> None:
    it = document(tmp_path, GOOD)
    whole = check(it, Whole)
    assert whole.parts[0].critique == "several lines"
    assert [it.line(loc) for loc in [(), ("version",), ("parts",), ("parts", 0), ("parts", 0, "weight")]] == [
        2, 2, 3, 4, 7,
    ]  # fmt: skip
    assert it.line(("parts", 1, "critique")) == 10


def test_a_field_that_is_not_there_has_the_line_of_what_encloses_it(tmp_path: Path) -> None:
    it = document(tmp_path, GOOD)
    assert it.line(("parts", 1, "judge")) == 9
    assert it.line(("parts", 7)) == 3
    assert it.line(("nothing",)) == 2


def test_anchors_and_merges_work_and_lead_to_the_line_where_the_text_stands(tmp_path: Path) -> None:
    it = document(
        tmp_path,
        "version: '1'\nparts:\n  - &base\n    critique: a\n    weight: 3\n  - <<: *base\n    critique: b\n  - *base\n",
    )
    whole = check(it, Whole)
    assert [(part.critique, part.weight) for part in whole.parts] == [("a", 3), ("b", 3), ("a", 3)]
    assert it.line(("parts", 1, "critique")) == 7
    assert it.line(("parts", 1, "weight")) == 5


def test_a_byte_order_mark_is_tolerated(tmp_path: Path) -> None:
    assert document(tmp_path, b"\xef\xbb\xbfversion: x\n").data == {"version": "x"}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is here twice; the first is in line 1"),
        ("x:\n  - a: 1\n    a: 1\n", 3, "'a' is here twice"),
        ("a: 1\n\tb: 2\n", 2, "a tab; indent YAML with spaces"),
        ("a:\n\tb: 2\n", 2, "a tab; indent YAML with spaces"),
        ("a: [1,\nb: }\n", 2, "did not find expected node content"),
        ("a: 'open\n", 2, "found unexpected end of stream"),
        ("a: 1\nb: say: this\n", 2, "a second ': ' in one line; put the text in quotes"),
        ("a: 1\n---\nb: 1\n", 2, "but found another document"),
        ("a: 1\nb: é\nc: \x07\n", 3, "a control character"),
        (b"a: 1\nb: caf\xe9\n", 2, "not UTF-8"),
        ("a: 1\n".encode("utf-16"), 1, "not UTF-8"),
        ("a: 1\nb: 2024-13-45\n", 2, "'2024-13-45' is not a timestamp; put text in quotes"),
        ("a: !!int ''\n", 1, "'' is not a int"),
        ("a: 1\nyes: 2\n", 2, "a field's name must be text; put it in quotes"),
        ("a: 1\n? [b]\n: 2\n", 2, "a field's name must be text"),
        ("a: 1\nb: *nothing\n", 2, "found undefined alias"),
        ("b: 1\na: &x\n  - *x\n", 2, "an anchor that contains its own alias"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "could not determine a constructor"),
        ("a: 1\nb: " + "[" * 200_000, 2, "nested deeper than 100 levels"),
    ],
)
def test_a_file_that_is_not_good_yaml_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, what: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        document(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/file.yaml:{line}: {what}")


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
        "a0: &a0 {x: y}\n" + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60)),
        f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n",
        f"a: &a\n  ? {'x' * 100_000}\n  : 1\nb: [{', '.join(['*a'] * 1000)}]\n",
        "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 5000)),
    ],
    ids=["lists", "merges", "text", "names", "depth"],
)
def test_a_billion_laughs_are_refused_before_they_are_built(tmp_path: Path, text: str) -> None:
    start = time.monotonic()
    with pytest.raises(ConfigError, match=r"file\.yaml:\d+: its aliases expand to too much"):
        document(tmp_path, text)
    assert time.monotonic() - start < 60


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_far_too_large_for_settings_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "model.gguf").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="larger than 2 MiB"):
        load(tmp_path / "model.gguf")


PARTS = "version: '1'\nparts:\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PARTS + "  - critque: x\n    critique: y\n",
         "file.yaml:3: parts[0]: unknown field 'critque'; did you mean 'critique'?"),
        (PARTS + "  - critique: y\nzzz: 1\n",
         "file.yaml:4: unknown field 'zzz'; known: version, parts, mixed, options"),
        (PARTS + "  - critique: y\noptions:\n  a: {nam: x, name: y}\n",
         "file.yaml:5: options.a: unknown field 'nam'; did you mean 'name'?"),
        (PARTS + "  - critique: y\n  - weight: 1\n", "file.yaml:4: parts[1].critique: is missing"),
        (PARTS + "  - critique: y\n    weight: much\n",
         "file.yaml:4: parts[0].weight: should be a valid number, unable to parse string as a number"),
        (PARTS + "  - critique: y\n    weight: [1]\n", "file.yaml:4: parts[0].weight: should be a valid number"),
        (PARTS + "  - critique: y\n    weight:\n",
         "file.yaml:4: parts[0].weight: should be a valid number, but is empty"),
        (PARTS + "  - critique: y\n    kind: pairwse\n",
         "file.yaml:4: parts[0].kind: should be 'pairwise' or 'rubric', not 'pairwse'; did you mean 'pairwise'?"),
        (PARTS + "  - critique: rude\n", "file.yaml:3: parts[0].critique: be polite"),
        (PARTS + "  - text\n", "file.yaml:3: parts[0]: should be a mapping (name: value)"),
        (PARTS + "  critique: y\n", "file.yaml:2: parts: should be a list"),
        ("version: '1'\nparts: []\n", "file.yaml:2: parts: must not be empty"),
        ("version: 1.0\nparts: [{critique: y}]\n",
         "file.yaml:1: version: should be text, but YAML reads 1.0 as a float; put it in quotes"),
        ("- a\n- b\n", "file.yaml:1: should be a mapping (name: value)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_said_in_the_words_of_the_file(tmp_path: Path, text: str, expected: str) -> None:
    assert complaint(tmp_path, text) == expected


def test_several_problems_come_in_one_error_with_a_line_each(tmp_path: Path) -> None:
    said = complaint(tmp_path, PARTS + "".join(f"  - critique: {i}\n" for i in range(8))).splitlines()
    assert len(said) == 6
    assert [line.split(":")[1] for line in said[:5]] == ["3", "4", "5", "6", "7"]
    assert said[-1] == "... and 3 more"


def test_the_branches_of_a_union_do_not_get_into_the_field_path(tmp_path: Path) -> None:
    said = complaint(tmp_path, PARTS + "  - critique: y\nmixed:\n  nme: x\n").splitlines()
    assert "file.yaml:5: mixed: unknown field 'nme'; did you mean 'name'?" in said
    assert "file.yaml:4: mixed.critique: is missing" in said
