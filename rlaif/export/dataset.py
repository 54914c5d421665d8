"""Records -> the dataset folder: Parquet by configuration and split, a card, and TRL's settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rlaif.export.card import MARKER, About, card, documents
from rlaif.export.folder import copied_audit, digest, replaced
from rlaif.export.mix import Mix
from rlaif.export.recipes import recipe, recipe_name
from rlaif.export.rows import rows_of, split_of
from rlaif.export.selection import selected
from rlaif.export.settings import ExportSettings
from rlaif.export.tally import ExportSummary, Tally
from rlaif.types import Record


def export_dataset(
    records: Callable[[], Iterable[Record]],
    folder: Path,
    settings: ExportSettings,
    *,
    about: About,
    policy: str | None = None,
    audit: Path | None = None,
) -> ExportSummary:
    """Write the dataset, replacing what an earlier export left in `folder`; calls no model.

    `records` is called once, and once more for a run-wide quantile and for shares of all pairs; memory stays flat.
    `policy` is the name of the run's policy, for `min_on_policy`.
    `audit` is a folder with the audit of the judges, if there was one: it goes into the dataset and into its card.
    What the records have no evidence for is counted, not refused: the rest of a paid run is still exported.
    Raises ConfigError when `folder` holds something else, StoreError when it cannot be written; both
    leave what is there as it was.
    """
    from rlaif.export.parquet import Datasets  # late: pyarrow takes 0.2 s to import

    tally, mix = Tally(), Mix()
    with replaced(folder, MARKER) as partial:
        with Datasets(partial) as datasets:
            for record, found, why in selected(records, settings, policy):
                exported = tally.add(record, found, why)
                if record.outcome != "ok":
                    continue
                mix.add(record, exported.pairs)
                split = split_of(record, settings.test_fraction)
                for config, rows in rows_of(record, exported.pairs, settings, exported.ties).items():
                    datasets.write(config, split, rows)
        written = {config: datasets.rows[config] for config in settings.configs if config in datasets.rows}
        summary = tally.summary(folder, written)
        report = None if audit is None else copied_audit(audit, partial)
        content = {config: digest(partial / config) for config in written}
        texts = {"README.md": card(summary, settings, about, content, report, mix), **documents(summary, about)}
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        for config, splits in written.items():
            if file := recipe_name(config):
                (partial / file).write_text(recipe(config, splits), encoding="utf-8")
    return summary
