"""The dataset card, README.md: where the data is from, what was lost on the way, how to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import yaml

from rlaif.export.recipes import recipe_name
from rlaif.export.settings import Config, ExportSettings, Strategy
from rlaif.export.tally import ExportSummary, JudgeStats
from rlaif.statistics import wilson
from rlaif.version import __version__

MARKER = "<!-- written by `rlaif export`; the next export replaces this folder -->"


@dataclass(frozen=True, slots=True)
class About:
    """What the card says that the records don't. It may be published: no keys, no local paths.

    `licence` is the data's, as an SPDX id; `models` maps role to name; `stages` are in order.
    """

    run: str
    constitution_name: str
    constitution_version: str
    licence: str | None = None
    language: str | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    prompts: str = ""
    pipeline: str = ""
    stages: tuple[str, ...] = ()


def card(
    summary: ExportSummary,
    settings: ExportSettings,
    about: About,
    content: Mapping[Config, str],
    audit: str | None = None,
) -> str:
    """No text of a model is in it: a card is markup.

    `content` names what is in each dataset, `audit` is the section of an audit of the judges.
    """
    front = yaml.safe_dump(_front_matter(summary, about, content), sort_keys=False, allow_unicode=True)
    sections = [_origin(about), _use(summary), _counts(summary, settings), _judges(summary), _LIMITS]
    if audit:
        sections.insert(-1, audit)
    return f"---\n{front}---\n{MARKER}\n\n# {code(about.run)}: data from AI feedback\n\n" + "\n".join(sections)


def _front_matter(summary: ExportSummary, about: About, content: Mapping[Config, str]) -> dict[str, object]:
    configs = [
        {
            "config_name": config,
            # datasets 5 caches a folder by its last name and these settings: without it, one run's data is another's.
            "description": f"content {content[config]}",
            "data_files": [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in _ordered(splits)],
        }
        for config, splits in summary.rows.items()
    ]
    known = {"language": [about.language] if about.language else None, "license": (about.licence or "").lower()}
    tags = ["rlaif", "constitutional-ai", "preference", "trl", "synthetic"]
    return {**{key: value for key, value in known.items() if value}, "tags": tags, "configs": configs}


def _origin(about: About) -> str:
    named = {**about.models, "prompts": about.prompts, "pipeline": about.pipeline, "licence": about.licence or ""}
    constitution = f"{code(about.constitution_name)}, version {code(about.constitution_version)}"
    asked = not {"revise", "contrast", "judge", "rate", "code"}.isdisjoint(about.stages)
    given = {"sample", "contrast", "code"}.isdisjoint(about.stages)
    made = "came with the prompts" if given else "were sampled from language models"
    done = f"{'were ' if given else ''}revised, rated or compared by language models under a written constitution"
    how = f" and {done}" if asked else ""
    lines = [
        f"Responses {made}{how}, as the stages say. No human rated them here. Made with rlaif {__version__}.\n",
        *([f"- constitution: {constitution}"] if asked else []),
        *[f"- {what}: {code(name)}" for what, name in named.items() if name],
        f"- stages: {' → '.join(map(code, about.stages))}",
    ]
    return "\n".join(lines) + "\n"


def _use(summary: ExportSummary) -> str:
    if not summary.rows:
        return "## Use\n\nNo rows were written; the counts below say why.\n"
    configs = "\n".join(f"- `{config}`: {_CONFIGS[config]}" for config in summary.rows)
    load = f'```python\nimport datasets\n\ndatasets.load_dataset("FOLDER", "{next(iter(summary.rows))}")\n```\n'
    recipes = [recipe for config in summary.rows if (recipe := recipe_name(config))]
    commands = [f"trl {recipe.removeprefix('trl-').removesuffix('.yaml')} --config {recipe}" for recipe in recipes]
    train = "\n```sh\n" + "\n".join(["cd FOLDER", *commands]) + "\n```\n" if recipes else ""
    return f"## Use\n\n{configs}\n\n{load}{train}"


def _counts(summary: ExportSummary, settings: ExportSettings) -> str:
    rows = [("rows", f"{config} {split}", n) for config, splits in summary.rows.items() for split, n in splits.items()]
    rows += [("records", outcome, n) for outcome, n in summary.outcomes.items()]
    rows += [("pairs", strategy, n) for strategy, n in summary.strategies.items()]
    rows += [("no pair", reason, n) for reason, n in summary.no_pair.items()]
    table = "\n".join(f"| {what} | {code(name)} | {n:,} |" for what, name, n in rows)
    lengths = (
        f"The chosen response is the longer one in {summary.longer_chosen:.0%} of {summary.pairs:,} pairs"
        f"{_interval(summary.longer_chosen, summary.pairs)}; mean length {summary.chosen_chars:.0f} characters chosen, "
        f"{summary.rejected_chars:.0f} rejected.\n"
    )
    return f"## Counts\n\n| | | |\n|---|---|---:|\n{table}\n\n{_rules(summary, settings)}" + (
        lengths if summary.pairs else ""
    )


def _rules(summary: ExportSummary, settings: ExportSettings) -> str:
    rules = ["Splits are by prompt."]
    if settings.min_margin:
        rules.append(f"A pair needs a margin >= {settings.min_margin}, unless nobody judged it.")
    if summary.judges:
        rules += [f"A `{strategy}` pair by verdicts needs {_needs(strategy, settings)}." for strategy in settings.pairs]
    if any(strategy.endswith("by side") for strategy in summary.strategies):
        rules.append(
            "In pairs by side nobody compared the two: chosen is of the model, or of the prompt, that was meant to be "
            "better; after `contrast` the rejected one was asked to go against a principle."
        )
    return " ".join(rules) + "\n"


def _needs(strategy: Strategy, settings: ExportSettings) -> str:
    if strategy == "strong_vs_weak":
        return "p >= 0.5 (either order may disagree)"
    both = settings.require_consistent or strategy == "revision_vs_original"
    return f"p >= {settings.min_p} ({'the same winner in both orders' if both else 'either order may disagree'})"


def _judges(summary: ExportSummary) -> str:
    parts = ["## Judges"]
    if summary.judges:
        head = (
            "| judge | verdicts | unusable | same winner in both orders | position bias |\n|---|---:|---:|---:|---:|\n"
        )
        parts.append(head + "\n".join(_judge(name, stats) for name, stats in summary.judges.items()))
        parts.append("Position bias is P(the response shown first wins) - 0.5; intervals are 95%.")
    else:
        parts.append("No two responses were compared.")
    for name, (asked, none) in summary.raters.items():
        parts.append(f"{code(name)} rated single responses {asked:,} times; {none:,} ratings were unusable.")
    return "\n\n".join(parts) + "\n"


def _judge(name: str, stats: JudgeStats) -> str:
    swap, bias = stats.swap_consistency, stats.position_bias
    same = "-" if swap is None else f"{swap:.0%}{_interval(swap, stats.usable)}"
    shift = "-" if bias is None else f"{bias:+.2f}"
    return f"| {code(name)} | {stats.verdicts:,} | {stats.unusable_share:.0%} | {same} | {shift} |"


def _interval(share: float, n: int) -> str:
    low, high = wilson(share * n, n)
    return f" ({low:.0%}-{high:.0%})"


def _ordered(splits: Iterable[str]) -> list[str]:
    return sorted(splits, reverse=True)  # train before test


def code(text: str) -> str:
    """Inline code that the text cannot leave, in a table neither; what a terminal would obey is dropped."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "`" + " ".join(shown.replace("`", "'").replace("|", "/").split()) + "`"


_CONFIGS: dict[Config, str] = {
    "preference": "pairs, for DPO. `p`, the judge's probability that chosen beats rejected, is a soft label; "
    "it is empty for pairs by score and by side, which no judge compared.",
    "sft": "prompts with a revised, chosen or sampled completion.",
    "kto": "completions with a label, true if chosen.",
    "reward": "pairs as whole conversations, for a reward model. `margin`, 0 to 1, is that of `preference` "
    "(0 if nobody judged; 2p - 1, at most 0.2, after a judge that reasoned first), in the reward's own unit, "
    "log-odds: the loss is -log sigmoid(reward(chosen) - reward(rejected) - margin).",
    "scores": "rated completions. `score`, the mean of `scores`, is from -1 to 1; `win_rate` is against the prompt's "
    "other responses, empty where they were not compared.",
    "prompts": "prompts only, for GRPO or RLOO with a reward of your own.",
}

_LIMITS = """\
## Known limits

- Labels are a model's opinion, or follow from how a response was made; agreement between orders is not correctness.
- Red-team prompts and rejected responses may be harmful or offensive. They are data, not advice.
- The judge's taste for length, position or style can leak into the pairs.
"""
