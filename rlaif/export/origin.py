"""The card's account of how the data was made: constitution, models, pipeline, prompts; and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any  # plain JSON

from rlaif.export.markup import code, fenced, folded, table
from rlaif.export.principles import principle_rows
from rlaif.export.tally import ExportSummary
from rlaif.prices import dollars
from rlaif.version import __version__


@dataclass(frozen=True, slots=True)
class About:
    """What the card says that the records don't. It may be published: no keys, no addresses, no local paths.

    `licence` is the data's, as an SPDX id; `models` maps role to name, `identities` to what its answers belong to;
    `stages` are in order. `constitution` and `settings` are YAML, a constitution and a pipeline; `templates` are those
    the run asked with, by name. What is not known is empty. `counted` is of the run's summary.json.
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
    constitution_hash: str = ""
    constitution: str = ""
    settings: str = ""
    identities: Mapping[str, str] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    templates_hash: str = ""
    counted: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> bool:
        """Whether a model revised, rated or compared by the constitution."""
        return not {"revise", "contrast", "judge", "rate", "code"}.isdisjoint(self.stages)


def origin(about: About) -> str:
    """What it is, in a paragraph and a list."""
    given = {"sample", "contrast", "code"}.isdisjoint(about.stages)
    made = "came with the prompts" if given else "were sampled from language models"
    done = f"{'were ' if given else ''}revised, rated or compared by language models under a written constitution"
    how = f" and {done}" if about.asked else ""
    hashed = f", hash {code(about.constitution_hash)}" if about.constitution_hash else ""
    constitution = f"{code(about.constitution_name)}, version {code(about.constitution_version)}{hashed}"
    rows = [
        ("constitution", constitution if about.asked else ""),
        ("prompts", code(about.prompts) if about.prompts else ""),
        ("pipeline", code(about.pipeline) if about.pipeline else ""),
        ("stages", " → ".join(map(code, about.stages))),
        ("licence", code(about.licence) if about.licence else ""),
    ]
    return (
        f"Responses {made}{how}, as the stages say. No human rated them here. Made with "
        f"[rlaif](https://pypi.org/project/rlaif-kit/) {__version__}.\n\n"
        + "".join(f"- {what}: {which}\n" for what, which in rows if which)
    )


def made_by(about: About, summary: ExportSummary) -> str:
    """Models, principles, the files of the pipeline, and the texts the models were asked with."""
    parts = ["## How it was made\n"]
    if about.models:
        parts.append(_models(about))
    if summary.principles and about.asked:
        parts.append(_principles(summary))
    if about.constitution and about.asked:
        title = f"The constitution, {len(summary.principles):,} principles of it in use" if summary.principles else ""
        parts.append(folded(title or "The constitution", fenced(about.constitution, "yaml")))
    if about.settings:
        parts.append(folded("The pipeline, with every setting spelled out", fenced(about.settings, "yaml")))
    if about.templates:
        parts.append(_templates(about.templates, about.templates_hash))
    files = [name for name, text in (("constitution", about.constitution), ("pipeline", about.settings)) if text]
    if about.settings:
        parts.append(
            f"Beside this card: {' and '.join(f'`{name}.yaml`' for name in files)}. In this folder, `rlaif generate "
            "pipeline.yaml` goes the same way again. Keys, headers, addresses of servers and folders are left out of "
            "all that is said here; put your own in.\n"
        )
    return "\n".join(parts) if len(parts) > 1 else ""


def spent(about: About) -> str:
    """What it cost and what it was made with; the one part that differs between two runs with the same records."""
    lines = about.counted.get("ledger", {}).get("lines", ())
    if not (lines or about.versions):
        return ""
    parts = [SPENT_BEGINS, "## Cost and versions\n"]
    if lines:
        parts.append(_cost(lines))
    if about.versions:
        parts.append(", ".join(f"{name} {code(version)}" for name, version in about.versions.items()) + "\n")
    return "\n".join([*parts, SPENT_ENDS]) + "\n"


SPENT_BEGINS = "<!-- cost and versions: not a part of what the records say -->\n"
SPENT_ENDS = "<!-- end of cost and versions -->"


def _models(about: About) -> str:
    rows = [(code(role), code(name), _identity(about.identities.get(role, ""))) for role, name in about.models.items()]
    return table(("role", "model", "identity"), rows)


def _principles(summary: ExportSummary) -> str:
    """Two tables, where principles were drawn to revise and to judge: a page is not wide enough for one."""
    head, rows = principle_rows(summary.principles)
    middle = head.index("drawn to judge") if "drawn to judge" in head else len(head)
    parts = []
    for what, first, end in (("to revise", 1, middle), ("to judge", middle, len(head))):
        cells = [(code(row[0]), *row[first:end]) for row in rows]
        some = [row for row in cells if any(cell != "-" for cell in row[1:])]
        if some:
            parts += [
                f"What each principle did where it was drawn {what}:\n",
                table((head[0], *head[first:end]), some, 1),
            ]
    return "\n".join(parts)


def _identity(identity: str) -> str:
    return code(identity) if identity else ""


def _templates(templates: Mapping[str, str], together: str) -> str:
    texts = [
        f"{code(name)}, {code(blake2b(text.encode(), digest_size=8).hexdigest())}\n\n{fenced(text, 'jinja')}"
        for name, text in templates.items()
    ]
    asked = f"What the models were asked with: templates of Jinja (all of the run's together: {together})"
    return folded(asked if together else asked.partition(" (")[0], "\n".join(texts))


def _cost(lines: list[Mapping[str, Any]]) -> str:
    """By model, over all days and stages; a sum with an unknown part is unknown."""
    rows = []
    for model in dict.fromkeys(line["model"] for line in lines):
        own = [line for line in lines if line["model"] == model]
        tokens = [sum(line[name] for line in own) for name in ("sent", "failed", "prompt_tokens", "completion_tokens")]
        rows.append((code(model), *(f"{n:,}" for n in tokens), _usd([line["cost_usd"] for line in own])))
    head = ("model", "calls", "failed", "prompt tokens", "completion tokens", "USD")
    together = f"All calls of this run together: {_usd([line['cost_usd'] for line in lines])} US dollars"
    note = f"{together}, at list prices. What earlier runs had answered is not in it.\n"
    return f"{table(head, rows, numbers=1)}\n{note}"


def _usd(costs: list[float | None]) -> str:
    known = [cost for cost in costs if cost is not None]
    return "unknown" if len(known) < len(costs) else dollars(sum(known))
