"""From a record to what was made of it: its pairs and the verdicts behind them, or why there is none; its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any  # plain JSON

import yaml

from rlaif.export.pairs import Pair
from rlaif.export.settings import ExportSettings
from rlaif.export.strategies import found_in
from rlaif.types import Record


@dataclass(frozen=True, slots=True)
class PairMade:
    """`verdicts` are the indices of the record's verdicts on the two; `exported`: None if the dataset cannot tell."""

    pair: Pair
    verdicts: tuple[int, ...]
    exported: bool | None

    def plain(self) -> dict[str, Any]:
        more = {"by": self.pair.by, "soft_label": self.pair.soft_label, "verdicts": list(self.verdicts)}
        return asdict(self.pair) | more | {"exported": self.exported}


@dataclass(frozen=True, slots=True)
class Made:
    """`no_pair` is the reason where there is none; `rows` are those with the record's id, by "preference train"."""

    pairs: tuple[PairMade, ...]
    ties: tuple[PairMade, ...]
    no_pair: str | None
    rows: Mapping[str, int]

    def plain(self) -> dict[str, Any]:
        return {
            "pairs": [pair.plain() for pair in self.pairs],
            "ties": [tie.plain() for tie in self.ties],
            "no_pair": self.no_pair,
            "rows": dict(self.rows),
        }


def made_of(record: Record, settings: ExportSettings, floor: float | None, dataset: Path) -> Made:
    """`floor` is the run's value of `settings.quality_floor`; `dataset` is the folder exported with these settings."""
    rows = _rows(dataset, record.id)
    if record.outcome != "ok":
        return Made((), (), None, _counted(rows))
    found = found_in(record, settings, floor)
    texts = {name: {(_said(row["chosen"]), _said(row["rejected"])) for row in of} for name, of in _paired(rows)}

    def made(pair: Pair, config: str) -> PairMade:
        two = {pair.chosen, pair.rejected}
        on_them = (i for i, verdict in enumerate(record.verdicts) if {verdict.first, verdict.second} == two)
        said = record.responses[pair.chosen].text, record.responses[pair.rejected].text
        known = [texts.get(f"{config} {split}", set()) for split in ("train", "test")]
        written = (dataset / config).is_dir()
        return PairMade(pair, tuple(on_them), any(said in some for some in known) if written else None)

    return Made(
        tuple(made(pair, "preference") for pair in found.pairs),
        tuple(made(tie, "preference_soft") for tie in found.ties),
        found.reason,
        _counted(rows),
    )


def exported_with(dataset: Path) -> ExportSettings | None:
    """The settings of the last export, which the dataset has with it; None if it is an older version's."""
    try:
        pipeline = yaml.safe_load((dataset / "pipeline.yaml").read_text(encoding="utf-8"))
        return ExportSettings.model_validate(pipeline["export"])
    except (OSError, LookupError, TypeError, ValueError, yaml.YAMLError):
        return None


Rows = dict[str, list[dict[str, Any]]]  # "preference train" -> rows


def _rows(dataset: Path, record_id: str) -> Rows:
    """Those of the record; of each row group only what the statistics of `id` do not rule out is decoded."""
    found: Rows = {}
    for path in sorted(dataset.glob("*/*.parquet")):
        from pyarrow import parquet  # late: takes 0.2 s to import

        table = parquet.read_table(path, filters=[("id", "=", record_id)], partitioning=None)
        if table.num_rows:
            found.setdefault(f"{path.parent.name} {path.name.partition('-')[0]}", []).extend(table.to_pylist())
    return found


def _counted(rows: Rows) -> dict[str, int]:
    return {name: len(some) for name, some in rows.items()}


def _paired(rows: Rows) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    return ((name, some) for name, some in rows.items() if name.startswith("preference"))


def _said(messages: list[dict[str, str]]) -> str:
    return messages[-1]["content"]
