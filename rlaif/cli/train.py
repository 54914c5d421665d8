"""`rlaif train DATA... --method M`: a model fine-tuned with TRL, in a folder that appears whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlaif.cli.options import RunsDir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlaif.train.data import Gathered
    from rlaif.train.online import OnlineSettings
    from rlaif.train.options import Options
    from rlaif.train.settings import Method, TrainSettings
    from rlaif.train.training import Trained


def train(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Runs, dataset folders (FOLDER#CONFIG), files with TRL's columns; each may end in =WEIGHT,CAP: "
            "a share of its rows, drawn by the prompt, and at most so many.",
        ),
    ],
    method: Annotated[
        str | None, typer.Option(help="sft, dpo, kto, reward, grpo, rloo or orpo. [as the recipe is called]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A Hugging Face folder, a name on the hub, or local, the bundled one. [local]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to make. [models/DATA-METHOD]")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A bundled recipe, or a file as `trl METHOD --config` takes it.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="TRL's options, like dpo.beta=0.1, or watch.stop=true."),
    ] = None,
    lora: Annotated[bool | None, typer.Option("--lora/--full", help="An adapter, or all weights. [--lora]")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Write full weights, the adapter merged in.")] = False,
    soft: Annotated[bool, typer.Option("--soft", help="DPO on the judge's probabilities, the column p.")] = False,
    reward: Annotated[
        list[str] | None,
        typer.Option(metavar="REWARD", help="For grpo and rloo: a reward model, or judge:PROVIDER/MODEL. Repeatable."),
    ] = None,
    accelerate: Annotated[
        str | None, typer.Option(help="On several GPUs: zero3, fsdp2, multi_gpu, or a config of accelerate's.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Fine-tune a model on what was exported, with TRL. The same command again goes on from the last checkpoint.

    The folder has the model, training.json, metrics.jsonl, plots, and a card. A finished one is left alone.
    """
    from rich.console import Console

    from rlaif.errors import ConfigError
    from rlaif.train.data import gathered
    from rlaif.train.options import options_of
    from rlaif.train.training import default_out, trained

    chosen, is_soft, file = _method(method, recipe)
    options = options_of(chosen, file, assignments or [])
    is_soft = is_soft or soft or options.soft
    if is_soft and chosen != "dpo":
        raise ConfigError(f"--soft is for --method dpo, not {chosen}")
    if chosen == "orpo" and not options.experimental:
        raise ConfigError("ORPO is experimental in TRL and may change or go; if so be it: --set orpo.experimental=true")
    found = gathered(data, chosen, runs_dir, soft=is_soft)
    settings = _settings(chosen, options, found, model, lora, merge, is_soft, reward or [], runs_dir)
    notices = _notices(found, options)
    for notice in notices:
        _say(notice)
    name = f"{chosen}-soft" if is_soft else chosen
    to = out or default_out(found.data[0].path if "/" in found.data[0].source else found.data[0].source, name)
    _report(trained(settings, found, to, Console(), accelerate=accelerate, notices=notices), to)


def _method(method: str | None, recipe: str | None) -> tuple[Method, bool, Path | None]:
    """A bundled recipe is called METHOD or METHOD-soft, and a file of one's own may be."""
    from rlaif.errors import ConfigError
    from rlaif.resources import find
    from rlaif.train.methods import METHODS, method_of

    if recipe is None:
        if method is None:
            raise ConfigError(f"say how to train: --method {', '.join(METHODS)}")
        return method_of(method), False, None
    path = Path(recipe) if Path(recipe).is_file() else find("pipelines", f"train/{recipe}")
    first, _, rest = path.stem.partition("-")
    if method is None and first not in METHODS:
        raise ConfigError(f"say --method too: the recipe {path.name} is called after none of {', '.join(METHODS)}")
    chosen = method_of(method or first)
    return chosen, first == chosen and rest == "soft", path


def _settings(
    method: Method,
    options: Options,
    found: Gathered,
    model: str | None,
    lora: bool | None,
    merge: bool,
    soft: bool,
    rewards: Sequence[str],
    runs_dir: Path,
) -> TrainSettings:
    from rlaif.errors import ConfigError
    from rlaif.train.methods import checked
    from rlaif.train.online import check_online
    from rlaif.train.settings import TrainSettings
    from rlaif.train.training import base_of

    with_lora = lora if lora is not None else options.lora if options.lora is not None else True
    if merge and not with_lora:
        raise ConfigError("--merge is for --lora: --full writes full weights anyway")
    checked(method, options.trl, soft=soft)
    online = _online(method, options, rewards, runs_dir)
    return TrainSettings(
        method=method,
        base=base_of(model or options.model or "local", runs_dir, found.train, options.trl),
        data=found.data,
        options=dict(options.trl),
        soft=soft,
        lora=with_lora,
        merge=merge,
        watch=options.watch,
        online=online.model_dump(mode="json", exclude_defaults=True) if online else {},
        rewarded_by=check_online(online) if online else (),
    )


def _online(method: Method, options: Options, rewards: Sequence[str], runs_dir: Path) -> OnlineSettings | None:
    from pydantic import ValidationError

    from rlaif.errors import ConfigError
    from rlaif.train.methods import SAMPLING
    from rlaif.train.online import OnlineSettings

    given = {**options.online, **({"reward": rewards} if rewards else {})}
    if method not in SAMPLING:
        if given:
            raise ConfigError(f"--reward and online.* are for grpo and rloo; {method} learns from DATA alone")
        return None
    if options.reward and "reward" not in given:
        given["reward"] = [options.reward]
    if not given.get("reward"):
        raise ConfigError(f"{method} needs a reward: --reward FOLDER of a reward model, or --reward judge:MODEL")
    try:
        return OnlineSettings.model_validate({"runs_dir": str(runs_dir), **given})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ConfigError(f"--set online.{name}: {first['msg'].removeprefix('Value error, ')}") from None


def _notices(found: Gathered, options: Options) -> list[str]:
    said = [
        f"{one.source}: {n:,} row{'s are' * (n > 1) or ' is'} left out: {reason}"
        for one in found.data
        for reason, n in one.left_out.items()
    ]
    if options.unused:
        said.append(f"not used of the recipe, as the command says it: {', '.join(options.unused)}")
    return said


def _report(done: Trained, to: Path) -> None:
    training = done.training
    if not done.anew:
        _say(f"{to} is there already, of the same settings; for another training name another --out")
        return
    for warning in training.warnings:
        _say(f"warning: {warning}")
    figures = [f"{name} {value:.4g}" for name in _SHOWN if (value := training.final.get(name)) is not None]
    _say(f"{training.steps:,} steps in {training.seconds:,.0f} s; {', '.join(figures)}")
    _say(f"model: {to} ({training.identity})")


_SHOWN = ("loss", "eval_loss", "rewards/accuracies", "rewards/margins", "accuracy", "reward")


def _say(text: str) -> None:
    from rlaif.cli.text import harmless

    typer.echo(harmless(text))
