"""`rlaif show RUN [ID]`: a run's records in a list, or one of them with all that a row of its dataset came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlaif.cli.options import RunsDir

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from rlaif.export.provenance import Made
    from rlaif.store import RunFolder
    from rlaif.types import Record, Response, Score, Verdict

Outcome = Literal["ok", "dropped", "failed"]


def show(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    record_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="A record's id, or its first digits.")] = None,
    runs_dir: RunsDir = Path("runs"),
    limit: Annotated[int, typer.Option(min=1, help="How many records the list shows.")] = 20,
    outcome: Annotated[Outcome | None, typer.Option(help="List only the records that ended so.")] = None,
    replies: Annotated[bool, typer.Option("--replies", help="Show what the judges said in full.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The record and its pairs as JSON; a list by lines.")] = False,
) -> None:
    """Read what a run made: the list of its records, or one record as a page.

    The `id` of a row in any of the run's datasets is its record's: the page says which pairs were made of the record,
    by which verdicts, and what the judges replied; or why there is none.
    """
    from itertools import islice

    from rich.console import Console

    from rlaif.cli.pairs import show_pairs
    from rlaif.errors import ConfigError
    from rlaif.runs import existing_run

    folder = existing_run(runs_dir, run)
    console = Console()
    if record_id is None:
        wanted = (record for record in folder.records() if outcome in (None, record.outcome))
        if as_json:
            for record in islice(wanted, limit):
                typer.echo(_json(record))
            return
        if outcome is not None and not any(record.outcome == outcome for record in folder.records()):
            console.print(f"no record of run '{run}' ended as {outcome}")
            return
        shown = list(islice(wanted, limit))
        _list(console, shown, run, len(shown) + sum(1 for _ in wanted))
        return
    found = list(islice((record for record in folder.records() if record.id.startswith(record_id)), 2))
    if not found:
        raise ConfigError(f"no record '{record_id}' in run '{run}'; list them with: rlaif show {run}")
    if len(found) > 1:
        both = " and ".join(record.id for record in found)
        raise ConfigError(f"'{record_id}' begins the id of several records ({both} ...); give more of it")
    made = _made(folder, found[0])
    if as_json:
        typer.echo(_json(found[0], made))
        return
    _page(console, found[0], replies)
    show_pairs(console, made)


def _made(folder: RunFolder, record: Record) -> Made:
    """By the settings of the last export, which the dataset has with it; else by the run's own."""
    from rlaif.export.provenance import exported_with, made_of
    from rlaif.export.ratings import floor_of
    from rlaif.runs import settings_of

    settings = exported_with(folder.dataset) or settings_of(folder).export
    return made_of(record, settings, floor_of(folder.records, settings.quality_floor), folder.dataset)


def _json(record: Record, made: Made | None = None) -> str:
    """All in ASCII: it may be printed to a terminal."""
    import json

    import msgspec

    content = msgspec.to_builtins(record)
    if made is None:
        return json.dumps(content)
    return json.dumps({"record": content, **made.plain()}, indent=2)


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
        more = (said(" ".join((record.category or "").split())), str(len(record.responses)), str(len(record.verdicts)))
        prompt = " ".join(record.prompt[-1].content.split())
        rows.add_row(record.id, said(outcome), *more[: len(rows.columns) - 3], said(prompt))
    if not total:
        console.print("no part is finished yet: a part is written when all of its prompts (1,000 at most) have ended.")
        console.print("What was answered is in the journal: go on with the same generate command.")
        return
    console.print(rows)
    console.print(said(f"{len(records):,} of {total:,} records; read one with: rlaif show {run} ID"))


def _page(console: Console, record: Record, replies: bool) -> None:
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
        if replies and response.reasoning:
            console.print(said(f"reasoning: {response.reasoning}\n", "dim"))
        if response.critique:
            console.print(said(f"critique: {response.critique}\n", "italic"))
        if response.revises is None:
            console.print(said(response.text))
        else:
            before = record.responses[response.revises].text
            console.print(word_diff(before, response.text, coloured=console.color_system is not None))
    _judgements(console, record, replies)


def _judgements(console: Console, record: Record, replies: bool) -> None:
    from rich.rule import Rule

    from rlaif.cli.text import said

    if record.verdicts:
        console.print()
        console.print(Rule(said("verdicts"), align="left", style="dim"))
    for index, verdict in enumerate(record.verdicts):
        console.print(said(f"verdict {index}: {_verdict(verdict)}"))
        if verdict.rationale:
            console.print(said(verdict.rationale, "italic"))
        _replies(console, verdict.replies, replies)
    if record.scores:
        console.print()
        console.print(Rule(said("scores, from -1 (a rating of 1) to 1 (a rating of 9)"), align="left", style="dim"))
    for index in dict.fromkeys(score.response for score in record.scores):
        console.print(said(_scores([score for score in record.scores if score.response == index])))
    for score in record.scores if replies else ():
        console.print(said(f"response {score.response} by {score.principle} ({score.judge})"))
        _replies(console, score.replies, replies)


def _replies(console: Console, texts: Sequence[str], whole: bool) -> None:
    """In the order asked: the beginnings of the first few in a line, or all of them whole."""
    from rlaif.cli.text import said

    if whole:
        for text in texts:
            console.print(said(f"  reply: {text}", "dim"))
    elif texts:
        more = f" and {len(texts) - _REPLIES} more" if len(texts) > _REPLIES else ""
        shown = ", ".join(map(_begins, texts[:_REPLIES]))
        console.print(said(f"  replies: {shown}{more}", "dim"))


_REPLIES, _CHARACTERS = 6, 40


def _begins(text: str) -> str:
    return repr(text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}...")


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
        return f"{between}no vote, {verdict.outcome}"
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
