"""The card of a trained model, README.md: from what, how and with what success it was made, and how to do so again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any  # plain JSON and YAML

import yaml

from rlaif.export.front import licence_of
from rlaif.export.markup import code, fenced, table
from rlaif.store import write_whole
from rlaif.train.lines import NAME
from rlaif.train.plots import FAMILIES, FOLDER
from rlaif.train.settings import FILE, Data, Training, read_training
from rlaif.version import __version__

MARKER = "<!-- written by `rlaif train` -->"
BUNDLED = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what `local` stands for, by its name on the hub
_LICENCES = {BUNDLED: "apache-2.0"}
_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def write_card(folder: Path) -> None:
    """Of a folder that a training wrote. An evaluation.json in it, or in its evaluation/, is told of too."""
    training = read_training(folder)
    write_whole(folder / "README.md", card(training, folder).encode(errors="replace"))


def card(training: Training, folder: Path) -> str:
    """No text of a model is in it; names and settings, which anyone may have chosen, stand in code."""
    front = yaml.safe_dump(_front_matter(training, folder), sort_keys=False, allow_unicode=True)
    name = folder.name.removesuffix(".partial")
    sections = [
        _lead(training, name),
        _use(training, folder),
        _how(training),
        _data(training),
        _success(training, folder),
        _evaluation(folder),
        _again(training, name),
        LIMITS,
    ]
    body = "\n".join(section for section in sections if section)
    return f"---\n{front}---\n{MARKER}\n\n# {code(name)}\n\n{body}"


LIMITS = """\
## Known limits

- Trained on a model's opinions of models' responses: what the judge and its constitution missed is missing here too.
- Refusing what is harmful can bring refusing what only sounds so. `rlaif eval safety` measures both.
- The base model's limits stay, and the terms of its makers and of the data may bind who uses this.
"""


def _front_matter(training: Training, folder: Path) -> dict[str, object]:
    base = _base(training)
    on_hub = bool(_HUB.fullmatch(base)) and not Path(base).exists()
    datasets = [data.path for data in training.data if _HUB.fullmatch(data.path) and not Path(data.path).exists()]
    reward = training.method == "reward"
    known: dict[str, object] = {
        "base_model": base if on_hub else None,
        "base_model_relation": ("adapter" if _is_adapter(folder) else "finetune") if on_hub else None,
        **(licence_of(_LICENCES.get(base))),
        "datasets": datasets,
        "library_name": "peft" if _is_adapter(folder) else "transformers",
        "pipeline_tag": "text-classification" if reward else "text-generation",
    }
    tags = ["rlaif", "constitutional-ai", "trl", training.method, *(["lora"] if training.lora else [])]
    return {**{key: value for key, value in known.items() if value}, "tags": tags}


def _base(training: Training) -> str:
    return BUNDLED if training.base.model == "local" else training.base.model


def _base_name(training: Training) -> str:
    """As it may be published: of a path only the last name."""
    base = _base(training)
    return base if _HUB.fullmatch(base) and not Path(base).exists() else Path(base).name or base


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _lead(training: Training, name: str) -> str:
    soft = " on soft labels" if training.soft else ""
    how = f"{_METHODS[training.method]}{soft}"
    kind = "LoRA, merged" if training.lora and training.merge else "LoRA" if training.lora else "all weights"
    rows = sum(data.rows for data in training.data)
    lines = [
        ("base", f"{code(_base_name(training))}, {code(training.base.identity)}"),
        ("method", f"{how}, {kind}"),
        ("data", f"{rows:,} rows{_sources(training.data)}"),
        ("length", f"{training.steps:,} steps, {_span(training.seconds)}"),
        ("identity", code(training.identity)),
    ]
    made = f"Made with [rlaif](https://pypi.org/project/rlaif-kit/) {__version__} and TRL."
    return f"{made}\n\n" + "".join(f"- {what}: {which}\n" for what, which in lines)


def _sources(data: Sequence[Data]) -> str:
    return " of " + ", ".join(code(_source(one)) for one in data) if data else ""


def _source(data: Data) -> str:
    """The name, without the place on this disk."""
    name, _, config = data.source.partition("#")
    local = Path(name).expanduser()
    name = local.name if local.is_absolute() or local.exists() or name.startswith((".", "~")) else name
    return f"{name}#{config}" if config else name


def _use(training: Training, folder: Path) -> str:
    if training.method == "reward":
        how = "rlaif eval reward FOLDER --data PAIRS.jsonl"
        return f"## Use\n\nIt scores responses: as a judge of `kind: reward`, or\n\n{fenced(how, 'sh')}"
    adapter = _is_adapter(folder)
    kind = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    library = "peft" if adapter else "transformers"
    lines = [
        f"from {library} import {kind}" if adapter else f"from {library} import {kind}, AutoTokenizer",
        *(["from transformers import AutoTokenizer"] if adapter else []),
        "",
        f'model, tokenizer = {kind}.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")',
        'prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True,',
        '                                       return_tensors="pt", return_dict=True)',
        "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=200)[0]))",
    ]
    return f"## Use\n\n{fenced(chr(10).join(lines), 'python')}"


_METHODS = {
    "sft": "supervised fine-tuning",
    "dpo": "direct preference optimization",
    "kto": "Kahneman-Tversky optimization",
    "reward": "a reward model (Bradley-Terry)",
    "grpo": "group relative policy optimization",
    "rloo": "REINFORCE leave-one-out",
    "orpo": "odds ratio preference optimization (experimental in TRL)",
}


def _how(training: Training) -> str:
    options = _shown({**training.effective, **training.options})
    rows = [
        (code(name), code(value), "" if name in training.options else "rlaif's default")
        for name, value in sorted(options.items())
    ]
    parts = ["## How it was trained\n"]
    if rows:
        parts.append(table(("option of TRL", "value", ""), rows))
    if training.online:
        rewards = [code(_last(str(name))) for name in training.online.get("reward", ())]
        parts.append(f"Responses were sampled while it learned, and rewarded by {', '.join(rewards)}.\n")
    if training.versions:
        parts.append(", ".join(f"{name} {code(version)}" for name, version in training.versions.items()) + "\n")
    return "\n".join(parts)


def _shown(options: Mapping[str, Any]) -> dict[str, str]:
    """Options as --set takes them, without keys, and without places on this disk."""

    def shown(value: Any) -> str:
        if isinstance(value, str):
            return _last(value)
        return f"{value:g}" if isinstance(value, float) else json.dumps(value)

    return {name: shown(value) for name, value in options.items() if not _SECRET.search(name)}


_SECRET = re.compile("(?i)token$|key$|secret|password")


def _last(name: str) -> str:
    """A path's last name, and any other name as it is."""
    return Path(name).name if name.startswith(("/", "~", "./", "../")) else name


