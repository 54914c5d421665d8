"""`rlaif import`: a dataset that others made, in the form that TRL and our own commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlaif.cli.options import from_the_start, settings

if TYPE_CHECKING:
    from rlaif.importing import Imported

AsOption = Literal["auto", "hh", "pairs", "ultrafeedback", "nectar", "ranking", "ratings", "thumbs"]


def import_(
    address: Annotated[
        str, typer.Argument(help="A JSONL, JSON, CSV or Parquet file; a folder, FOLDER#CONFIG; OWNER/NAME of the hub.")
    ],
    to: Annotated[Path, typer.Option(help="The folder to make.")],
    as_: Annotated[AsOption, typer.Option("--as", help="What it is, if not to be found out.")] = "auto",
    config: Annotated[str | None, typer.Option(help="The configuration, of several.")] = None,
    split: Annotated[str | None, typer.Option(help="One split only. [all]")] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="ROLE=NAME,...", help="Which column is what: prompt, chosen, label, ...")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="The data's licence, for the card, as an SPDX id.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Like min_margin=0.2. Repeatable.")
    ] = None,
) -> None:
    """Turn any preference dataset into a folder for TRL: pairs, rankings, ratings or thumbs up and down.

    The folder has preference, sft, kto and reward rows as they fit, a card, and dropped.jsonl with all that was left
    out and why. Settings: pick (best_vs_worst, all), max_pairs_per_prompt, min_margin, scale, test_fraction, configs.
    """
    from rlaif.cli.generate import mapping
    from rlaif.importing import ImportSettings, import_dataset

    with from_the_start():
        done = import_dataset(
            address,
            to,
            config=config,
            split=split,
            as_=as_,
            columns=mapping("columns", columns),
            settings=settings(ImportSettings, assignments),
            licence=licence,
        )
    _say(done)


def _say(done: Imported) -> None:
    from rlaif.cli.text import harmless
    from rlaif.importing.tally import NOTES, REASONS

    typer.echo(harmless(f"read as {done.shape}"))
    if done.aside:
        typer.echo(harmless(f"columns left aside: {', '.join(done.aside)}"))
    gave = f"{done.pairs:,} pairs" if done.pairs else "labelled answers"
    typer.echo(f"{done.rows:,} rows read, {gave}")
    for config, splits in done.written.items():
        typer.echo(f"  {config}: " + ", ".join(f"{split} {n:,}" for split, n in splits.items()))
    if done.dropped:
        typer.echo(harmless(f"left out, see {done.folder / 'dropped.jsonl'}:"))
    for reason, n in done.dropped.items():
        typer.echo(f"  {n:,} {reason}: {REASONS[reason]}")
    for note, n in done.notes.items():
        typer.echo(f"  {n:,} {note}: {NOTES[note]}")
    typer.echo(harmless(f"dataset: {done.folder}"))
