"""A record and its pairs -> rows in the shape TRL takes: conversational, `prompt` always a message list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rlaif.export.pairs import Pair
from rlaif.export.settings import Config
from rlaif.types import Record, prompt_id

Row = dict[str, object]
Split = Literal["train", "test"]


def split_of(record: Record, test_fraction: float) -> Split:
    """By the prompt's own hash: it stays on its side when the run grows, and in other runs too."""
    return "test" if int(prompt_id(record.prompt), 16) < test_fraction * 2**64 else "train"


def rows_of(record: Record, pairs: Sequence[Pair]) -> dict[Config, list[Row]]:
    return {
        "preference": [_preference(record, pair) for pair in pairs],
        "sft": _sft(record, pairs),
        "kto": _kto(record, pairs),
    }


def _preference(record: Record, pair: Pair) -> Row:
    chosen, rejected = record.responses[pair.chosen], record.responses[pair.rejected]
    return {
        "prompt": _prompt(record),
        "chosen": _completion(record, pair.chosen),
        "rejected": _completion(record, pair.rejected),
        "id": record.id,
        "category": record.category,
        "p": pair.soft_label,
        "margin": pair.margin,
        "strategy": pair.strategy,
        "principles": list(pair.principles),
        "judges": list(pair.judges),
        "chosen_model": chosen.model,
        "rejected_model": rejected.model,
    }


def _sft(record: Record, pairs: Sequence[Pair]) -> list[Row]:
    """The live revisions of all steps (SL-CAI, section 3 of Bai et al. 2022); without any, the chosen responses.

    A record whose revisions were all filtered out gives nothing: its drafts are what was to be revised.
    """
    revisions = [i for i, response in enumerate(record.responses) if response.revises is not None]
    live = set(record.live())
    kept = [i for i in revisions if i in live and record.responses[i].finish_reason == "stop"]
    rows: dict[str, Row] = {}  # each text once
    for i in kept if revisions else [pair.chosen for pair in pairs]:
        if text := record.responses[i].text.strip():
            rows.setdefault(text, _labelled(record, i, principle=record.responses[i].principle))
    return list(rows.values())


def _kto(record: Record, pairs: Sequence[Pair]) -> list[Row]:
    rows: dict[str, Row] = {}  # a text has one label: that of the first pair it is in
    for pair in pairs:
        for i, label in ((pair.chosen, True), (pair.rejected, False)):
            rows.setdefault(record.responses[i].text.strip(), _labelled(record, i, label=label))
    return list(rows.values())


def _labelled(record: Record, response: int, **columns: object) -> Row:
    completion = _completion(record, response)
    return {
        "prompt": _prompt(record), "completion": completion, **columns, "id": record.id, "category": record.category
    }  # fmt: skip


def _prompt(record: Record) -> list[Row]:
    return [{"role": message.role, "content": message.content} for message in record.prompt]


def _completion(record: Record, response: int) -> list[Row]:
    return [{"role": "assistant", "content": record.responses[response].text}]
