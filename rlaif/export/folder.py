"""A folder that is replaced as a whole: readers see the old one or the new one."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif.errors import ConfigError, StoreError


@contextmanager
def replaced(folder: Path, marker: str) -> Iterator[Path]:
    """Gives a `.partial` sibling to fill; it takes the place of `folder` if the block ends well.

    Renaming a folder over a full one is not possible, so the old one steps aside to `.old` first; a
    kill between the two renames is put right by the next export. Raises ConfigError rather than
    replace a folder that we did not write (its README.md lacks `marker`), StoreError on a full disk.
    """
    folder = folder.resolve()
    partial, old = (folder.with_name(f"{folder.name}.{end}") for end in ("partial", "old"))
    try:
        if old.exists() and not folder.exists():
            old.rename(folder)
        _check_ours(folder, marker)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            _flush(partial)
            if folder.exists():
                folder.rename(old)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"the dataset {folder} cannot be written: {error.strerror or error}") from error


def copied_audit(audit: Path, into: Path) -> str | None:
    """Copies an audit's report and pictures; gives its section for the card, None where there is no audit."""
    try:
        section = (audit / "audit.md").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    for path in sorted(audit.iterdir()):
        if path.suffix in _OF_AUDIT:
            shutil.copyfile(path, into / path.name)
    return section


def digest(folder: Path) -> str:
    """16 hex digits of the content of its files."""
    found = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, hashlib.blake2b).digest())
    return found.hexdigest()


_OF_AUDIT = (".json", ".md", ".png")


def _check_ours(folder: Path, marker: str) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if marker not in text:
        other = re.search("<!-- written by `(rlaif \\w+)`", text)
        what = f"was written by `{other[1]}`" if other else "is not a dataset that rlaif wrote"
        raise ConfigError(f"{folder} {what}; name another folder, or remove it first")


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
