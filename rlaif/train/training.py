"""One training as the command sees it: what is wanted, the folder that appears whole, and the child that fills it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from rlaif.backends.weights import identity, model_folder
from rlaif.config import differences
from rlaif.documents import load
from rlaif.errors import ConfigError, RlaifError, StoreError
from rlaif.train.data import Gathered, Row, write
from rlaif.train.failures import NO_TEMPLATE, noted
from rlaif.train.rows import form_of
from rlaif.train.settings import (
    CHECKPOINTS,
    DATA,
    FAILURE,
    FILE,
    LOG,
    METRICS,
    STOP,
    Base,
    Training,
    TrainSettings,
    read_training,
    spec_of,
    write_training,
)

if TYPE_CHECKING:
    from rich.console import Console

_STOP_S = 10.0  # for a child whose pipe was closed
_LOCK_S = 3.0  # a child of a killed command sees its end at once


class TrainingFailed(RlaifError):
    """The child could not go on; the message says why, and where its log is."""


class Trained(NamedTuple):
    """`anew`: it was not there before this command."""

    folder: Path
    training: Training
    anew: bool


def base_of(model: str, spare_folder: Path, rows: Sequence[Row], options: Mapping[str, Any]) -> Base:
    """The model to train, downloaded or converted if need be. Raises ConfigError if the rows cannot train it."""
    folder = model_folder(spec_of(model), spare_folder)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{model} is an adapter, not a whole model; write the model with --merge, and train that")
    if form_of(rows[0]) == "messages" and not _has_template(folder) and "chat_template_path" not in options:
        raise ConfigError(f"{model}: {NO_TEMPLATE}")
    return Base(model=model, identity=identity(spec_of(model)))


def default_out(source: str, method: str) -> Path:
    """models/NAME-METHOD, NAME as the run, file or folder is called."""
    path = Path(source.partition("#")[0])
    stem = path.parent.name if path.name == "dataset" and path.parent.name else re.sub(r"\.[a-z]+$", "", path.name)
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "model"
    return Path("models") / f"{name}-{method}"


def trained(
    settings: TrainSettings,
    rows: Gathered,
    out: Path,
    console: Console,
    *,
    accelerate: str | None = None,
    notices: Sequence[str] = (),
) -> Trained:
    """The model at `out`: made, gone on with, or there already. Raises ConfigError, StoreError and TrainingFailed."""
    out = out.expanduser().absolute()
    try:
        if out.is_dir() and any(out.iterdir()):
            done = read_training(out)
            _same(done, settings, out)
            return Trained(out, done, anew=False)
        if out.exists() and not out.is_dir():
            raise ConfigError(f"{out} is a file; name a folder that is to be made: --out")
        _check_installed(settings)
        command = _command(accelerate)
        if accelerate == "zero3" and any(not name.startswith("judge:") for name in settings.online.get("reward", ())):
            raise ConfigError(
                "ZeRO-3 would cut up the reward model too; choose --accelerate zero2 or fsdp2, or a judge"
            )
        return Trained(out, _made(settings, rows, out, console, command, notices), anew=True)
    except BrokenPipeError:  # of the terminal's reader
        raise
    except OSError as error:
        where = error.filename or out.with_name(f"{out.name}.partial")
        raise StoreError(
            f"{where}: {error.strerror or error}; make room or name another --out, and run the same command again"
        ) from error


def _made(
    settings: TrainSettings, rows: Gathered, out: Path, console: Console, command: list[str], notices: Sequence[str]
) -> Training:
    partial = out.with_name(f"{out.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(partial) as lock:
        training = begin(partial, settings, rows, notices)
        if not training.done:
            _run([*command, str(partial / FILE)], partial, lock, console)
            training = read_training(partial)
        _finish(partial, out)
    return training


# --- the folder ---


def begin(partial: Path, settings: TrainSettings, rows: Gathered, notices: Sequence[str]) -> Training:
    """What was begun, if it got anywhere; else the rows and settings are written, the settings last."""
    if (partial / FILE).is_file():
        begun = read_training(partial)
        if begun.done or any((partial / CHECKPOINTS).glob("checkpoint-*")):
            _same(begun, settings, partial)
            again = begun.model_copy(update=dict(settings))  # a limit may have grown, a folder moved
            write_training(partial, again)
            return again
    elif strange := {path.name for path in partial.iterdir()} - _FIRST:
        raise ConfigError(f"{partial} is in the way, with {min(strange)} in it; move it, or name another --out")
    for path in partial.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
    for name in (DATA, CHECKPOINTS):
        (partial / name).mkdir()
    write(partial / DATA, "train", rows.train)
    if rows.test:
        write(partial / DATA, "test", rows.test)
    training = Training(**dict(settings), warnings=tuple(notices))
    write_training(partial, training)
    return training


_LOCK = ".lock"
_FIRST = {_LOCK, DATA, CHECKPOINTS, f"{FILE}.partial"}  # what a killed command may leave without a training.json


def _same(begun: Training, settings: TrainSettings, folder: Path) -> None:
    lines = differences(_plain(begun.settings), _plain(settings))
    if lines:
        raise ConfigError(
            f"{folder} is of other settings, and would not be what you ask for:\n  " + "\n  ".join(lines[:10]) + "\n"
            "name another --out, or remove that folder"
        )


def _plain(settings: TrainSettings) -> Any:  # Any: JSON
    """Without what changes no figure: models count by what they are, a limit may grow, and a journal move."""
    plain = json.loads(settings.model_dump_json())
    del plain["base"]["model"]
    for name in ("max_cost_usd", "reward", "runs_dir"):
        plain["online"].pop(name, None)
    return plain


def _finish(partial: Path, out: Path) -> None:
    """Plots, the card, and the name; a kill before the last line is made good by the next command."""
    from rlaif.train.card import write_card
    from rlaif.train.plots import draw

    draw(partial)
    write_card(partial)
    for name in (CHECKPOINTS, DATA):
        shutil.rmtree(partial / name, ignore_errors=True)
    for path in partial.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if out.is_dir():
        out.rmdir()  # empty, as was checked
    (partial / _LOCK).unlink(missing_ok=True)
    partial.rename(out)


@contextmanager
def _locked(partial: Path) -> Iterator[IO[str]]:
    """One training a folder. The child has the lock too: one whose parent was killed ends before another begins."""
    with (partial / _LOCK).open("a") as lock:
        deadline = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(f"{partial} is being trained by another process; wait for it") from None
            time.sleep(0.05)
        yield lock


# --- the child ---


def _check_installed(settings: TrainSettings) -> None:
    from rlaif.train.trackers import check_trackers

    if missing := [name for name in ("torch", "transformers", "trl", "peft", "accelerate") if not find_spec(name)]:
        raise ConfigError(f"training needs {', '.join(missing)}; run: pip install 'rlaif-kit[train]'")
    check_trackers(settings.options.get("report_to"))


def _command(accelerate: str | None) -> list[str]:
    child = ["-m", "rlaif.train.child"]
    # -P and our own path: it imports what we import, whatever lies in the current folder.
    if accelerate is None:
        return [sys.executable, "-P", *child]
    own = Path(accelerate).expanduser()
    layout = own if own.is_file() else _of_trl(accelerate)
    kind = _distribution(layout)
    if kind == "DEEPSPEED" and not find_spec("deepspeed"):
        raise ConfigError(f"--accelerate {accelerate} needs DeepSpeed; run: pip install deepspeed")
    processes: list[str] = []
    if layout != own:  # those of TRL are for eight
        devices = 1 if kind == "NO" else _devices()
        if not devices:
            raise ConfigError(
                f"--accelerate {accelerate} is for NVIDIA's GPUs, and none was found: say which in "
                "CUDA_VISIBLE_DEVICES, or name a file of accelerate's (`accelerate config --config_file FILE`)"
            )
        processes = ["--num_processes", str(devices)]
    launch = [sys.executable, "-P", "-m", "accelerate.commands.launch", "--config_file", str(layout)]
    return [*launch, *processes, *child]


def _distribution(layout: Path) -> str:
    """Accelerate's `distributed_type`. Raises ConfigError for a file that is none of its."""
    data = load(layout).data
    kind = data.get("distributed_type") if isinstance(data, dict) else None
    if kind is False:  # what YAML makes of NO without quotes
        return "NO"
    if not isinstance(kind, str):
        raise ConfigError(f"{layout} is no file of accelerate's: no distributed_type in it; see `accelerate config`")
    return kind