def _data(training: Training) -> str:
    if not training.data:
        return ""
    rows = [
        (code(_source(data)), code(data.config) if data.config else "", code(data.digest), f"{data.weight:g}",
         f"{data.rows:,}", f"{data.test_rows:,}")
        for data in training.data
    ]  # fmt: skip
    parts = [
        "## Data\n",
        table(("source", "configuration", "digest", "share", "rows", "test rows"), rows, 3),
        *(facts for data in training.data if (facts := _facts(data))),
    ]
    if left := [(data, reason, n) for data in training.data for reason, n in data.left_out.items()]:
        said = [f"- {code(_source(data))}: {n:,}, {code(reason)}" for data, reason, n in left]
        parts.append("Left out:\n\n" + "\n".join(said) + "\n")
    return "\n".join(parts)


def _facts(data: Data) -> str:
    """What the dataset's own folder tells of how it was made."""
    folder = Path(data.path.partition("#")[0]).expanduser()
    constitution, pipeline = (_mapping(folder / f"{name}.yaml") for name in ("constitution", "pipeline"))
    lines = []
    if name := constitution.get("name"):
        version = constitution.get("version")
        lines.append(("constitution", code(str(name)) + (f", version {code(str(version))}" if version else "")))
    models = pipeline.get("models")
    for role, model in models.items() if isinstance(models, dict) else ():
        if isinstance(model, dict):
            named = "/".join(_last(str(part)) for key in ("provider", "model") if (part := model.get(key)))
            lines.append((code(str(role)), code(named)))
    said = "; ".join(f"{what} {which}" for what, which in lines)
    return f"{code(_source(data))} was made with {said}.\n" if said else ""


