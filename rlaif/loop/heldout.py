"""Prompts that a model is measured by and not trained on: split off, or checked to be others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from rlaif import hub
from rlaif.errors import ConfigError
from rlaif.evaluate.asking import prompt_text
from rlaif.evaluate.prompts import PromptSet
from rlaif.hygiene.contamination import Evals
from rlaif.loop.plan import Place
from rlaif.loop.settings import ROUND, LoopSettings, pipeline_of
from rlaif.loop.steps import writing
from rlaif.source import PromptReader, Prompts
from rlaif.store import write_whole
from rlaif.train.data import gathered
from rlaif.types import Record

_SEEN = 0.05  # the share of a set that may look like what is trained on: common questions do
_SAFE, _UNSAFE = "borderline", "redteam"  # what `rlaif eval` takes where nothing is given


def split(settings: LoopSettings, place: Place) -> None:
    """Write the two halves of `generate.prompts` where `evaluate.hold_out` is set; a prompt's half goes by its hash.

    One for the rounds that says most of what a held-out one does is in neither.
    """
    if settings.evaluate is None or settings.evaluate.hold_out is None or place.held_out.is_file():
        return
    rounds: list[Record] = []
    held_out: list[Record] = []
    for record in _generated_from(settings, None):
        draw = int.from_bytes(blake2b(record.id.encode(), digest_size=8, person=b"held out").digest(), "big") / 2**64
        (held_out if draw < settings.evaluate.hold_out else rounds).append(record)
    items = Evals([prompt_text(record) for record in held_out])
    halves = [record for record in rounds if items.hit(prompt_text(record)) is None], held_out
    if not all(halves):
        raise ConfigError(
            f"evaluate.hold_out: {settings.evaluate.hold_out:g} of {len(rounds) + len(held_out)} prompts leaves one "
            "half empty; give more prompts or another share"
        )
    with writing(place.prompts):
        place.prompts.mkdir(parents=True, exist_ok=True)
    for path, records in zip((place.prompts_of_rounds, place.held_out), halves, strict=True):
        write_whole(path, b"".join(map(_line, records)))


def check_held_out(settings: LoopSettings, runs_dir: Path) -> None:
    """Raises ConfigError where a model would be measured by what it was trained on, or the data of a step cannot be."""
    data = list(_data(settings, runs_dir))
    asked = settings.evaluate
    if asked is None or asked.allow_seen:
        return
    # What is held out is drawn from all prompts.
    records = _generated_from(settings, settings.generate.limit if asked.hold_out is None else None)
    generated = [prompt_text(record) for record in records]
    trained = [*((text,) for text in generated), *data]
    sets = [("safe", asked.safe or _SAFE, asked.options, "-safe")]
    if asked.hold_out is None:
        sets.append(("unsafe", asked.unsafe or _UNSAFE, asked.options, "-unsafe"))
    else:
        _check("hold_out", "generate.prompts", generated, data)
    if asked.compare is not None:
        sets.append(("compare.prompts", asked.compare.prompts, asked.compare.options, ""))
    for field, name, options, of in sets:
        if not name.startswith(hub.PREFIX):
            columns, where = (_mapping(options, f"{what}{of}") for what in ("columns", "where"))
            _check(field, name, list(_texts(PromptSet(name, columns, where))), trained)


def _check(field: str, name: str, texts: Sequence[str], trained: Iterable[tuple[str, ...]]) -> None:
    items = Evals(texts)
    seen = {hit.item for row in trained if (hit := items.hit(*row)) is not None}
    if len(seen) > _SEEN * len(texts):
        raise ConfigError(
            f"evaluate.{field}: {len(seen)} of the {len(texts)} prompts of {name} are among what is trained on, the "
            f"prompts of `generate` and `data` of `train`, like '{texts[min(seen)][:80]}'; such figures say nothing of "
            "other prompts. Name others, or let some of generate.prompts be held out (evaluate.hold_out: 0.25); "
            "evaluate.allow_seen: true takes them all the same"
        )


def _data(settings: LoopSettings, runs_dir: Path) -> Iterator[tuple[str, ...]]:
    """The texts of each row that trains beside the rounds' own. Raises ConfigError for data that cannot be used."""
    for step in settings.train:
        if not step.data:
            continue
        try:
            rows = gathered(step.data, step.method, runs_dir, soft=step.trl()[1]).train
        except ConfigError as error:
            raise ConfigError(f"train.{step.method}.data: {error}") from None
        for row in rows:
            yield tuple(text for value in row.values() for text in _said(value))


def _said(value: object) -> Iterator[str]:
    """Text, or the turns of a conversation."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (turn["content"] for turn in value if isinstance(turn, dict) and "content" in turn)


def _generated_from(settings: LoopSettings, limit: int | None) -> Iterator[Record]:
    """The prompts of all rounds, without those on the hub; `limit` is a round's."""
    prompts = settings.generate.prompts
    if prompts is None:
        sets = [pipeline_of(settings)[0].prompts]
    else:
        names = dict.fromkeys(prompts.replace(ROUND, str(number + 1)) for number in range(settings.rounds))
        sets = [(Prompts(path=name),) for name in names]
    for of_round in sets:
        if local := tuple(one for one in of_round if not one.path.startswith(hub.PREFIX)):
            yield from PromptReader(local, limit)


def _line(record: Record) -> bytes:
    row = {"prompt": [{"role": turn.role, "content": turn.content} for turn in record.prompt]}
    category = {} if record.category is None else {"category": record.category}
    return msgspec.json.encode({**row, **category}) + b"\n"


def _texts(prompts: PromptSet) -> Iterator[str]:
    for line in prompts.lines():
        said = msgspec.json.decode(line)["prompt"]
        yield said if isinstance(said, str) else "\n".join(turn["content"] for turn in said)


def _mapping(options: dict[str, Any], name: str) -> dict[str, str]:  # Any: options of the command, checked by it
    """NAME=VALUE,NAME=VALUE of an option."""
    pairs = (pair.rpartition("=") for pair in str(options.get(name, "")).split(",") if "=" in pair)
    return {key.strip(): value.strip() for key, _, value in pairs}
