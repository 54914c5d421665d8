"""The JSON Schema of a constitution's file, which editors complete and check by; made from the model."""

from __future__ import annotations

import json
from typing import Any

from rlaif.constitution import Constitution

FILE = "constitution.schema.json"

_HEAD = {
    "name": "What runs, dataset cards and messages call this constitution.",
    "version": "In quotes: '1.0'. Raise it when the principles change; datasets name it.",
    "licence": "The licence of these texts as an SPDX id, for example CC0-1.0 or Apache-2.0; 'unknown' if you were "
    "not told. It is named on the card of every dataset made with them.",
    "description": "One sentence: for which prompts, and to what end.",
    "language": "Of the principles, as a code: en, zh. The turns around them are taken in the same language where "
    "there are templates for it, else in English.",
    "principles": "One is drawn at random, by weight, for each round of revision and each label of a judge.",
}
_PRINCIPLE = {
    "id": "Short and readable, letters, digits and . _ - only: statistics and verdicts name it. Draws depend on it: "
    "with a new id all its draws are drawn anew.",
    "critique": "What to look for in the last response: 'Point out where ...'. Is followed by `revision`.",
    "revision": "How to rewrite the response: 'Rewrite the response so that ...'. Say what to do, not only what "
    "to leave out.",
    "judge": "Which of two responses is better: 'Prefer the response that ...'. Say too what to prefer where the "
    "topic does not come up.",
    "weight": "How often it is drawn, next to the others' weights. 1 if not given.",
    "tags": "What it is for. The linter weighs harmless, helpful and honest against each other.",
}


def json_schema() -> dict[str, Any]:  # Any: JSON
    """Draft 7, which every editor reads. Optional fields are left out rather than given as null."""
    head = Constitution.model_json_schema()
    item = head.pop("$defs")["Principle"]
    item["properties"]["id"]["pattern"] = r"^[^\s/\\:,;!?()\[\]{}]+$"  # \w is ASCII only for editors
    item["dependencies"] = {"critique": ["revision"]}
    item["anyOf"] = [{"required": ["revision"]}, {"required": ["judge"]}]
    head["properties"]["principles"] |= {"items": _described(item, _PRINCIPLE), "minItems": 1}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **_described(head, _HEAD)}


def as_file() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _described(schema: dict[str, Any], words: dict[str, str]) -> dict[str, Any]:  # Any: JSON
    properties = {name: {**_plain(field), "description": words[name]} for name, field in schema["properties"].items()}
    return {**schema, "properties": properties}


def _plain(field: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Without the titles that only repeat names, without null."""
    text: dict[str, Any] = next(
        (choice for choice in field.get("anyOf", ()) if choice["type"] != "null"), {}
    )  # Any: JSON
    return {name: value for name, value in {**field, **text}.items() if name not in ("title", "anyOf", "default")}
