"""A dataset at an address -> a folder with Parquet by configuration and split, a card, and what was left out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlaif.errors import ConfigError
from rlaif.export.folder import digest, replaced
from rlaif.export.parquet import SCHEMAS, Datasets
from rlaif.export.recipes import recipe, recipe_name
from rlaif.export.rows import Row, Split, split_of
from rlaif.export.settings import Config
from rlaif.foreign.columns import shape_of
from rlaif.foreign.read import open_dataset
from rlaif.importing.card import MARKER, About, card
from rlaif.importing.convert import Labelled, Pair, converted, name_of, scale_of
from rlaif.importing.settings import PAIRING, As, ImportSettings
from rlaif.importing.tally import Imported, Tally
from rlaif.types import Messages, Record, prompt_id

STRATEGY = "imported"


def import_dataset(
    address: str,
    to: Path,
    *,
    config: str | None = None,
    split: str | None = None,
    as_: As = "auto",
    columns: Mapping[str, str] | None = None,
    settings: ImportSettings | None = None,
    licence: str | None = None,
) -> Imported:
    """Replaces what an earlier import left in `to`. Memory is flat, but for 64 bits a row and completion.

    Raises ConfigError for what is no preference data, or if no row of it could be used, and when `to` holds something
    else; StoreError when it cannot be written. All leave what is there as it was.
    """
    settings = settings or ImportSettings()
    dataset = open_dataset(address, config, split)
    shape = shape_of(dataset.columns, dataset.first(), roles=columns, pairing=PAIRING[as_])
    if as_ == "hh" and shape.form != "transcript":
        raise ConfigError(f'{address}: {shape}; hh has "\\n\\nHuman: ...\\n\\nAssistant: ..."; leave out --as hh')
    scale = settings.scale or scale_of(dataset, shape)
    settings = settings.model_copy(update={"scale": scale})
    with replaced(to, MARKER) as partial, tempfile.TemporaryDirectory(dir=partial) as scratch:
        given = _given(dataset.splits)
        with (partial / "dropped.jsonl").open("wb") as dropped, Datasets(partial, given) as datasets:
            tally = Tally(dropped)
            said = _Said()
            for one in converted(dataset, shape, settings, tally, Path(scratch)):
                tally.pairs += isinstance(one, Pair)
                in_split = _split(one, given, settings.test_fraction)
                for name, rows in _rows(one, said).items():
                    if settings.writes(name):
                        datasets.write(name, in_split, [_full(name, row) for row in rows])
        if not datasets.rows:
            why = ", ".join(f"{n:,} {reason}" for reason, n in tally.dropped.most_common(3)) or "there are none"
            raise ConfigError(
                f"{address}: no row of {tally.rows:,} could be used ({why}); it was read as {shape}; say otherwise "
                "with --as or --columns"
            )
        written: dict[Config, Mapping[str, int]] = {
            name: {str(split): n for split, n in datasets.rows[name].items()}
            for name in settings.configs
            if name in datasets.rows
        }
        aside = tuple(name for name in dataset.columns if name not in shape.columns)
        imported = Imported(
            to, str(shape), tally.rows, tally.pairs, written, _most(tally.dropped), _most(tally.notes), scale, aside
        )
        content = {name: digest(partial / name) for name in written}
        about = About(address, dataset.config, dataset.splits, licence)
        (partial / "README.md").write_text(card(imported, settings, about, content), encoding="utf-8")
        for name, splits in written.items():
            if "train" in splits and (file := recipe_name(name)):
                (partial / file).write_text(recipe(name, splits), encoding="utf-8")
    return imported


class _Said:
    """All completions so far: one that is in several pairs of a prompt has the label of the first of them."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def new(self, prompt: Messages, completion: Messages) -> bool:
        before = len(self._seen)
        self._seen.add(name_of({"prompt": prompt, "completion": completion}))
        return len(self._seen) > before


def _rows(one: Pair | Labelled, said: _Said) -> dict[Config, list[Row]]:
    """In the shapes that rlaif.export.rows gives a run's own pairs."""
    origin: Row = {"id": prompt_id(one.prompt), "category": one.category}
    prompt = _list(one.prompt)
    if isinstance(one, Labelled):
        completed: Row = {"prompt": prompt, "completion": _list(one.completion)}
        return {
            "kto": [{**completed, "label": one.label, **origin}],
            "sft": [{**completed, **origin}] if one.label else [],
        }
    chosen, rejected = _list(one.chosen), _list(one.rejected)
    preference = {
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        **origin,
        "margin": one.margin,
        "strategy": STRATEGY,
        "principles": [],
        "judges": [],
        "chosen_model": one.models[0],
        "rejected_model": one.models[1],
    }
    whole = {"chosen": prompt + chosen, "rejected": prompt + rejected, "margin": one.margin or 0.0, **origin}
    labelled = [(True, one.chosen, chosen), (False, one.rejected, rejected)]
    new = [(label, completion) for label, turns, completion in labelled if said.new(one.prompt, turns)]
    return {
        "preference": [preference],
        "sft": [{"prompt": prompt, "completion": completion, **origin} for label, completion in new if label],
        "kto": [{"prompt": prompt, "completion": completion, "label": label, **origin} for label, completion in new],
        "reward": [whole],
    }


def _full(config: Config, row: Row) -> Row:
    """With all columns that an export has, so that the two concatenate."""
    return {name: row.get(name) for name in _COLUMNS[config]}


_COLUMNS = {config: tuple(schema.names) for config, schema in SCHEMAS.items()}


# In the name of a split that nobody trains on.
_HELD_OUT = frozenset({"test", "validation", "valid", "val", "eval", "evaluation", "dev"})


def _given(splits: Sequence[str]) -> bool:
    return len(splits) > 1 or not _HELD_OUT.isdisjoint(re.split("[^a-z]+", splits[0].lower()))


def _split(one: Pair | Labelled, given: bool, test_fraction: float) -> Split:
    if given:
        return "train" if one.split.startswith("train") else "test"
    return split_of(Record(prompt_id(one.prompt), one.prompt), test_fraction)


def _list(turns: Messages) -> list[Row]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
