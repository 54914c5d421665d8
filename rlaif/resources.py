"""Files that ship with rlaif: constitutions, prompts (templates), rubrics, pipelines, data."""

from __future__ import annotations

import os
import re
import tomllib
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Literal

from rlaif.errors import ConfigError

Kind = Literal["constitutions", "prompts", "rubrics", "pipelines", "data"]

SUFFIX: dict[Kind, str] = {
    "constitutions": ".yaml",
    "prompts": ".jinja",
    "rubrics": ".yaml",
    "pipelines": ".yaml",
    "data": ".jsonl",
}
SINGULAR: dict[Kind, str] = {
    "constitutions": "constitution",
    "prompts": "template",
    "rubrics": "rubric",
    "pipelines": "pipeline",
    "data": "prompt set",
}
PACKAGE = Path(__file__).parent
DISTRIBUTION = "rlaif-kit"


def find(kind: Kind, name: str | Path) -> Path:
    """The file a user means: a path that is a file wins, then the bundled name with or without its suffix."""
    if os.path.isfile(name):  # Path.is_file raises on names that are too long
        return Path(name)
    return bundled(kind, str(name))


def bundled(kind: Kind, name: str) -> Path:
    """The file that ships under this name, whatever lies in the current folder."""
    known = _bundled(kind)
    if path := known.get(name.removesuffix(SUFFIX[kind])):
        return path
    raise ConfigError(
        f"no {SINGULAR[kind]} '{name}'{_close(str(name), list(known))}; "
        f"bundled: {', '.join(known) or 'none'}; or give the path of a {SUFFIX[kind]} file"
    )


def names(kind: Kind, folder: str = "") -> list[str]:
    """The bundled names of a kind, without suffix, sorted; of pipelines those in `folder`: train, loop, "" for none."""
    if kind != "pipelines":
        return list(_bundled(kind))
    return [name for name in _bundled(kind) if name.rpartition("/")[0] == folder]


def title(kind: Kind, name: str) -> str:
    """The first sentence of the comment that a bundled YAML file begins with."""
    lines = takewhile(lambda line: line.startswith("# "), bundled(kind, name).read_text("utf-8").splitlines())
    return re.split(r"(?<=\.)\s", " ".join(line[2:] for line in lines), maxsplit=1)[0]


def copy(name: str, kind: Kind | None = None, to_folder: Path = Path()) -> Path:
    """Put a bundled file into a folder to edit it; `name` may be `kind/name`. Never overwrites."""
    source = _the_one(name, kind)
    target = to_folder / source.name
    try:
        with target.open("xb") as file:
            file.write(source.read_bytes())
    except FileExistsError:
        raise ConfigError(f"{target} is there already; move it away or copy to another folder") from None
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror}") from error
    return target


def _the_one(name: str, kind: Kind | None) -> Path:
    """The only bundled file of that name."""
    forms: dict[str, Path] = {}
    known: list[str] = []
    for k in SUFFIX:
        if kind in (None, k):
            bundled = _bundled(k)
            known += [f"{k}/{stem}" for stem in bundled]
            stem = name.removeprefix(f"{k}/").removesuffix(SUFFIX[k])
            if stem in bundled:
                forms[f"{k}/{stem}"] = bundled[stem]
    if not forms:
        near = [*known, *(form.partition("/")[2] for form in known)]
        raise ConfigError(f"nothing bundled is '{name}'{_close(name, near)}; there are: {', '.join(known)}")
    if len(forms) > 1:
        raise ConfigError(f"'{name}' is the name of several bundled files; say {' or '.join(forms)}")
    return next(iter(forms.values()))


def _bundled(kind: Kind) -> dict[str, Path]:
    """Name without suffix -> file, as `zh/critique` in a folder of a folder, sorted by name.

    Names are looked up here, never joined to a path, so none can escape.
    """
    folder, suffix = _folder(kind), SUFFIX[kind]
    found = {path.relative_to(folder).as_posix().removesuffix(suffix): path for path in folder.rglob(f"*{suffix}")}
    return dict(sorted(found.items()))


def _folder(kind: Kind) -> Path:
    """In the package (a wheel), else in the checkout beside it if that is ours: site-packages/data is anybody's."""
    folder = "prompts/rubrics" if kind == "rubrics" else kind
    shipped = PACKAGE / "bundled" / folder
    checkout = PACKAGE.parent
    return checkout / folder if not shipped.is_dir() and _is_ours(checkout) else shipped


def _is_ours(checkout: Path) -> bool:
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == DISTRIBUTION)


def _close(name: str, known: list[str]) -> str:
    near = get_close_matches(name.lower(), known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