def _mapping(path: Path) -> Mapping[str, Any]:
    """Empty if there is none, or one that says nothing."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _success(training: Training, folder: Path) -> str:
    final = [
        (code(name), f"{value:.4g}")
        for name, value in training.final.items()
        if value is not None and _TOLD.search(name)
    ]
    curves = [name for name in FAMILIES if (folder / FOLDER / f"{name}.png").is_file()]
    pictures = "\n".join(f"![{FAMILIES[name].title}]({FOLDER}/{name}.png)" for name in curves)
    warned = "\n".join(f"- {code(text)}" for text in training.warnings)
    parts = ["## How it went\n"]
    if final:
        parts.append(table(("at the last logging step", ""), final, 1))
    parts.append(f"All figures, of each logging step, are in `{NAME}`.\n")
    parts.append(f"{pictures}\n" if pictures else "No curves were drawn: matplotlib was not installed.\n")
    parts.append(f"Warnings:\n\n{warned}\n" if warned else "The training's watch gave no warning.\n")
    return "\n".join(parts)


_TOLD = re.compile(r"loss|margin|accurac|reward$|^kl$|mean_length")


def _evaluation(folder: Path) -> str:
    """Of `rlaif eval safety` and `rlaif eval compare`, if their JSON was put here."""
    found: dict[str, Any] = {}
    for path in (folder / "evaluation.json", folder / "evaluation" / "evaluation.json"):
        found = found or dict(_mapping(path))  # YAML reads JSON
    safety = [
        (code(_last(str(model.get("model", "")))), _figure(model, "unsafe", "harmful_compliance"),
         _figure(model, "safe", "over_refusal"))
        for model in _list(found, "models")
    ]  # fmt: skip
    parts = []
    if any(any(cells[1:]) for cells in safety):
        parts.append(table(("model", "harmful compliance", "over-refusal"), safety, 1))
    if changes := [_change(pair) for pair in _list(found, "paired")]:
        parts.append(table(("before", "after", "harmful compliance", "over-refusal"), changes, 2))
    wins = [
        (code(_last(str(pair.get("a", "")))), code(_last(str(pair.get("b", "")))), _figure(pair, "win_rate"))
        for pair in _list(found, "pairs")
    ]
    if wins:
        parts.append(table(("model", "against", "win rate"), wins, 2))
    note = "95% intervals in brackets; changes are in percentage points, after less before, on the same prompts.\n"
    return "\n".join(["## Evaluation\n", *parts, note]) if parts else ""


def _list(found: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    inner = found.get(name)
    return [one for one in inner if isinstance(one, dict)] if isinstance(inner, list) else []


def _figure(found: Any, *names: str, form: str = "{:.1%}") -> str:
    """Empty where it is not said. The file may be anyone's, so a figure is a number or nothing."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    numbers = [found.get(key) for key in ("value", "low", "high")] if isinstance(found, dict) else []
    if not numbers or not all(isinstance(number, (int, float)) for number in numbers):
        return ""
    value, low, high = (form.format(number) for number in numbers)
    return f"{value} [{low}, {high}]"


def _change(pair: Mapping[str, Any]) -> tuple[str, ...]:
    cells = []
    for name in ("harmful_compliance", "over_refusal"):
        inner = pair.get(name)
        change = {**inner, "value": inner.get("difference")} if isinstance(inner, dict) else None
        percent = {key: 100 * v if isinstance(v, (int, float)) else v for key, v in (change or {}).items()}
        cells.append(_figure({name: percent}, name, form="{:+.1f}"))
    return code(_last(str(pair.get("before", "")))), code(_last(str(pair.get("after", "")))), *cells


def _again(training: Training, name: str) -> str:
    shares = [
        f"{_source(data)}={data.weight:g}" + (f",{data.cap}" if data.cap else "")
        if data.weight != 1 or data.cap
        else _source(data)
        for data in training.data
    ]
    model = training.base.model if training.base.model == "local" else _base_name(training)
    online = training.online.get("reward", ())
    watch = training.watch.model_dump(mode="json", exclude_defaults=True)
    words = [
        "rlaif", "train", *shares, "--method", training.method, "--model", model,
        *(["--soft"] if training.soft else []),
        "--lora" if training.lora else "--full", *(["--merge"] if training.merge else []),
        *(word for reward in online for word in ("--reward", _last(str(reward)))),
        *(word for key, value in watch.items() for word in ("--set", f"watch.{key}={json.dumps(value)}")),
        *(word for key, value in _shown(training.options).items() for word in ("--set", f"{key}={value}")),
        "--out", f"models/{name}",
    ]  # fmt: skip
    return (
        f"## Make it again\n\n{fenced(shlex.join(words), 'sh')}\n"
        f"Names of files are given without their folders. All settings are in `{FILE}`.\n"
    )


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
