"""What a dataset says of the run it is from: names, hashes, files and cost, without what is nobody's business.

Keys, headers, addresses of servers that are not public, and folders of this machine are left out: a server is named by
the model's name and identity, and its address stands as https://address-left-out.invalid wherever it was written.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any  # plain JSON

import yaml

from rlaif.backends import ModelSpec
from rlaif.config import Settings
from rlaif.constitution import Constitution, load_constitution
from rlaif.errors import ConfigError
from rlaif.export import About
from rlaif.judges import Comparer
from rlaif.judges.cascade import Cascade
from rlaif.judges.listwise import Listwise
from rlaif.judges.pairwise import Pairwise
from rlaif.models import display_name
from rlaif.prices import load_prices
from rlaif.store import RunFolder
from rlaif.templates import Templates
from rlaif.version import __version__


def about_run(folder: RunFolder, settings: Settings, meaning: Mapping[str, Any], summary: Mapping[str, Any]) -> About:
    """`meaning` is what the run was made with, `summary` its summary.json; both say more than may be published.

    The templates' texts are in it only if their files still are what they were; of the constitution the run has a copy.
    """
    made_with = meaning["constitution"]
    constitution = constitution_of(folder) or _unchanged(settings.constitution, made_with["hash"])
    return About(
        run=folder.name,
        constitution_name=made_with["name"],
        constitution_version=made_with["version"],
        licence=made_with["licence"],
        language=made_with["language"],
        models={role: public(display_name(settings.models[role])) for role in meaning["models"]},
        prompts=public(meaning["prompts"]["file"]),
        pipeline=settings.name,
        stages=tuple(entry.kind for entry in settings.stages),
        constitution_hash=made_with["hash"],
        constitution="" if constitution is None else _yaml(constitution.model_dump(mode="json", exclude_defaults=True)),
        settings=_yaml(_pipeline(settings, "constitution.yaml" if constitution else public(settings.constitution))),
        identities={role: public(model["identity"]) for role, model in meaning["models"].items()},
        templates=_templates(settings, made_with["language"], meaning["templates"]),
        templates_hash=meaning["templates"],
        counted=_counted(summary),
        versions=_versions(settings, meaning),
    )


def public(text: str) -> str:
    """The text without addresses of servers of one's own, keys, and folders of this machine; file names stay."""
    text = _URL.sub(lambda url: url[0].partition("?")[0] if url[1].lower() in _hosts() else LEFT_OUT, text)
    text = _HF_FOLDER.sub("hf://./", _KEY.sub("left-out", text))
    if _PATH.fullmatch(text):  # nothing else: its folders may have spaces and commas in their names
        return re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return _FOLDERS.sub("", text)


LEFT_OUT = "https://address-left-out.invalid"  # a name that never leads anywhere (RFC 2606): nothing is sent to others

_URL = re.compile(r"\b(?!hf:|file:)[a-z][a-z0-9+.-]*://([^/\s#\"'?]+)[^\s#\"']*", re.IGNORECASE)
_KEY = re.compile(
    r"\b(?:(?:sk|hf|gsk|gh[opsu]|github_pat|xai|r8|nvapi|pplx)[-_]|AIza|AKIA)[\w-]{16,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"
)
# A text that is a path from a root, a home or the folder above; in the first name no space: "/think of either/or".
_PATH = re.compile(r"(?:file://)?(?:(?:~[\w.-]*|[A-Za-z]:|\.\.)[/\\]|[/\\]{1,2}[^/\\\s]+[/\\])[^\n]+")
# An absolute path but for its last name: two names at least, not after a letter or another slash.
_FOLDERS = re.compile(r"(?<![\w:/.])(?:file://)?(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s:,;\"']+[/\\])+")
_HF_FOLDER = re.compile(r"\bhf://~?/(?:[^/\n]+/)*")
_SECRET = re.compile(r"auth|key|secret|cookie|password|token", re.IGNORECASE)


