"""The schema that editors check by says what the model says, in words, and ships beside the constitutions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif import resources
from rlaif.authoring.schema import FILE, as_file, json_schema
from rlaif.constitution import Constitution
from rlaif.resources import bundled, names

KINDS: dict[str, Any] = {"object": dict, "array": list, "string": str, "number": (int, float)}


def problems(value: Any, schema: dict[str, Any], place: str = "") -> Iterator[str]:
    """What a validator says; knows the words of JSON Schema that are used here, and no others."""
    assert set(schema) <= {
        "$schema", "title", "description", "type", "properties", "required", "additionalProperties", "items",
        "minItems", "minLength", "pattern", "exclusiveMinimum", "maximum", "dependencies", "anyOf",
    }  # fmt: skip
    if "type" in schema and (not isinstance(value, KINDS[schema["type"]]) or isinstance(value, bool)):
        yield f"{place}: no {schema['type']}"
        return
    if isinstance(value, dict):
        yield from (f"{place}.{name}: missing" for name in schema.get("required", ()) if name not in value)
        for name, needed in schema.get("dependencies", {}).items():
            yield from (f"{place}.{other}: missing" for other in needed if name in value and other not in value)
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from problems(inner, schema["properties"][name], f"{place}.{name}")
            elif not schema["additionalProperties"]:
                yield f"{place}.{name}: unknown"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{place}: too few"
        for i, inner in enumerate(value):
            yield from problems(inner, schema["items"], f"{place}[{i}]")
    if isinstance(value, str) and _refused(value, schema):
        yield f"{place}: {value!r}"
    if isinstance(value, (int, float)) and not schema["exclusiveMinimum"] < value <= schema["maximum"]:
        yield f"{place}: {value}"
    if "anyOf" in schema and not any(set(choice["required"]) <= set(value) for choice in schema["anyOf"]):
        yield f"{place}: none of several"


def _refused(text: str, schema: dict[str, Any]) -> bool:
    return len(text) < schema.get("minLength", 0) or not re.search(schema.get("pattern", ""), text)


def test_the_file_is_that_of_the_model() -> None:
    """If not: `rlaif constitution schema > constitutions/constitution.schema.json`."""
    assert bundled("constitutions", "safety").with_name(FILE).read_text("utf-8") == as_file()


@pytest.mark.parametrize("name", names("constitutions"))
def test_every_bundled_constitution_holds_to_it(name: str) -> None:
    content = yaml.safe_load(bundled("constitutions", name).read_text("utf-8"))
    assert list(problems(content, json_schema())) == []


HEAD = {"name": "n", "version": "1", "licence": "CC0-1.0"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"principles": []}, [".name: missing", ".version: missing", ".licence: missing", ".principles: too few"]),
        ({**HEAD, "principles": [{"judge": "j"}]}, [".principles[0].id: missing"]),
        ({**HEAD, "principles": [{"id": "a"}]}, [".principles[0]: none of several"]),
        ({**HEAD, "principles": [{"id": "a", "critique": "c", "judge": "j"}]}, [".principles[0].revision: missing"]),
        ({**HEAD, "principles": [{"id": "a b", "judge": "j"}]}, [".principles[0].id: 'a b'"]),
        ({**HEAD, "principles": [{"id": "a", "judge": ""}]}, [".principles[0].judge: ''"]),
        ({**HEAD, "principles": [{"id": "a", "judge": "j", "weight": 0}]}, [".principles[0].weight: 0"]),
        ({**HEAD, "principles": [{"id": "a", "judge": "j", "tag": []}]}, [".principles[0].tag: unknown"]),
    ],
)  # fmt: skip
def test_what_the_model_refuses_the_schema_refuses(content: dict[str, Any], expected: list[str]) -> None:
    assert list(problems(content, json_schema())) == expected
    with pytest.raises(ValueError, match="validation error"):
        Constitution.model_validate(content)


def test_ids_in_other_scripts_are_taken_as_the_model_takes_them() -> None:
    content = {**HEAD, "principles": [{"id": "no-übel_礼貌.1", "judge": "j"}]}
    assert list(problems(content, json_schema())) == []
    assert Constitution.model_validate(content)


def test_every_field_is_described_in_a_sentence() -> None:
    head = json_schema()
    fields = {**head["properties"], **head["properties"]["principles"]["items"]["properties"]}
    assert len(fields) == 12
    assert all(len(field["description"].split()) > 5 for field in fields.values())
    assert json.loads(as_file())["$schema"].startswith("http://json-schema.org/draft-07/")


def test_the_schema_ships_and_is_no_constitution(tmp_path: Path) -> None:
    assert not [name for name in names("constitutions") if "schema" in name]
    with pytest.raises(resources.ConfigError, match=r"no constitution 'constitution\.schema'"):
        resources.bundled("constitutions", "constitution.schema")
