"""`rlaif show RUN [ID]`: a run's records in a list, or one of them as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from rlaif.types import Record, Response, Score, Verdict

Outcome = Literal["ok", "dropped", "failed"]
RUNS_DIR = typer.Option(help="Folder of all runs and of the journal they share.")


def show(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    record_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="A record's id, or its first digits.")] = None,
    runs_dir: Annotated[Path, RUNS_DIR] = Path("runs"),
    limit: Annotated[int, typer.Option(min=1, help="How many records the list shows.")] = 20,
    outcome: Annotated[Outcome | None, typer.Option(help="List only the records that ended so.")] = None,
) -> None:
    """Read what a run made: the list of its records, or one record as a page."""
    from itertools import islice

    from rich.console import Console

    from rlaif.errors import ConfigError
    from rlaif.runs import existing_run

    folder = existing_run(runs_dir, run)
    console = Console()
    if record_id is None:
        if outcome is not None and not any(record.outcome == outcome for record in folder.records()):
            console.print(f"no record of run '{run}' ended as {outcome}")
            return
        wanted = (record for record in folder.records() if outcome in (None, record.outcome))
        shown = list(islice(wanted, limit))
        _list(console, shown, run, len(shown) + sum(1 for _ in wanted))
        return
    found = list(islice((record for record in folder.records() if record.id.startswith(record_id)), 2))
    if not found:
        raise ConfigError(f"no record '{record_id}' in run '{run}'; list them with: rlaif show {run}")
    if len(found) > 1:
        both = " and ".join(record.id for record in found)
        raise ConfigError(f"'{record_id}' begins the id of several records ({both} ...); give more of it")
    _page(console, found[0])


# Narrower terminals show less: a prompt should be readable, and an id that is cut cannot be copied.
_WITH_CATEGORY, _WITH_COUNTS = 80, 110


def _list(console: Console, records: list[Record], run: str, total: int) -> None:
    from rich import box
    from rich.table import Table

    from rlaif.cli.text import said

    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    rows.add_column("id", no_wrap=True, min_width=16)
    rows.add_column("outcome", max_width=24)
    if console.width >= _WITH_CATEGORY:
        rows.add_column("category", max_width=18, no_wrap=True, overflow="ellipsis")
    if console.width >= _WITH_COUNTS:
        rows.add_column("responses", justify="right", no_wrap=True)
        rows.add_column("verdicts", justify="right", no_wrap=True)
    rows.add_column("prompt", overflow="ellipsis", no_wrap=True, ratio=1)
    for record in records:
        outcome = f"{record.outcome}: {record.reason}" if record.reason else f"{record.outcome}"
        more = (said(record.category or ""), str(len(record.responses)), str(len(record.verdicts)))
        prompt = " ".join(record.prompt[-1].content.split())
        rows.add_row(record.id, said(outcome), *more[: len(rows.columns) - 3], said(prompt))
    if not total:
        console.print("no part is finished yet: a part is written when all of its prompts (1,000 at most) have ended.")
        console.print("What was answered is in the journal: go on with the same generate command.")
        return
    console.print(rows)
    console.print(said(f"{len(records):,} of {total:,} records; read one with: rlaif show {run} ID"))


def _page(console: Console, record: Record) -> None:
    from rich.rule import Rule

    from rlaif.cli.text import said

    console.print(Rule(f"record {record.id}"))
    about = [record.outcome or "unfinished", record.stage, record.reason, record.detail, record.category, record.source]
    console.print(said(" | ".join(part for part in about if part), "dim"))
    for message in record.prompt:
        console.print(said(f"\n{message.role}", "bold"))
        console.print(said(message.content))
    dropped = {drop.response: drop.reason for drop in record.drops}
    for index, response in enumerate(record.responses):
        kind = _kind(response)
        reason = f", dropped: {dropped[index]}" if index in dropped else ""
        console.print()
        console.print(Rule(said(f"response {index}: {kind}, {response.model}{reason}"), align="left", style="dim"))
        if response.critique:
            console.print(said(f"critique: {response.critique}\n", "italic"))
        if response.revises is None:
            console.print(said(response.text))
        else:
            before = record.responses[response.revises].text
            console.print(word_diff(before, response.text, coloured=console.color_system is not None))
    if record.verdicts:
        console.print()
        console.print(Rule(said("verdicts"), align="left", style="dim"))
    for verdict in record.verdicts:
        console.print(said(_verdict(verdict)))
        if verdict.rationale:
            console.print(said(verdict.rationale, "italic"))
    if record.scores:
        console.print()
        console.print(Rule(said("scores, from -1 (a rating of 1) to 1 (a rating of 9)"), align="left", style="dim"))
    for index in dict.fromkeys(score.response for score in record.scores):
        console.print(said(_scores([score for score in record.scores if score.response == index])))


def _kind(response: Response) -> str:
    if response.revises is not None:
        return f"revision of {response.revises} by {response.principle}"
    if response.side is None:
        return "draft"
    if response.principle is None:
        return f"{response.side} side"
    return f"{response.side} side, {'by' if response.side == 'strong' else 'against'} {response.principle}"


def _scores(scores: Sequence[Score]) -> str:
    """All ratings of one response: their mean, then each."""
    rated = [(score.value, score.weight) for score in scores if score.value is not None]
    mean = f"{fmean(*zip(*rated, strict=True)):+.2f} on average" if rated else "no rating"
    each = [f"{s.principle} {'none' if s.value is None else f'{s.value:+.2f}'}" for s in scores]
    judges = ", ".join(dict.fromkeys(score.judge for score in scores))
    return f"response {scores[0].response}: {mean} ({judges}): {', '.join(each)}"


def _verdict(verdict: Verdict) -> str:
    between = f"{verdict.first} against {verdict.second} by {verdict.principle} ({verdict.judge}): "
    p = verdict.p_first
    if p is None or verdict.p_ab is None or verdict.p_ba is None:
        return f"{between}no vote, {verdict.outcome}; replies {list(verdict.replies)}"
    result = "a tie" if p == 0.5 else f"{verdict.first if p > 0.5 else verdict.second} wins"
    agreed = "both orders agree" if verdict.consistent else "the orders disagree"
    return (
        f"{between}{result}, {agreed}; p({verdict.first}) = {p:.2f}, "
        f"{verdict.p_ab:.2f} shown first and {verdict.p_ba:.2f} second"
    )


def word_diff(before: str, after: str, *, coloured: bool = True) -> Text:
    """`after`, with what is new in green and what is gone struck through in red; else as [-gone-] {+new+}.

    Texts that have little in common are not compared: only `after` is shown.
    """
    from difflib import SequenceMatcher

    from rich.text import Text

    from rlaif.cli.text import harmless, said

    old, new = harmless(before).split(" "), harmless(after).split(" ")
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    if matcher.ratio() < _ALIKE:
        return said(after)
    text = Text()
    for tag, i, j, k, m in matcher.get_opcodes():
        gone, come = " ".join(old[i:j]), " ".join(new[k:m])
        if tag == "equal":
            text.append(f"{come} ")
            continue
        if gone:
            text.append(gone if coloured else f"[-{gone}-]", style="red strike").append(" ")
        if come:
            text.append(come if coloured else f"{{+{come}+}}", style="green").append(" ")
    return text


# Below this share of common words a difference is harder to read than the new text.
_ALIKE = 0.4