def constitution_of(folder: RunFolder) -> Constitution | None:
    """What the run was made with; None where that was by a version that kept no copy."""
    try:
        return Constitution.model_validate_json(folder.constitution.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{folder.constitution} is not what rlaif wrote; remove it to go on without it") from error


def _hosts() -> set[str]:
    """Of the providers whose prices everybody knows."""
    return set(load_prices()[0].hosts)


def _public(value: Any) -> Any:  # Any: plain JSON
    if isinstance(value, str):
        return public(value)
    if isinstance(value, dict):
        numbers = (int, float, type(None))  # such as max_tokens
        hidden = {key for key, one in value.items() if _SECRET.search(str(key)) and not isinstance(one, numbers)}
        return {public(str(key)): "left-out" if key in hidden else _public(one) for key, one in value.items()}
    return [_public(one) for one in value] if isinstance(value, (list, tuple)) else value


def _pipeline(settings: Settings, constitution: str) -> dict[str, Any]:
    """As a pipeline's file has it; what is about this machine and this day alone is left out."""
    plain = settings.model_dump(mode="json", include={"name", "prompts", "templates", "export", "seed", "limit"})
    stages = [{entry.kind: getattr(entry, entry.kind).model_dump(mode="json")} for entry in settings.stages]
    if any(entry.code is not None for entry in settings.stages):
        stages = [
            {entry.code.code: entry.code.settings} if entry.code is not None else stage
            for entry, stage in zip(settings.stages, stages, strict=True)
        ]
    models = {role: _model(spec) for role, spec in settings.models.items()}
    content = {"name": plain.pop("name"), "constitution": constitution, "prompts": plain.pop("prompts")}
    content |= {"models": models, "templates": plain.pop("templates"), "stages": stages} | plain
    return {key: value for key, value in _public(content).items() if value not in (None, {})}


def _model(spec: ModelSpec) -> dict[str, Any]:
    """What its answers depend on."""
    kept = {"provider", "model", "identity", "extra_body", "batch", "engine", "lora", "script", "context_tokens"}
    plain = spec.model_dump(mode="json", include=kept, exclude_defaults=True) | {"provider": spec.provider}
    addresses = (spec.base_url, *spec.endpoints)
    if any(addresses):
        plain["base_url"] = public(next(filter(None, addresses)))
    if spec.fallback is not None:
        plain["fallback"] = _model(spec.fallback)
    return plain


def _unchanged(constitution: str, made_with: str) -> Constitution | None:
    """The user's file, if it still has that hash."""
    try:
        found = load_constitution(constitution)
    except ConfigError:
        return None
    return found if found.fingerprint == made_with else None


def _templates(settings: Settings, language: str, made_with: str) -> dict[str, str]:
    """The templates that the stages ask with; none if they are not those of the run any more."""
    try:
        templates = Templates(settings.templates, language)
    except ConfigError:
        return {}
    if templates.fingerprint != made_with:
        return {}
    return {name: templates.texts[name] for name in dict.fromkeys(_asked_with(settings))}


def _asked_with(settings: Settings) -> Iterable[str]:
    for entry in settings.stages:
        if entry.contrast is not None:
            yield from ("contrast_strong", "contrast_weak")
        if entry.revise is not None:
            yield from ("critique", "revise") if entry.revise.critique else ("revise_directly",)
        if entry.judge is not None:
            yield from _asked_by(entry.judge.by)
        if entry.rate is not None:
            yield "judge_rubric"


def _asked_by(judges: Iterable[Comparer]) -> Iterable[str]:
    for judge in judges:
        match judge:
            case Pairwise():
                yield from (
                    ("judge_pairwise_reason", "judge_pairwise_decide") if judge.reasoning else ("judge_pairwise",)
                )
            case Listwise():
                yield "judge_listwise"
            case Cascade():
                yield from _asked_by(judge.judges)


def _counted(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Of summary.json what is no error's text, no file's name and no time of day."""
    kept = {
        name: summary[name]
        for name in ("records", "outcomes", "duplicate_prompts", "funnel", "drafts")
        if name in summary
    }
    if ledger := summary.get("ledger"):
        kept["ledger"] = ledger
    found: dict[str, Any] = _public(kept)
    return found


def _versions(settings: Settings, meaning: Mapping[str, Any]) -> dict[str, str]:
    """Of what can change a row: this package, its keys, the writer of the files, the engines."""
    engines = {"local": "xllamacpp", "vllm": "vllm", "transformers": "transformers", "reward": "transformers"}
    used = {engines[spec.provider] for spec in settings.models.values() if spec.provider in engines}
    found = {"rlaif": __version__, "keys": str(meaning["key_version"]), "python": platform.python_version()}
    for name in ("pyarrow", "jinja2", *sorted(used)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # the export runs without them
            continue
    return found


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