def _of_trl(accelerate: str) -> Path:
    package = find_spec("trl")
    folders = (package and package.submodule_search_locations) or ()
    known = {path.stem: path for folder in folders for path in sorted(Path(folder).glob("accelerate_configs/*.yaml"))}
    if accelerate not in known:
        raise ConfigError(f"--accelerate {accelerate}: no such file; known: {', '.join(known)}, or FILE.yaml")
    return known[accelerate]


def _devices() -> int:
    """NVIDIA's, without loading torch; 0 where that does not tell."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return len([one for one in chosen.split(",") if one.strip() not in ("", "-1")])
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def _run(command: Sequence[str], partial: Path, lock: IO[str], console: Console) -> None:
    """Until the child ends. When this process does, however, the child's stdin closes, and it ends too."""
    from rlaif.train.live import INTERRUPTED, follow

    for told in (FAILURE, STOP):
        (partial / told).unlink(missing_ok=True)
    (partial / METRICS).touch()
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with (partial / LOG).open("ab") as log:
        child = subprocess.Popen(
            command,
            env={**quiet, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(lock.fileno(),),
            start_new_session=True,  # Ctrl-C in the terminal is ours, and handed on once
        )
    try:
        code = follow(partial, child, console)
    finally:
        _end(child)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code or not read_training(partial).done:
        why = noted(partial, code)
        if why.settings:
            raise ConfigError(why.line)
        saved = any((partial / CHECKPOINTS).glob("checkpoint-*"))
        again = "; the same command goes on from the last checkpoint" if saved else ""
        raise TrainingFailed(f"{why.line}; the log: {partial / LOG}{again}")


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_templates").is_dir():
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))
