"""What `rlaif constitution lint` and `diff` print: for people on a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text

    from rlaif.authoring.diff import Changes, Redrawn
    from rlaif.authoring.finding import Finding
    from rlaif.constitution import Constitution

MOST_IDS = 8  # of a finding, on the terminal
MOST_OF_A_RULE = 5  # there, too, but for errors


# --- lint ---

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def print_lint(loaded: Constitution, found: list[Finding]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from rlaif.authoring.balance import aim_shares, aims, shares
    from rlaif.authoring.words import AIMS, words_of
    from rlaif.cli.text import said

    console = Console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("principle", overflow="fold")
    for title in ("weight", "revised", "judged"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("for")
    drawn = shares(loaded)
    revise = drawn["critique"] or drawn["revision"]
    for p in loaded.principles:
        serves = aims(p, words_of(loaded.language))
        aimed = ", ".join(aim for aim in AIMS if aim in serves)
        row = (f"{p.weight:g}", _share(revise.get(p.id)), _share(drawn["judge"].get(p.id)), aimed)
        table.add_row(said(p.id), *row)
    console.print(said(f"{loaded.name} {loaded.version}: {len(loaded.principles)} principle(s)", "bold"))
    console.print(table)
    told = ", ".join(f"{aim} {share:.0%}" for aim, share in aim_shares(loaded).items())
    console.print(said(f"by weight: {told}\n"))
    more_of: Counter[str] = Counter()
    for finding, nth in _counted(found):
        if nth > MOST_OF_A_RULE and finding.level != "error":
            more_of[finding.rule] += 1
            continue
        ids = ", ".join(finding.principles[:MOST_IDS])
        more = len(finding.principles) - MOST_IDS
        ids += f" and {more} more" if more > 0 else ""
        head = Text.assemble((finding.level, _COLOURS[finding.level]), f" {finding.rule}{': ' if ids else ''}")
        console.print(head.append_text(said(ids, "bold")))
        console.print(Padding.indent(said(f"{finding.what}\n-> {finding.way_out}"), 2))
    for rule, count in more_of.items():
        console.print(said(f"{count} more of {rule}: --json has them all", "dim"))
    counts = [(level, sum(f.level == level for f in found)) for level in _COLOURS]
    console.print(said(", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts), "bold"))


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _counted(found: list[Finding]) -> Iterator[tuple[Finding, int]]:
    """Each with the so-manieth of its rule that it is."""
    seen: Counter[str] = Counter()
    for finding in found:
        seen[finding.rule] += 1
        yield finding, seen[finding.rule]


def lint_json(loaded: Constitution, found: list[Finding]) -> dict[str, Any]:  # Any: JSON
    from dataclasses import asdict

    from rlaif.authoring.balance import aim_shares, aims, shares
    from rlaif.authoring.words import AIMS, words_of

    drawn = shares(loaded)
    words = words_of(loaded.language)
    principles = [
        {
            "id": p.id,
            "weight": p.weight,
            "tags": p.tags,
            "aims": [aim for aim in AIMS if aim in aims(p, words)],
            "share": {purpose: share[p.id] for purpose, share in drawn.items() if p.id in share},
        }
        for p in loaded.principles
    ]
    return {
        "name": loaded.name,
        "version": loaded.version,
        "fingerprint": loaded.fingerprint,
        "principles": principles,
        "aims": aim_shares(loaded),
        "findings": [asdict(finding) for finding in found],
    }


# --- diff ---

_DRAWN_FOR = {"critique": "critique and revision", "revision": "revision alone", "judge": "judging"}


def print_diff(a: Constitution, b: Constitution, changes: Changes) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    from rlaif.cli.text import said

    console = Console()
    console.print(said(f"{a.name} {a.version} -> {b.name} {b.version}", "bold"))
    if not changes:
        console.print("no difference")
        return
    edits = Table.grid(padding=(0, 1))
    for label, text in _edits(changes):
        edits.add_row(said(label, "bold"), text)
    console.print(edits)
    for reworded in changes.reworded:
        console.print(said(f"reworded {reworded.principle}, {reworded.field}", "bold"))
        console.print(Padding.indent(_word_by_word(reworded.before, reworded.after), 2))
    _print_cost(changes)


def _edits(changes: Changes) -> Iterator[tuple[str, Text]]:
    from rlaif.cli.text import said

    for field in changes.metadata:
        if field.name == "description":
            yield "head", said("description: ").append_text(_word_by_word(field.before, field.after))
        else:
            yield "head", said(f"{field.name}: {field.before} -> {field.after}")
    for names in changes.renamed:
        same = "same texts" if names.alike == 1 else f"{min(names.alike, 0.99):.0%} of the words"
        yield "renamed", said(f"{names.before} -> {names.after} ({same}): all its draws are drawn anew")
    for name in changes.added:
        yield "added", said(f"{name}{_of_draws(changes.redrawn, name)}")
    for name in changes.removed:
        yield "removed", said(f"{name}{_of_draws(changes.redrawn, name)}")
    for weight in changes.weights:
        drawn = _of_draws(changes.redrawn, weight.name)
        yield "weight", said(f"{weight.name}: {weight.before:g} -> {weight.after:g}{drawn}")
    for tags in changes.tags:
        yield "tags", said(f"{tags.name}: {', '.join(tags.before) or '-'} -> {', '.join(tags.after) or '-'}")
    if changes.reordered:
        yield "order", said("another one, which changes no draw")


def _of_draws(redrawn: Iterable[Redrawn], name: str) -> str:
    told = [
        f"{_share(drawn.before.get(name, 0))} -> {_share(drawn.after.get(name, 0))} of {_DRAWN_FOR[drawn.purpose]}"
        for drawn in redrawn
        if (name in drawn.before or name in drawn.after) and not _is_spare(drawn, redrawn)
    ]
    return f"; {', '.join(told)}" if told else ""


def _is_spare(drawn: Redrawn, all_drawn: Iterable[Redrawn]) -> bool:
    """Draws for a revision without a critique are an option; told only where there are no others."""
    return drawn.purpose == "revision" and any(other.purpose == "critique" for other in all_drawn)


def _word_by_word(before: str | None, after: str | None) -> Text:
    """[-what went-] and {+what came+}, in colour where there is one."""
    from rich.text import Text

    from rlaif.authoring.diff import marked
    from rlaif.cli.text import said

    line = Text()
    for kind, words in marked(before or "", after or ""):
        core = words.rstrip()
        space = words[len(core) :]
        if kind == "same":
            line.append_text(said(words))
        elif kind == "removed":
            line.append_text(said(f"[-{core}-]{space}", "red"))
        else:
            line.append_text(said(f"{{+{core}+}}{space}", "green"))
    return line


def _print_cost(changes: Changes) -> None:
    from rich.console import Console
    from rich.table import Table

    from rlaif.cli.text import said

    console = Console()
    if changes.new_language:
        console.print(said("\nThe templates are in another language: every call of a new run is another one.", "bold"))
        return
    if not changes.redrawn:
        return
    console.print(said("\nOf the draws of a run that is generated again", "bold"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("for")
    for title in ("sent again", "other principle", "other words"):
        table.add_column(title, justify="right", no_wrap=True)
    for drawn in changes.redrawn:
        if not _is_spare(drawn, changes.redrawn):
            shares = (f"{drawn.again:.1%}", f"{drawn.moved:.1%}", f"{drawn.reworded:.1%}")
            table.add_row(_DRAWN_FOR[drawn.purpose], *shares)
    console.print(table)
    count = changes.redrawn[0].draws
    console.print(said(f"({count:,} draws of each kind, made as a run makes them, with replacement)"))
    for drawn in changes.redrawn:
        if drawn.chains and not _is_spare(drawn, changes.redrawn):
            console.print(
                said(
                    f"A round reads the one before: of responses revised 4 times, {drawn.chains:.1%} have a round "
                    "that is sent again, and with it the rounds after it and the verdicts on them."
                )
            )


def diff_json(changes: Changes) -> dict[str, Any]:  # Any: JSON
    from dataclasses import asdict

    from rlaif.authoring.diff import marked

    told = asdict(changes)
    for reworded in told["reworded"]:
        reworded["words"] = marked(reworded["before"] or "", reworded["after"] or "")
    return told
