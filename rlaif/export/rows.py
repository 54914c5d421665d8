"""A record and its pairs -> rows in the shape TRL takes: conversational, `prompt` always a message list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Literal

from rlaif.export.comparisons import Comparisons
from rlaif.export.pairs import Pair
from rlaif.export.ratings import scores_of
from rlaif.export.settings import Config, ExportSettings, SftKind
from rlaif.types import REFUSALS, Record, prompt_id

Row = dict[str, object]
Split = Literal["train", "test"]


def split_of(record: Record, test_fraction: float) -> Split:
    """By the prompt's own hash: it stays on its side when the run grows, and in other runs too."""
    return "test" if int(prompt_id(record.prompt), 16) < test_fraction * 2**64 else "train"


def rows_of(
    record: Record, pairs: Sequence[Pair], settings: ExportSettings, ties: Sequence[Pair] = ()
) -> dict[Config, list[Row]]:
    """`ties` have a soft label and no winner: only `preference_soft` has them, beside the pairs that have one too."""
    soft = [*(pair for pair in pairs if pair.p is not None), *ties] if settings.ties == "soft" else []
    make: dict[Config, Callable[[], list[Row]]] = {
        "preference": lambda: [_preference(record, pair) for pair in pairs],
        "preference_soft": lambda: [_preference(record, pair) for pair in soft],
        "sft": lambda: _sft(record, pairs, settings.sft),
        "kto": lambda: _kto(record, pairs),
        "reward": lambda: [_reward(record, pair) for pair in pairs],
        "scores": lambda: _scores(record),
        "prompts": lambda: [{"prompt": _prompt(record), **_from(record)}],
    }
    return {config: make[config]() for config in settings.configs}


def _preference(record: Record, pair: Pair) -> Row:
    chosen, rejected = record.responses[pair.chosen], record.responses[pair.rejected]
    return {
        "prompt": _prompt(record),
        "chosen": _completion(record, pair.chosen),
        "rejected": _completion(record, pair.rejected),
        **_from(record),
        "p": pair.soft_label,
        "margin": pair.margin,
        "strategy": pair.strategy,
        "principles": list(pair.principles),
        "judges": list(pair.judges),
        "chosen_model": chosen.model,
        "rejected_model": rejected.model,
    }


def _reward(record: Record, pair: Pair) -> Row:
    """Whole conversations. RewardTrainer subtracts `margin` inside the sigmoid and takes no None."""
    return {
        "chosen": _prompt(record) + _completion(record, pair.chosen),
        "rejected": _prompt(record) + _completion(record, pair.rejected),
        "margin": pair.reward_margin,
        **_from(record),
        "p": pair.soft_label,
    }


def _sft(record: Record, pairs: Sequence[Pair], kinds: Iterable[SftKind]) -> list[Row]:
    """The live revisions of all steps (SL-CAI, section 3 of Bai et al. 2022), or what else `kinds` names.

    Where revisions come first, a record whose revisions were all filtered out gives nothing: its drafts are
    what was to be revised.
    """
    revised = any(response.revises is not None for response in record.responses)
    answers = [i for i in record.live() if record.responses[i].finish_reason not in REFUSALS]
    found: dict[SftKind, list[int] | None] = {  # None: not of this kind, try the next
        "revisions": [i for i in answers if record.responses[i].revises is not None] if revised else None,
        "chosen": [pair.chosen for pair in pairs] or None,
        "drafts": None if revised else [i for i in answers if record.responses[i].side != "weak"],
    }
    rows: dict[str, Row] = {}  # each text once
    for i in next((of_kind for kind in kinds if (of_kind := found[kind]) is not None), []):
        response = record.responses[i]
        if text := response.text.strip():
            truncated = response.finish_reason == "length"
            rows.setdefault(text, _labelled(record, i, principle=response.principle, truncated=truncated))
    return list(rows.values())


def _kto(record: Record, pairs: Sequence[Pair]) -> list[Row]:
    rows: dict[str, Row] = {}  # a text has one label: that of the first pair it is in
    for pair in pairs:
        for i, label in ((pair.chosen, True), (pair.rejected, False)):
            rows.setdefault(record.responses[i].text.strip(), _labelled(record, i, label=label))
    return list(rows.values())


def _scores(record: Record) -> list[Row]:
    """The live responses that a judge rated; a failed rating is left out."""
    if not record.scores:
        return []
    rates = Comparisons(record).win_rates()
    return [
        _labelled(
            record,
            i,
            score=fmean(value for _, value in scores),
            scores=[{"judge": score.judge, "principle": score.principle, "value": value} for score, value in scores],
            win_rate=rates.get(i),
            model=record.responses[i].model,
        )
        for i in record.live()
        if (scores := scores_of(record, i))
    ]


def _labelled(record: Record, response: int, **columns: object) -> Row:
    return {"prompt": _prompt(record), "completion": _completion(record, response), **columns, **_from(record)}


def _from(record: Record) -> Row:
    return {"id": record.id, "category": record.category}


def _prompt(record: Record) -> list[Row]:
    return [{"role": message.role, "content": message.content} for message in record.prompt]


def _completion(record: Record, response: int) -> list[Row]:
    return [{"role": "assistant", "content": record.responses[response].text}]
