"""`rlaif constitution`: check, show, lint, diff, import, export, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

constitution = typer.Typer(
    help="Check, read, lint, compare, import and export constitutions.", no_args_is_help=True, rich_markup_mode=None
)
File = Annotated[str, typer.Argument(help="A YAML file or a bundled name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@constitution.command("check")
def check(file: File) -> None:
    """Say whether a constitution is valid; if not, in which lines it is wrong."""
    from rlaif.cli.text import harmless
    from rlaif.constitution import load_constitution

    loaded = load_constitution(file)
    count = f"{len(loaded.principles)} principle{'s' * (len(loaded.principles) != 1)}"
    typer.echo(harmless(f"{file}: valid; '{loaded.name}' {loaded.version}, {count}"))


@constitution.command("show")
def show(name: File) -> None:
    """Print a constitution: each principle with its weight and texts."""
    from rich.console import Console

    from rlaif.cli.text import said
    from rlaif.constitution import load_constitution

    loaded = load_constitution(name)
    console = Console()
    console.print(said(f"{loaded.name} {loaded.version} ({loaded.licence}): {loaded.description}", "bold"))
    for principle in loaded.principles:
        tags = f" [{', '.join(principle.tags)}]" if principle.tags else ""
        console.print(said(f"\n{principle.id}, weight {principle.weight:g}{tags}", "bold"))
        for label in ("critique", "revision", "judge"):
            if text := getattr(principle, label):
                console.print(said(f"  {label}: {text}"))


@constitution.command("lint")
def lint(
    file: File,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
) -> None:
    """Find doubles, vague words, what only forbids, and what is missing; asks no model. Exit code 1 for errors."""
    from rlaif.authoring.lint import findings
    from rlaif.cli.constitution_report import lint_json, print_lint
    from rlaif.constitution import load_constitution

    loaded = load_constitution(file)
    found = findings(loaded)
    if as_json:
        _print_json(lint_json(loaded, found))
    else:
        print_lint(loaded, found)
    levels = {finding.level for finding in found}
    if "error" in levels or (strict and "warning" in levels):
        raise typer.Exit(1)


@constitution.command("diff")
def diff(
    a: Annotated[str, typer.Argument(help="What was: a YAML file or a bundled name.")],
    b: Annotated[str, typer.Argument(help="What is now.")],
    as_json: AsJson = False,
) -> None:
    """Say what changed from A to B, word by word, and how many draws a run with B sends to the models again."""
    from rlaif.authoring.diff import compare
    from rlaif.cli.constitution_report import diff_json, print_diff
    from rlaif.constitution import load_constitution

    old, new = load_constitution(a), load_constitution(b)
    changes = compare(old, new)
    if as_json:
        _print_json(diff_json(changes))
    else:
        print_diff(old, new, changes)


@constitution.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="One file, or several that become one constitution.")],
    to: Annotated[Path, typer.Option(help="The YAML file to make.")],
    name: Annotated[str | None, typer.Option(help="Its name; else that of the file.")] = None,
    licence: Annotated[str, typer.Option(help="The licence of the texts, as an SPDX id.")] = "unknown",
    language: Annotated[str | None, typer.Option(help="Of the texts: en, zh; else seen from them.")] = None,
    format: Annotated[
        str | None, typer.Option(help="anthropic, anthropic-judge, llm-swarm or list; else seen from the content.")
    ] = None,
) -> None:
    """Make a constitution of Anthropic's or llm-swarm's JSON, or of a plain list (text, JSON or YAML)."""
    from rlaif.authoring import formats, schema
    from rlaif.authoring.yaml_file import to_yaml
    from rlaif.cli.text import harmless

    known = None if format is None else _format(format)
    read = [formats.read(file, known) for file in files]
    made = formats.constitution(read, to.stem if name is None else name, licence, language)
    sources = ", ".join(file.name for file in files)
    comment = f"Imported from {sources}.".encode(errors="replace").decode()  # a name may be no UTF-8
    if to.with_name(schema.FILE).is_file():
        comment += f"\nyaml-language-server: $schema={schema.FILE}"
    _write_new(to, to_yaml(made, comment))
    typer.echo(harmless(f"{to}: {len(made.principles)} principles from {', '.join(f.format for f in read)}"))
    for file, imported in zip(files, read, strict=True):
        for sentence in imported.left_out:
            typer.echo(harmless(f"  left out of {file.name}: {sentence}"))
    if licence == "unknown":
        typer.echo("  the licence is 'unknown', and so on every dataset's card; say it with --licence")
    typer.echo(harmless(f"next: rlaif constitution lint {to}"))


@constitution.command("export")
def export(
    file: File,
    format: Annotated[str, typer.Option(help="anthropic, anthropic-judge, llm-swarm or list.")],
    to: Annotated[Path, typer.Option(help="The file to make; a list is written as .txt, .json or .yaml.")],
) -> None:
    """Write a constitution in a format of others, and say what that cannot hold."""
    from rlaif.authoring import formats
    from rlaif.cli.text import harmless
    from rlaif.constitution import load_constitution

    exported = formats.export(load_constitution(file), _format(format), to.suffix.lower())
    _write_new(to, exported.text)
    typer.echo(harmless(f"{to}: written as {format}"))
    for sentence in exported.left_out:
        typer.echo(harmless(f"  left out: {sentence}"))


@constitution.command("schema")
def schema(
    to: Annotated[Path | None, typer.Option(help="A file to write it to; else it is printed.")] = None,
) -> None:
    """The JSON Schema of a constitution, by which editors complete and check it."""
    from rlaif.authoring.schema import as_file
    from rlaif.cli.text import harmless

    if to is None:
        typer.echo(as_file(), nl=False)
    else:
        _write_new(to, as_file())
        line = f"# yaml-language-server: $schema={to.name}"
        typer.echo(harmless(f"{to}: written; begin a YAML file beside it with\n{line}"))


def _format(name: str) -> Any:  # Any: one of formats.Format, checked here
    from rlaif.authoring.formats import FORMATS
    from rlaif.errors import ConfigError

    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}'; known: {', '.join(FORMATS)}")
    return name


def _write_new(to: Path, text: str) -> None:
    """Never over a file that is there; nothing is left of one that could not be written whole."""
    import contextlib

    from rlaif.errors import ConfigError

    opened = False
    try:
        with to.open("xb") as file:
            opened = True
            file.write(text.encode())
    except FileExistsError:
        raise ConfigError(f"{to} is there already; name another file, or remove it first") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if opened:
            with contextlib.suppress(OSError):
                to.unlink()
        raise ConfigError(f"{to} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def _print_json(value: Any) -> None:  # Any: JSON
    import json

    typer.echo(json.dumps(value, indent=2, ensure_ascii=True))
