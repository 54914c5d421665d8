"""The card of an imported dataset, README.md: whose it is, how it was understood, what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from rlaif.export.front import configs, licence_of
from rlaif.export.markup import code, table
from rlaif.export.recipes import recipe_name
from rlaif.export.settings import Config
from rlaif.importing.settings import ImportSettings
from rlaif.importing.tally import NOTES, REASONS, Imported
from rlaif.version import __version__

MARKER = "<!-- written by `rlaif import`; the next import replaces this folder -->"


@dataclass(frozen=True, slots=True)
class About:
    """Where it is from. `address` may be a path of this machine: the card gives its last name only."""

    address: str
    config: str | None
    splits: Sequence[str]
    licence: str | None = None

    @property
    def name(self) -> str:
        local = Path(self.address.partition("#")[0]).expanduser()
        on_disk = local.exists() or self.address.startswith(("hf:///", "hf://.", "hf://~"))
        return Path(self.address).name if on_disk else self.address


def card(imported: Imported, settings: ImportSettings, about: About, content: Mapping[Config, str]) -> str:
    """No text of the dataset is in it: a card is markup."""
    front = yaml.safe_dump(_front_matter(imported, about, content), sort_keys=False, allow_unicode=True)
    sections = [_origin(imported, about), _use(imported), _counts(imported, settings), _LIMITS]
    return f"---\n{front}---\n{MARKER}\n\n# {code(about.name)}, imported\n\n" + "\n".join(sections)


def _front_matter(imported: Imported, about: About, content: Mapping[Config, str]) -> dict[str, object]:
    found = configs(content, imported.written)
    return {**licence_of(about.licence), "tags": ["preference", "trl"], "configs": found}


def _origin(imported: Imported, about: About) -> str:
    config = f", configuration {code(about.config)}" if about.config else ""
    splits = ", ".join(map(code, about.splits))
    licence = code(about.licence) if about.licence else "unknown: see the source"
    lines = [
        f"Rows of another dataset in the form that TRL takes. Made with rlaif {__version__}; no text was changed but "
        "for white space around turns.\n",
        f"- source: {code(about.name)}{config}; splits: {splits}",
        f"- read as: {code(imported.shape)}",
        f"- licence: {licence}",
    ]
    if imported.aside:
        lines.append(f"- columns left aside: {', '.join(map(code, imported.aside))}")
    return "\n".join(lines) + "\n"


def _use(imported: Imported) -> str:
    first = next(iter(imported.written))
    configs = "\n".join(f"- `{config}`: {_CONFIGS[config]}" for config in imported.written)
    trained = [config for config, splits in imported.written.items() if "train" in splits]
    recipes = [name for config in trained if (name := recipe_name(config))]
    commands = "\n".join(f"trl {name.removeprefix('trl-').removesuffix('.yaml')} --config {name}" for name in recipes)
    load = f'```python\nimport datasets\n\ndatasets.load_dataset("FOLDER", "{first}")\n```\n'
    train = f"\n```sh\ncd FOLDER\n{commands}\n```\n" if commands else ""
    return f"## Use\n\n{configs}\n\n{load}{train}"


def _counts(imported: Imported, settings: ImportSettings) -> str:
    read = ("read", "rows of the source", f"{imported.rows:,}")
    written = [
        ("rows", code(f"{config} {split}"), f"{n:,}")
        for config, splits in imported.written.items()
        for split, n in splits.items()
    ]
    counts = f"## Counts\n\n{table(('', '', ''), [read, *written], 2)}"
    if imported.dropped:
        lost = [(code(reason), REASONS[reason], f"{n:,}") for reason, n in imported.dropped.items()]
        counts += f"\nLeft out, each with its place in `dropped.jsonl`:\n\n{table(('reason', '', ''), lost, 2)}"
    if imported.notes:
        noted = "\n".join(f"- {n:,}: {NOTES[note]}" for note, n in imported.notes.items())
        counts += f"\nPut right or worth knowing:\n\n{noted}\n"
    return f"{counts}\n{_rules(imported, settings)}"


def _rules(imported: Imported, settings: ImportSettings) -> str:
    rules = []
    if imported.scale:
        low, high = imported.scale
        rules.append(f"A margin is a difference of ratings as a share of the scale, which is from {low:g} to {high:g}.")
    if settings.min_margin:
        rules.append(f"A pair needs a margin >= {settings.min_margin:g} where the source says one.")
    rules.append("Equally good answers make no pair.")
    return " ".join(rules) + "\n"


_CONFIGS: Mapping[Config, str] = {
    "preference": "pairs, for DPO. `margin`, 0 to 1, where the source has ratings or ranks.",
    "sft": "prompts with a completion that was preferred.",
    "kto": "completions with a label, true if preferred.",
    "reward": "pairs as whole conversations, for a reward model, with `margin` (0 where the source has none).",
}

_LIMITS = """\
## Known limits

- Whose judgement the labels are, and how good, only the source can say.
- Prompts and rejected answers may be harmful or offensive. They are data, not advice.
"""
