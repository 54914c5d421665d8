"""The dataset card, README.md: where the data is from, what was lost on the way, how to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import yaml

from rlaif.export.figures import counts, judges, pairs
from rlaif.export.front import configs, licence_of
from rlaif.export.markup import code as code  # the audit's reports have it from here
from rlaif.export.mix import Mix
from rlaif.export.origin import About as About
from rlaif.export.origin import made_by, origin, spent
from rlaif.export.recipes import recipe_name
from rlaif.export.settings import Config, ExportSettings
from rlaif.export.tally import ExportSummary

MARKER = "<!-- written by `rlaif export`; the next export replaces this folder -->"


def documents(summary: ExportSummary, about: About) -> dict[str, str]:
    """What the data can be made from again, by file name."""
    counted = about.counted and {**about.counted, "dataset": summary.plain()}
    texts = {
        "constitution.yaml": about.constitution,
        "pipeline.yaml": about.settings,
        "summary.json": json.dumps(counted, indent=2) if counted else "",
    }
    return {name: text for name, text in texts.items() if text}


def card(
    summary: ExportSummary,
    settings: ExportSettings,
    about: About,
    content: Mapping[Config, str],
    audit: str | None = None,
    mix: Mix | None = None,
) -> str:
    """No text of a model is in it: a card is markup. What users wrote stands in code and cannot leave it.

    `content` names what is in each dataset, `audit` is the section of an audit of the judges, `mix` tells of the pairs.
    """
    front = yaml.safe_dump(_front_matter(summary, about, content), sort_keys=False, allow_unicode=True)
    sections = [
        origin(about),
        _use(summary),
        made_by(about, summary),
        counts(summary, about.counted.get("funnel", {}), about.counted.get("duplicate_prompts", 0)),
        pairs(summary, settings, mix or Mix()),
        judges(summary),
        audit or "",
        _provenance(about),
        LIMITS,
        spent(about),
    ]
    body = "\n".join(section for section in sections if section)
    return f"---\n{front}---\n{MARKER}\n\n# {code(about.run)}: data from AI feedback\n\n{body}"


def _front_matter(summary: ExportSummary, about: About, content: Mapping[Config, str]) -> dict[str, object]:
    language = re.split("[-_]", about.language or "")[0].lower()
    known: dict[str, object] = {
        "pretty_name": " ".join(re.sub(r"[^\w.+ -]", " ", about.run).split()),
        "language": [language] if re.fullmatch("[a-z]{2,3}", language) else None,
        **licence_of(about.licence),
        "task_categories": ["text-generation"],
        "size_categories": [_size(max((sum(splits.values()) for splits in summary.rows.values()), default=0))],
    }
    tags = ["rlaif", "constitutional-ai", "preference", "trl", "synthetic"]
    return {
        **{key: value for key, value in known.items() if value},
        "tags": tags,
        "configs": configs(content, summary.rows),
    }


def _size(rows: int) -> str:
    """The hub's name for so many rows."""
    edges = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    place = len(str(rows)) - 3 if rows >= 1000 else 0
    return "n<1K" if not place else f"{edges[place - 1]}<n<{edges[place]}"


def _use(summary: ExportSummary) -> str:
    if not summary.rows:
        return "## Use\n\nNo rows were written; the counts below say why.\n"
    configs = "\n".join(f"- `{config}`: {_CONFIGS[config]}" for config in summary.rows)
    load = f'```python\nimport datasets\n\ndatasets.load_dataset("FOLDER", "{next(iter(summary.rows))}")\n```\n'
    folder = "FOLDER is this folder, or `OWNER/NAME` on the hub; a row's columns are those that TRL reads.\n"
    recipes = [recipe for config in summary.rows if (recipe := recipe_name(config))]
    commands = [f"trl {recipe.removeprefix('trl-').removesuffix('.yaml')} --config {recipe}" for recipe in recipes]
    train = "\n```sh\n" + "\n".join(["cd FOLDER", *commands]) + "\n```\n" if recipes else ""
    return f"## Use\n\n{configs}\n\n{load}\n{folder}{train}"


def _provenance(about: About) -> str:
    return (
        "## Provenance\n\nThe `id` of a row is that of its prompt's record, in all configurations. "
        f"`rlaif show {_word(about.run)} ID`, where the run is, shows what the row came from: the responses, by which "
        "principle each was revised, every verdict with its judge, principle and raw replies, and why there is no pair "
        "where there is none.\n"
    )


def _word(run: str) -> str:
    return run if re.fullmatch(r"[\w.+-]+", run) else "RUN"


_CONFIGS: dict[Config, str] = {
    "preference": "pairs, for DPO. `p`, the judge's probability that chosen beats rejected, is a soft label; "
    "it is empty for pairs by score and by side, which no judge compared.",
    "preference_soft": "the pairs that have a `p`, and beside them two responses that the judge found about as good "
    "(`p` near 0.5): only for a loss that reads `p`.",
    "sft": "prompts with a revised, chosen or sampled completion.",
    "kto": "completions with a label, true if chosen.",
    "reward": "pairs as whole conversations, for a reward model. `margin`, 0 to 1, is that of `preference` "
    "(0 if nobody judged; 2p - 1, at most 0.2, after a judge that reasoned first), in the reward's own unit, "
    "log-odds: the loss is -log sigmoid(reward(chosen) - reward(rejected) - margin).",
    "scores": "rated completions. `score`, the mean of `scores`, is from -1 to 1; `win_rate` is against the prompt's "
    "other responses, empty where they were not compared.",
    "prompts": "prompts only, for GRPO or RLOO with a reward of your own.",
}

LIMITS = """\
## Known limits

- Labels are a model's opinion, or follow from how a response was made; agreement between orders is not correctness.
- Red-team prompts and rejected responses may be harmful or offensive. They are data, not advice.
- The judge's taste for length, position or style can leak into the pairs.
- Responses are models' words: they may be wrong, and the terms of the models' makers may bind who trains on them.
"""
