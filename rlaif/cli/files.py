"""`rlaif list`, `copy`, `convert`, `journal`: what ships with rlaif, and what it keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from rlaif.cli.options import RunsDir

if TYPE_CHECKING:
    from rlaif.journal import Journal

T = TypeVar("T")
journal = typer.Typer(
    help="The journal of answered calls: its size, and what to forget.", no_args_is_help=True, rich_markup_mode=None
)


def list_all(runs_dir: RunsDir = Path("runs")) -> None:
    """List the bundled constitutions, pipelines, prompt sets and templates, and your runs."""
    import json

    from rlaif.cli.text import harmless
    from rlaif.resources import SUFFIX, names, title

    for kind, suffix in SUFFIX.items():
        if suffix == ".yaml":
            typer.echo(f"{kind}:")
            width = max(map(len, names(kind)))
            for name in names(kind):
                typer.echo(f"  {name:{width}}  {title(kind, name)}")
            if kind == "pipelines":
                for folder, command in (("train", "rlaif train --recipe"), ("loop", "rlaif loop")):
                    stems = [name.rpartition("/")[2] for name in names(kind, folder)]
                    typer.echo(f"  for {command}: {', '.join(stems)}")
        else:
            typer.echo(f"{kind}: {', '.join(names(kind))}")
    typer.echo(f"runs in {runs_dir}:")
    for settings in sorted(runs_dir.glob("*/run.yaml")):
        try:
            content = json.loads(settings.with_name("summary.json").read_bytes())
            pairs = (content["dataset"] or {}).get("pairs", 0)
            state = f"{content['status']}, {content['records']:,} records, {pairs:,} pairs"
        except FileNotFoundError:
            state = "unfinished"
        except (ValueError, LookupError, TypeError):
            state = "its summary.json cannot be read"
        typer.echo(harmless(f"  {settings.parent.name}: {state}"))


def convert(
    weights: Annotated[
        str, typer.Argument(help="A GGUF file, OWNER/REPO/FILE.gguf, 'local' for the bundled one; or a folder.")
    ],
    to: Annotated[Path, typer.Argument(help="The folder to make; of a folder the GGUF file.")],
    dtype: Annotated[
        str | None, typer.Option(help="[float32, exact], float16, bfloat16; of a GGUF file [float16], float32, q8_0.")
    ] = None,
) -> None:
    """Turn a GGUF file into a Hugging Face folder, which trainers and vLLM read, or a folder into a GGUF file.

    Llama architectures. An adapter's folder becomes the file of its base with it.
    """
    from rlaif.backends.gguf import find_weights
    from rlaif.backends.to_gguf import Precision, with_base
    from rlaif.backends.to_gguf import convert as to_gguf
    from rlaif.backends.to_hf import DTYPES, Dtype, convert
    from rlaif.errors import ConfigError, StoreError

    if to.exists():
        raise ConfigError(f"{to} is there already; name another, or remove it first")
    hf: dict[str, Dtype] = {name: name for name in DTYPES}
    gguf: dict[str, Precision] = {"float16": "F16", "float32": "F32", "q8_0": "Q8_0"}
    try:
        if Path(weights).is_dir():
            folder, adapter = with_base(Path(weights))
            typer.echo(to_gguf(folder, to, _known(dtype or "float16", gguf), adapter))
        else:
            typer.echo(convert(find_weights("" if weights == "local" else weights), to, _known(dtype or "float32", hf)))
    except OSError as error:
        raise StoreError(f"{to} cannot be written: {error.strerror or error}") from error


def _known(dtype: str, dtypes: Mapping[str, T]) -> T:
    from rlaif.errors import ConfigError

    if dtype not in dtypes:
        raise ConfigError(f"unknown dtype '{dtype}'; known: {', '.join(dtypes)}")
    return dtypes[dtype]


def copy(
    name: Annotated[str, typer.Argument(help="A bundled file, as NAME or KIND/NAME.")],
    to: Annotated[Path, typer.Option(help="The folder to put it in.")] = Path(),
) -> None:
    """Put a bundled constitution, pipeline, template or prompt set into a folder, to edit it."""
    from rlaif import resources

    typer.echo(resources.copy(name, to_folder=to))


@journal.command("size")
def size(runs_dir: RunsDir = Path("runs")) -> None:
    """Say what the journal holds, per model."""
    opened = _journal(runs_dir)
    typer.echo(f"{opened.path}: {opened.path.stat().st_size / 1e6:.1f} MB")
    for identity, calls, failed, size_bytes in opened.sizes():
        typer.echo(f"  {identity}: {calls:,} calls, {failed:,} failed, {size_bytes / 1e6:.1f} MB of answers")


@journal.command("repair")
def repair(runs_dir: RunsDir = Path("runs")) -> None:
    """Make a damaged journal anew from all that can be read; the damaged file stays beside it."""
    from rlaif.repair import repair

    done = repair(runs_dir / "calls.sqlite")
    typer.echo(
        f"{done.kept:,} answers saved, {done.lost:,} or more lost, as far as the file still tells: they are asked "
        f"again; the damaged file is {done.damaged}"
    )


@journal.command("prune")
def prune(
    runs_dir: RunsDir = Path("runs"),
    model: Annotated[str | None, typer.Option(help="Only this model, by its identity; see `size`.")] = None,
    older_than: Annotated[str | None, typer.Option(help="Only what is older: 30d, 12h.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only failures.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Forget answers. What is forgotten is paid for again when it is asked again."""
    import time

    from rlaif.errors import ConfigError
    from rlaif.repair import not_in_use

    if model is None and older_than is None and not failed:
        raise ConfigError("say which answers: --failed, --older-than 30d or --model IDENTITY (rlaif journal size)")
    not_in_use(_journal_path(runs_dir))
    opened = _journal(runs_dir)
    before = None if older_than is None else int(time.time()) - _seconds(older_than)
    known = [identity for identity, *_ in opened.sizes()]
    if model is not None and model not in known:
        raise ConfigError(f"no answers of a model '{model}'; there are: {', '.join(known)}")
    which = "failures" if failed else "answers"
    which += f" of {model}" if model else ""
    which += f" older than {older_than}" if older_than else ""
    if not yes and not typer.confirm(f"Forget {which}? They are paid for again when they are asked again."):
        raise typer.Exit(1)
    typer.echo(f"{opened.prune(model=model, before=before, failed_only=failed):,} answers forgotten")


def _journal(runs_dir: Path) -> Journal:
    from rlaif.journal import Journal

    return Journal(_journal_path(runs_dir))


def _journal_path(runs_dir: Path) -> Path:
    from rlaif.errors import ConfigError

    path = runs_dir / "calls.sqlite"
    if not path.is_file():
        raise ConfigError(f"no journal at {path}; give the folder of your runs with --runs-dir")
    return path


def _seconds(age: str) -> int:
    found = re.fullmatch(r"(\d+)([dh])", age)
    if found is None:
        raise typer.BadParameter(f"--older-than {age}: write days or hours, like 30d or 12h")
    return int(found[1]) * (86_400 if found[2] == "d" else 3_600)
