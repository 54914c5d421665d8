"""Prompts that a model is measured by and not trained on: split off, or checked to be others."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from rlaif import hub
from rlaif.errors import ConfigError
from rlaif.evaluate.prompts import PromptSet
from rlaif.hygiene.contamination import Evals
from rlaif.loop.plan import Place
from rlaif.loop.settings import ROUND, LoopSettings, pipeline_of
from rlaif.source import PromptReader, Prompts
from rlaif.store import write_whole
from rlaif.types import Record

_SEEN = 0.05  # the share of a set that may look like prompts of `generate`: common questions do
_SAFE, _UNSAFE = "borderline", "redteam"  # what `rlaif eval` takes where nothing is given


def split(settings: LoopSettings, place: Place) -> None:
    """Write the two halves of `generate.prompts` where `evaluate.hold_out` is set; a prompt's half goes by its hash."""
    if settings.evaluate is None or settings.evaluate.hold_out is None or place.held_out.is_file():
        return
    halves: tuple[list[bytes], list[bytes]] = ([], [])
    for record in _generated_from(settings, None):
        draw = int.from_bytes(blake2b(record.id.encode(), digest_size=8, person=b"held out").digest(), "big") / 2**64
        row = {"prompt": [{"role": turn.role, "content": turn.content} for turn in record.prompt]}
        category = {} if record.category is None else {"category": record.category}
        halves[draw < settings.evaluate.hold_out].append(msgspec.json.encode({**row, **category}) + b"\n")
    if not all(halves):
        raise ConfigError(
            f"evaluate.hold_out: {settings.evaluate.hold_out:g} of {sum(map(len, halves))} prompts leaves one half "
            "empty; give more prompts or another share"
        )
    place.prompts.mkdir(parents=True, exist_ok=True)
    for path, rows in zip((place.prompts_of_rounds, place.held_out), halves, strict=True):
        write_whole(path, b"".join(rows))


def check_held_out(settings: LoopSettings) -> None:
    """Raises ConfigError where a model would be measured by prompts that it was trained on."""
    asked = settings.evaluate
    if asked is None or asked.allow_seen:
        return
    sets = [("safe", asked.safe or _SAFE, asked.options, "-safe")]
    if asked.hold_out is None:
        sets.append(("unsafe", asked.unsafe or _UNSAFE, asked.options, "-unsafe"))
    if asked.compare is not None:
        sets.append(("compare.prompts", asked.compare.prompts, asked.compare.options, ""))
    records = _generated_from(settings, settings.generate.limit)
    trained = ["\n".join(turn.content for turn in record.prompt) for record in records]
    for field, name, options, of in sets:
        if name.startswith(hub.PREFIX):
            continue
        columns, where = (_mapping(options, f"{what}{of}") for what in ("columns", "where"))
        texts = list(_texts(PromptSet(name, columns, where)))
        items = Evals(texts)
        seen = {hit.item for text in trained if (hit := items.hit(text)) is not None}
        if len(seen) > _SEEN * len(texts):
            raise ConfigError(
                f"evaluate.{field}: {len(seen)} of the {len(texts)} prompts of {name} are prompts of `generate`, like "
                f"'{texts[min(seen)][:80]}'; a model is not measured by what it was trained on. Name other prompts, or "
                "let some of generate.prompts be held out (evaluate.hold_out: 0.25); evaluate.allow_seen: true takes "
                "them all the same"
            )


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


def _texts(prompts: PromptSet) -> Iterator[str]:
    for line in prompts.lines():
        said = msgspec.json.decode(line)["prompt"]
        yield said if isinstance(said, str) else "\n".join(turn["content"] for turn in said)


def _mapping(options: dict[str, Any], name: str) -> dict[str, str]:  # Any: options of the command, checked by it
    """NAME=VALUE,NAME=VALUE of an option."""
    pairs = (pair.rpartition("=") for pair in str(options.get(name, "")).split(",") if "=" in pair)
    return {key.strip(): value.strip() for key, _, value in pairs}
