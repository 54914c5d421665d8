"""What several commands take: the folder of all runs, and settings as KEY=VALUE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    Model = TypeVar("Model", bound=BaseModel)

RunsDir = Annotated[Path, typer.Option(help="Folder of all runs and of the journal they share.")]


@contextmanager
def from_the_start() -> Iterator[None]:
    """For what keeps nothing of a half: when it is interrupted it says so."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was written; the same command starts over", err=True)
        raise SystemExit(130) from None


def settings(model: type[Model], assignments: Sequence[str] | None) -> Model:
    """Those of `--set`. Raises ConfigError for the first that is wrong."""
    from pydantic import ValidationError

    from rlaif.config import assigned
    from rlaif.errors import ConfigError

    try:
        return model.model_validate(assigned(assignments or ()))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"--set {name}: unknown; there are: {', '.join(model.model_fields)}") from None
        if first["type"] == "tuple_type":
            raise ConfigError(f"--set {name}: it is a list, such as {name}=[a,b]") from None
        raise ConfigError(f"--set {name}: {first['msg'].removeprefix('Value error, ')}") from None
