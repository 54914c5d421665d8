"""One step of a round: a command in a process of its own, with its log, and a file that says it is done."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from rlaif.errors import RlaifError, StoreError
from rlaif.store import write_whole

_POLL_S = 0.5
_INTERRUPTED = 130  # the exit code of our commands after Ctrl-C
_TAIL = 2_000  # bytes of a log that an error's last line is looked for in


class StepFailed(RlaifError):
    """A command of a round ended with an error; the loop goes on there when it is run again."""


@dataclass(frozen=True, slots=True)
class Step:
    """`rlaif ARGUMENTS`, which makes the file `makes`; `folder` is its round's, for log and done-file.

    `summary`: of its run, if it is one.
    """

    round: int
    name: str
    arguments: tuple[str, ...]
    makes: Path
    folder: Path
    summary: Path | None = None

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def done_file(self) -> Path:
        return self.folder / f"{self.name}.done.json"

    @property
    def command(self) -> str:
        """As a person types it."""
        return shlex.join(("rlaif", *self.arguments))

    def made_by(self, done: Done) -> bool:
        """What is there is of that start, not of an earlier one."""
        return self.makes.is_file() and self.makes.stat().st_mtime > time.time() - done.seconds - 1


@dataclass(frozen=True, slots=True)
class Done:
    """`inputs` is a digest of the command and of all that it was made from; `seconds` of its last start."""

    step: str
    command: str
    inputs: str
    exit: int
    seconds: float
    ended: str


def digest(*parts: object) -> str:
    return blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()


def done_before(step: Step, inputs: str) -> Done | None:
    """The step's done-file, if it is of these inputs and what it made is still there."""
    try:
        done = Done(**json.loads(step.done_file.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return done if done.inputs == inputs and step.makes.exists() else None


def run(step: Step, inputs: str, lock: Lock) -> Done:
    """Run the command to its end, whatever its exit code; only `settle` makes it done.

    Ctrl-C and SIGTERM are handed to the command, which keeps what it has, and waited for; then KeyboardInterrupt.
    """
    with writing(step.log):
        step.folder.mkdir(parents=True, exist_ok=True)
        with step.log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} $ {step.command}\n")
    begun = time.monotonic()
    with step.log.open("ab") as log, interrupting():
        child = subprocess.Popen(
            [sys.executable, "-m", "rlaif", *step.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Lines as they come, and of one width whoever starts the loop.
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"},
            start_new_session=True,  # one Ctrl-C reaches it once, through us
            pass_fds=[lock.fileno],
        )
        code = _end_of(child, lambda: lock.say(step.name, child.pid))
    seconds = time.monotonic() - begun
    return Done(step.name, step.command, inputs, code, round(seconds, 1), time.strftime("%Y-%m-%dT%H:%M:%S"))


def settle(step: Step, done: Done) -> None:
    """From now on the step is not run again."""
    write_whole(step.done_file, (json.dumps(asdict(done), indent=2) + "\n").encode())


def failure(step: Step, done: Done) -> StepFailed:
    """What to say of a command that ended with an error: its last word, and where the others are."""
    word = last_line(step.log)
    said = f": {word.removeprefix('rlaif: ')}" if word else ""
    how = f"ended with exit code {done.exit}" if done.exit >= 0 else f"was ended by {signal.Signals(-done.exit).name}"
    return StepFailed(
        f"round {step.round}: {step.name} {how}{said}\n  its log: {step.log}\n  "
        f"its command: {step.command}\nmend it and run the same command again: what is done is not done again"
    )


def last_line(log: Path) -> str:
    """The last line with something in it."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        # A progress bar overwrites its line.
        lines = [line.rpartition("\r")[2].strip() for line in file.read().decode(errors="replace").split("\n")]
        return next((line for line in reversed(lines) if line), "")
    return ""


def _end_of(child: subprocess.Popen[bytes], say: Callable[[], None]) -> int:
    """The exit code of a command that was let go on to its end; after Ctrl-C KeyboardInterrupt instead."""
    interrupted = False
    while True:
        try:
            say()
            code = child.wait()
            break
        except KeyboardInterrupt:  # each one is handed on: a command may take the second as an order to leave
            interrupted = True
            child.send_signal(signal.SIGINT)
    if interrupted or code == _INTERRUPTED:  # or somebody interrupted the command itself
        raise KeyboardInterrupt
    return code


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises StoreError where there is no place, or no right to write."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """SIGTERM, and a terminal that is closed, are a Ctrl-C to us."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # else it is another's, or ignored by nohup
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Lock:
    """One loop a folder. Steps inherit the lock: that of a loop that was killed is held as long as its step lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    @property
    def fileno(self) -> int:
        assert self._file is not None
        return self._file.fileno()

    def take(self) -> Iterator[str]:
        """Take it, in the end; gives who has it, again and again while that is the step of a loop that was killed.

        Raises StoreError where another loop is at work in the folder.
        """
        while (owner := self._owner()) is not None:
            name = owner.get("loop")
            if _lives(name):
                who = "another process" if name is None else f"process {name}"
                raise StoreError(f"{self._path.parent} is being written by {who}; wait for it, or end it")
            yield f"{owner.get('step')} (process {owner.get('process')})"
            time.sleep(_POLL_S)
        self.say()

    def say(self, step: str | None = None, process: int | None = None) -> None:
        """Who holds it, for others to read; a step that is at work is not left alone for want of place."""
        said = json.dumps({"loop": os.getpid(), "step": step, "process": process}).encode()
        with contextlib.suppress(OSError):
            os.ftruncate(self.fileno, 0)
            os.write(self.fileno, said)

    def _owner(self) -> dict[str, object] | None:
        """None: we are it."""
        if self._file is None:
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            with contextlib.suppress(ValueError):  # just being written, or the disk is full
                return dict(json.load(self._file))
            return {}
        return None

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _lives(process: object) -> bool:
    if not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
