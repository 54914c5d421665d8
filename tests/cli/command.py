"""The command as a user types it: in a process of its own, or in ours where only the words matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlaif import cli

SCRIPTED = ["--policy", "scripted", "--judge", "scripted", "--set", "revise.rounds=1"]


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # Any: what json gives
        return json.loads(self.out)


class Command:
    """`rlaif ARGUMENTS` in the current process, in `folder`."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, columns: int = 100) -> Done:
        self._monkeypatch.chdir(self.folder)
        self._monkeypatch.setenv("COLUMNS", str(columns))
        self._monkeypatch.setattr(sys, "argv", ["rlaif", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    def generate(self, *arguments: str, limit: int = 3, run: str = "first") -> Done:
        return self("generate", *SCRIPTED, "--limit", str(limit), "--run", run, *arguments)

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name


# The command, which sends itself a signal as the scripted model is asked the so-manieth time.
SIGNALLED = """
import os, sys
from rlaif import cli
from rlaif.backends.scripted import ScriptedBackend

number, at = int(sys.argv.pop(1)), int(sys.argv.pop(1))
answer, asked = ScriptedBackend.complete, 0

async def complete(self, request):
    global asked
    asked += 1
    if asked == at:
        os.kill(os.getpid(), number)
    return await answer(self, request)

ScriptedBackend.complete = complete
cli.main()
"""


def start_signalled(folder: Path, arguments: Sequence[str], number: int, at: int) -> subprocess.Popen[str]:
    """From outside no signal comes at a certain point: the run may be over before."""
    return start(folder, [str(number), str(at), *arguments], program=("-c", SIGNALLED))


def start(
    folder: Path, arguments: Sequence[str], *, program: Sequence[str] = ("-m", "rlaif"), **options: Any
) -> subprocess.Popen[str]:  # Any: Popen's own
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "100"}
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )
