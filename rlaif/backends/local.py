"""A model in a llama.cpp server on this machine: a child process, started at the first question.

A child, not a thread, because a native abort must not take the run with it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec

from rlaif.backends import ModelSpec
from rlaif.backends.child import Restarted
from rlaif.backends.gguf import as_q8_0, find_weights, sha256_of
from rlaif.backends.llama_server import Settings
from rlaif.backends.openai import OpenAIBackend
from rlaif.errors import ConfigError, ProviderError
from rlaif.types import Completion, Request

STOP_S = 5.0
DEATH_S = 2.0  # how long after a cut connection the child may take to be seen dead


def identity(spec: ModelSpec) -> str:
    """`local:NAME@HASH` of the weights, the same wherever the file lies. Raises ConfigError."""
    weights = find_weights(spec.model)
    return f"local:{weights.stem}@{sha256_of(weights)[:12]}{'' if spec.model else '+q8_0'}"


class LocalBackend:
    """Answers from a GGUF file. The server's own messages are in `log_folder/llama-server.log`."""

    def __init__(self, spec: ModelSpec, log_folder: Path) -> None:
        """Raises ConfigError if the file or the `local` extra is missing; starts nothing."""
        if not (find_spec("xllamacpp") and find_spec("gguf")):
            raise ConfigError("the model 'local' needs llama.cpp; run: pip install 'rlaif-kit[local]'")
        self._spec = spec
        self._weights = find_weights(spec.model)
        self._log = log_folder / "llama-server.log"
        self._child = Restarted(self._start, "the llama.cpp server", self._log)

    async def complete(self, request: Request) -> Completion:
        server = await self._child.running()
        try:
            return await server.client.complete(request)
        except ProviderError as error:
            cut = error.kind in ("connection", "server") and error.status is None
            if not cut or not await _ended(server.process, DEATH_S):
                raise
            # "server", which is asked again: that starts a new one.
            code = server.process.returncode
            text = f"the llama.cpp server ended (exit code {code}); its log: {self._log}"
            raise ProviderError("server", text) from error

    async def close(self) -> None:
        await self._child.close()

    async def _start(self) -> _Server:
        spec, weights, name = self._spec, self._weights, self._weights.stem
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if not spec.model:
            weights = await asyncio.to_thread(as_q8_0, weights, self._log.parent)
        key = secrets.token_urlsafe(32)
        with self._log.open("ab") as log:
            said_before = log.tell()
            process = await asyncio.create_subprocess_exec(
                # -P and our own path: it imports what we import, whatever lies in the current folder.
                *(sys.executable, "-P", "-m", "rlaif.backends.llama_server"),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is ours: calls in flight are drained first
            )
        address = b""
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            settings = Settings(str(weights), name, key, spec.slots, spec.context_tokens)
            process.stdin.write(msgspec.json.encode(settings) + b"\n")
            with suppress(TimeoutError):
                address = await asyncio.wait_for(process.stdout.readline(), spec.timeout_s)
        finally:
            if not address:
                await _end(process)
        if not address:
            why = last_words(self._log, said_before)
            raise ProviderError("not_found", f"llama.cpp cannot serve {weights}: {why}; its log: {self._log}")
        url = f"{address.decode().strip()}/v1"
        return _Server(process, OpenAIBackend(url, name, api_key=key, timeout_s=spec.timeout_s))


class _Server(NamedTuple):
    process: asyncio.subprocess.Process
    client: OpenAIBackend

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    async def close(self) -> None:
        await self.client.close()
        await _end(self.process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the child by closing its stdin, by force if that takes too long."""
    assert process.stdin is not None
    process.stdin.close()
    if not await _ended(process, STOP_S):
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ended(process: asyncio.subprocess.Process, within_s: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), within_s)
    except TimeoutError:
        return False
    return True


def last_words(log: Path, start: int) -> str:
    """What a server that could not start says of it in its log, from byte `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    # llama.cpp's own: "0.00.004.984 E llama_model_load: error loading model: ..."
    errors = [line.partition(" E ")[2].strip() for line in lines if " E " in line]
    return "; ".join(errors[:3] or [line.strip() for line in lines if line.strip()][-3:]) or "it said nothing"
