"""Runs by name: the settings, summary and dataset in their folders, and whether a job may go on with them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rlaif.config import Settings, changed, differences
from rlaif.documents import Document, load
from rlaif.errors import ConfigError
from rlaif.models import display_name
from rlaif.store import RunFolder, write_whole
from rlaif.version import __version__

if TYPE_CHECKING:
    from rlaif.export import ExportSummary


def existing_run(runs_dir: str | Path, run: str) -> RunFolder:
    """Raises ConfigError with the runs there are."""
    folder = RunFolder(Path(runs_dir), checked_name(run))
    if not folder.settings.is_file():
        known = ", ".join(sorted(path.parent.name for path in Path(runs_dir).glob("*/run.yaml"))) or "none"
        raise ConfigError(f"no run '{run}' in {runs_dir}; there are: {known}")
    return folder


def settings_of(folder: RunFolder, changes: Mapping[str, object] | None = None) -> Settings:
    """The resolved settings a run was made with, with `changes` (dotted path -> value) on top."""
    document = _run_yaml(folder)
    return changed(replace(document, data=document.data["settings"]), changes or {})


def meaning_of(folder: RunFolder) -> dict[str, Any]:
    """What the run's records depend on, as it was written when the run began."""
    return dict(_run_yaml(folder).data["meaning"])


def _run_yaml(folder: RunFolder) -> Document:
    document = load(folder.settings)
    if not (isinstance(document.data, dict) and {"settings", "meaning"} <= document.data.keys()):
        raise ConfigError(f"{folder.settings} is not what rlaif wrote: remove it and run `generate` again")
    return document


def checked_name(name: str) -> str:
    """A run's name is a folder's name. Raises ConfigError."""
    if not re.fullmatch(r"\w[\w.+-]{0,99}", name) or name == "batches":
        raise ConfigError(f"--run '{name}' cannot be a run's name; use letters, digits, '-' and '_', at most 100")
    return name


def check_meaning(folder: RunFolder, now: dict[str, Any]) -> None:
    """Refuse to go on with a run that was begun with another meaning. Raises ConfigError with the differences."""
    if folder.settings.is_file():
        # Through JSON: one spelling on both sides.
        changed = differences(meaning_of(folder), json.loads(json.dumps(now)))
        if not any(line.startswith("prompts.hash:") for line in changed):
            changed = [line for line in changed if not line.startswith("prompts.file:")]  # the same, renamed
        if changed:
            raise ConfigError(
                f"run '{folder.name}' was made with other settings:\n  "
                + "\n  ".join(changed)
                + "\nchoose another --run name: it shares the journal, so only what changed is paid for"
            )


def write_settings(folder: RunFolder, settings: Settings, meaning: dict[str, Any]) -> None:
    """run.yaml, with every default spelled out; a limit never shrinks, as the parts don't."""
    resolved = settings.model_dump(mode="json")
    resolved["stages"] = [{entry.kind: getattr(entry, entry.kind).model_dump(mode="json")} for entry in settings.stages]
    if folder.settings.is_file():
        before = _run_yaml(folder).data["settings"].get("limit")
        resolved["limit"] = None if None in (before, settings.limit) else max(before, settings.limit)
    content = {"rlaif": __version__, "settings": resolved, "meaning": meaning}
    text = yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True)
    write_whole(folder.settings, text.encode())


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """summary.json; empty if the run was never ended in order, or the file is damaged."""
    try:
        return dict(json.loads(folder.summary.read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}


def write_summary(folder: RunFolder, content: dict[str, Any]) -> None:
    write_whole(folder.summary, json.dumps(content, indent=2).encode())


def export_records(folder: RunFolder, settings: Settings, meaning: dict[str, Any]) -> ExportSummary:
    """The run's datasets, made anew from its parts. What the card says of the constitution is what was used."""
    from rlaif.about import about_run
    from rlaif.export import export_dataset

    about = about_run(folder, settings, meaning, read_summary(folder))
    return export_dataset(
        folder.records,
        folder.dataset,
        settings.export,
        about=about,
        policy=policy_of(settings),
        audit=folder.audit,
    )


def policy_of(settings: Settings) -> str | None:
    """The name that its responses have."""
    spec = settings.models.get("policy")
    return None if spec is None else display_name(spec)
