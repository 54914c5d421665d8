"""`rlaif push RUN REPO`: a run's dataset on the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rlaif.cli.options import RunsDir


def push(
    run: Annotated[str, typer.Argument(help="Name of the run.")],
    repo: Annotated[str, typer.Argument(help="Dataset on the hub, as OWNER/NAME; made if it is not there.")],
    runs_dir: RunsDir = Path("runs"),
    public: Annotated[bool, typer.Option("--public", help="Everyone may read it. [private]")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files; needs no token and sends nothing.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    branch: Annotated[str | None, typer.Option(help="Commit there, not to main; made if it is not there.")] = None,
    pr: Annotated[bool, typer.Option("--pr", help="Open a pull request instead of committing.")] = False,
) -> None:
    """Put a run's dataset on the Hugging Face hub, as one commit; private unless --public.

    The token is that of HF_TOKEN or of `hf auth login`, and is never shown. Check the data first: rlaif lint.
    """
    from rlaif.cli.text import harmless
    from rlaif.publish import checked_target, files_of, not_sent
    from rlaif.publish import push as push_dataset
    from rlaif.runs import existing_run

    folder = existing_run(runs_dir, run)
    files = files_of(folder)
    total = f"{len(files)} files, {_size(sum(file.size for file in files))}"
    if others := not_sent(folder):
        names = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else "")
        typer.echo(harmless(f"in the folder, but not written by rlaif, and not sent: {names}"), err=True)
    if dry_run:
        checked_target(repo, branch, pr)
        width = max(len(file.path) for file in files)
        for file in files:
            typer.echo(harmless(f"{file.path:{width}}  {_size(file.size):>8}"))
        where = f"{repo} ({'public' if public else 'private'})" + (f", branch {branch}" if branch else "")
        where += ", as a pull request" if pr else ""
        typer.echo(harmless(f"{total}, for the dataset {where}; nothing was sent"))
        typer.echo(harmless(f"check it before it is out: rlaif lint {folder.dataset}"))
        return
    if not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
    pushed = push_dataset(folder, repo, public=public, message=message, branch=branch, pull_request=pr)
    for notice in pushed.notices:
        typer.echo(harmless(f"the hub says: {notice}"), err=True)
    if not pushed.changed:
        typer.echo(harmless(f"{repo} has all of it already; nothing was changed"))
        return
    gone = f"; {len(pushed.removed)} of an earlier push removed" if pushed.removed else ""
    typer.echo(harmless(f"{total}{gone}: {pushed.url}"))
    open_to = "private" if pushed.private else "public"
    config = min((file.path.partition("/")[0] for file in files if "/" in file.path), key=_first, default="")
    typer.echo(harmless(f'{open_to}; read it with: datasets.load_dataset("{repo}", "{config}")'))


_NAMED = 5


def _first(config: str) -> bool:
    return config != "preference"


def _size(size: int) -> str:
    """As a folder's listing has it: 1.2 MB."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.1f} {unit}"
    return f"{size} B"
