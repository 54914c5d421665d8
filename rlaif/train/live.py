"""A training while it goes: a live table on a terminal, a line now and then elsewhere, and Ctrl-C handed on."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rlaif.train.health import figure
from rlaif.train.lines import Line, Tail
from rlaif.train.settings import STOP

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

POLL_S = 0.25
PLAIN_EVERY_S = 15.0
ROWS = 8  # of the table; half a screen
LAST_WORDS_S = 20.0  # that a training has when it is told to end for the second time
INTERRUPTED = 128 + signal.SIGINT  # the exit code of a training that was told to stop
_BARS = "▁▂▃▄▅▆▇█"


def follow(folder: Path, child: subprocess.Popen[bytes], console: Console) -> int:
    """Shows the training in `folder` until the child ends; its exit code, 128 + n if a signal ended it.

    After Ctrl-C or SIGTERM it may finish a step and save; the second one ends it, and what it then ends with is
    INTERRUPTED, unless it was done. The child needs a process group of its own: else the terminal sends it the signal
    too, in the middle of saving.
    """
    view = View()
    show = _live if console.is_terminal else _plain
    with _terminated_as_interrupted(), show(view, console):
        tail, told = Tail(folder), 0
        while True:
            try:
                code = child.poll()  # before reading: what was written until it ended is read
                view.take(tail.new(), anew=tail.anew)
                if code is not None:
                    return INTERRUPTED if code and told else code if code >= 0 else 128 - code
                time.sleep(POLL_S)
            except KeyboardInterrupt:
                told += 1
                view.note = _tell(child, folder, at_once=told > 1 or not view.logged)


def _tell(child: subprocess.Popen[bytes], folder: Path, *, at_once: bool) -> str:
    """By a file, as the child may be a launcher, which hands on no signal without killing soon after."""
    if not at_once:
        (folder / STOP).touch()
        return "stopping: the step under way is finished and saved; Ctrl-C again stops without"
    child.terminate()
    try:
        child.wait(LAST_WORDS_S)
    except subprocess.TimeoutExpired:
        child.kill()
    return "stopped"


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """A scheduler's SIGTERM must not leave a training that nobody follows."""

    def interrupted(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class View:
    """What is known of a training so far."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.logged: list[Line] = []  # of training steps, not of evaluations
        self.warnings: list[str] = []
        self.note = ""

    def take(self, lines: Sequence[Line], *, anew: bool = False) -> None:
        if anew:
            self.logged, self.warnings = [], []
        for line in lines:
            self.warnings += [str(warning["text"]) for warning in line.get("warnings", ())]
            if "loss" in line:
                self.logged.append(line)

    @property
    def step(self) -> int:
        return int(self.logged[-1]["step"]) if self.logged else 0

    @property
    def steps(self) -> int:
        return int(self.logged[-1]["max_steps"]) if self.logged else 0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began

    @property
    def remaining_s(self) -> float | None:
        """By the pace of the last lines; None before there are two."""
        recent = self.logged[-10:]
        if len(recent) < 2 or recent[-1]["step"] == recent[0]["step"]:
            return None
        pace = (recent[-1]["time_s"] - recent[0]["time_s"]) / (recent[-1]["step"] - recent[0]["step"])
        return max(0.0, float(pace * (self.steps - self.step)))


def tokens_per_s(lines: Sequence[Mapping[str, Any]], at: int) -> float | None:
    """Over the ten lines before; None where the trainer counts none, and where it began to count anew."""
    now, then = lines[at], lines[max(0, at - 10)]
    ends = [figure(line, name) for line in (then, now) for name in ("num_tokens", "time_s")]
    if None in ends:
        return None
    tokens, seconds = ends[2] - ends[0], ends[3] - ends[1]  # type: ignore[operator]  # looked at above
    return tokens / seconds if tokens > 0 and seconds > 0 else None


@contextmanager
def _live(view: View, console: Console) -> Iterator[None]:
    from rich.live import Live

    with Live(get_renderable=lambda: table(view, console.width), console=console, refresh_per_second=4):
        yield


@contextmanager
def _plain(view: View, console: Console) -> Iterator[None]:
    """From a thread: the end of the training does not wait for the next line."""
    from rich.text import Text

    over = threading.Event()
    shown, warned, noted = -1, 0, ""

    def news() -> None:
        nonlocal shown, warned, noted
        for warning in view.warnings[warned:]:
            console.print(Text(f"warning: {warning}"), soft_wrap=True)
        warned = len(view.warnings)
        if view.step != shown:
            console.print(Text(line(view)), soft_wrap=True)
            shown = view.step
        if view.note != noted:
            console.print(Text(view.note), soft_wrap=True)
            noted = view.note

    def report() -> None:
        while not over.wait(PLAIN_EVERY_S):
            news()

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        news()


def line(view: View) -> str:
    if not view.logged:
        return f"no step yet, {span(view.elapsed_s)}"
    last = view.logged[-1]
    parts = [f"step {view.step:,}/{view.steps:,}", *(f"{head} {cell}" for head, cell in _cells(view, -1).items())]
    if "epoch" in last:
        parts.insert(1, f"epoch {last['epoch']:.2f}")
    left = view.remaining_s
    return ", ".join([*parts, span(view.elapsed_s), *([f"{span(left)} to go"] if left else [])])


def table(view: View, width: int = 80) -> RenderableType:
    """The last lines, the course of the loss, how far it is, and the warnings."""
    from rich import box
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if not view.logged:
        return Text(f"loading the model and the data, {span(view.elapsed_s)}", style="dim")
    rows = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    cells = {at: _cells(view, at) for at in range(max(0, len(view.logged) - ROWS), len(view.logged))}
    heads = list(dict.fromkeys(head for row in cells.values() for head in row))
    for head in ("step", "epoch", *heads):
        rows.add_column(head, justify="right", no_wrap=True)
    for at, row in cells.items():
        logged = view.logged[at]
        epoch = f"{logged['epoch']:.2f}" if "epoch" in logged else ""
        rows.add_row(f"{logged['step']:,}", epoch, *(row.get(head, "") for head in heads))
    bar = Table.grid(padding=(0, 1))
    left = view.remaining_s
    togo = f", {span(left)} to go" if left else ""
    bar.add_row(
        ProgressBar(total=max(view.steps, 1), completed=view.step, width=30),
        Text(f"{view.step:,}/{view.steps:,}  {span(view.elapsed_s)}{togo}"),
    )
    losses = [value for logged in view.logged if (value := figure(logged, "loss")) is not None]
    course = Text(f"loss {sparkline(losses, min(60, width - 5))}", style="cyan", no_wrap=True)
    notes = [Text(f"warning: {warning}", style="yellow") for warning in view.warnings]
    said = [Text(view.note, style="bold yellow")] if view.note else []
    return Group(rows, *([course] if len(losses) > 1 else []), bar, *notes, *said)


_COLUMNS = {"loss": "loss", "reward": "reward", "margin": "margin", "accuracy": "accuracy", "grad norm": "grad_norm"}


def _cells(view: View, at: int) -> dict[str, str]:
    """Of the figures that the trainer logs, those that tell how it goes."""
    at %= len(view.logged)
    logged = view.logged[at]
    found = {head: figure(logged, name) for head, name in _COLUMNS.items()}
    cells = {head: f"{value:#.4g}".rstrip(".") for head, value in found.items() if value is not None}
    if (rate := figure(logged, "learning_rate")) is not None:
        cells["lr"] = f"{rate:.1e}"
    if (pace := tokens_per_s(view.logged, at)) is not None:
        cells["tokens/s"] = f"{pace:,.0f}"
    return cells


def sparkline(values: Sequence[float], width: int) -> str:
    """Means of equal shares of the values, from the lowest bar to the highest."""
    n = min(width, len(values))
    means = []
    for i in range(n):
        some = values[i * len(values) // n : (i + 1) * len(values) // n]
        means.append(sum(some) / len(some))
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def span(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
