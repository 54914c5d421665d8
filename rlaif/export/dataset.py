"""Records -> the dataset folder: Parquet by configuration and split, a card, and TRL's settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rlaif.export.card import MARKER, About, card
from rlaif.export.folder import copied_audit, digest, replaced
from rlaif.export.pairs import pairs_of
from rlaif.export.ratings import score_of
from rlaif.export.recipes import recipe, recipe_name
from rlaif.export.rows import rows_of, split_of
from rlaif.export.settings import ExportSettings
from rlaif.export.tally import ExportSummary, Tally
from rlaif.statistics import quantile
from rlaif.types import Record


def export_dataset(
    records: Callable[[], Iterable[Record]],
    folder: Path,
    settings: ExportSettings,
    *,
    about: About,
    audit: Path | None = None,
) -> ExportSummary:
    """Write the dataset, replacing what an earlier export left in `folder`; calls no model.

    `records` is called once, or twice when a run-wide quantile is needed first; memory stays flat.
    `audit` is a folder with the audit of the judges, if there was one: it goes into the dataset and into its card.
    What the records have no evidence for is counted, not refused: the rest of a paid run is still exported.
    Raises ConfigError when `folder` holds something else, StoreError when it cannot be written; both
    leave what is there as it was.
    """
    from rlaif.export.parquet import Datasets  # late: pyarrow takes 0.2 s to import

    floor = _floor(records, settings.quality_floor)
    tally = Tally()
    with replaced(folder, MARKER) as partial:
        with Datasets(partial) as datasets:
            for record in records():
                tally.read(record)
                if record.outcome != "ok":
                    continue
                pairs, reason = pairs_of(record, settings, floor)
                tally.add(record, pairs, reason)
                split = split_of(record, settings.test_fraction)
                for config, rows in rows_of(record, pairs, settings).items():
                    datasets.write(config, split, rows)
        written = {config: datasets.rows[config] for config in settings.configs if config in datasets.rows}
        summary = tally.summary(folder, written)
        report = None if audit is None else copied_audit(audit, partial)
        content = {config: digest(partial / config) for config in written}
        (partial / "README.md").write_text(card(summary, settings, about, content, report), encoding="utf-8")
        for config, splits in written.items():
            if name := recipe_name(config):
                (partial / name).write_text(recipe(config, splits), encoding="utf-8")
    return summary


def _floor(records: Callable[[], Iterable[Record]], q: float | None) -> float | None:
    """The run-wide quantile of the candidates' mean scores; the least score there is if none was rated."""
    if q is None:
        return None
    ended_well = (record for record in records() if record.outcome == "ok")
    scores = [s for record in ended_well for i in record.candidates() if (s := score_of(record, i)) is not None]
    return quantile(scores, q) if scores else -1.0
