"""Runs by name: their settings on disk, and whether a job may go on with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rlaif.config import Settings, changed, differences
from rlaif.documents import load
from rlaif.errors import ConfigError
from rlaif.store import RunFolder, write_whole
from rlaif.version import __version__


def existing_run(runs_dir: str | Path, run: str) -> RunFolder:
    """Raises ConfigError with the runs there are."""
    folder = RunFolder(Path(runs_dir), checked_name(run))
    if not folder.settings.is_file():
        known = ", ".join(sorted(path.parent.name for path in Path(runs_dir).glob("*/run.yaml"))) or "none"
        raise ConfigError(f"no run '{run}' in {runs_dir}; there are: {known}")
    return folder


def settings_of(folder: RunFolder) -> Settings:
    """The resolved settings a run was made with."""
    document = load(folder.settings)
    return changed(replace(document, data=document.data["settings"]), {})


def checked_name(name: str) -> str:
    """A run's name is a folder's name. Raises ConfigError."""
    if name in ("", ".", "..") or any(c in name for c in "/\\\0") or name.startswith("."):
        raise ConfigError(f"--run '{name}' cannot be a folder's name; use letters, digits, '-' and '_'")
    return name


def begin_or_go_on(settings: Settings, folder: RunFolder, now: dict[str, Any]) -> None:
    """Write run.yaml, or refuse to go on with a run that was begun with another meaning."""
    if folder.settings.is_file():
        changed = differences(load(folder.settings).data["meaning"], now)
        if changed:
            raise ConfigError(
                f"run '{folder.name}' was made with other settings:\n  "
                + "\n  ".join(changed)
                + "\nchoose another --run name: it shares the journal, so only what changed is paid for"
            )
    write_settings(folder, settings, now)


def write_settings(folder: RunFolder, settings: Settings, meaning: dict[str, Any]) -> None:
    resolved = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    # Through JSON: one spelling on both sides of the comparison above, and no aliases in the YAML.
    content = {"rlaif": __version__, "settings": resolved, "meaning": meaning}
    text = yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True)
    write_whole(folder.settings, text.encode())
