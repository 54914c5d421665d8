"""A server as a child process: started, waited for until it answers, ended with all that it started."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from rlaif.backends.gguf import as_q8_0, find_weights
from rlaif.backends.to_gguf import converted
from rlaif.backends.weights import adapter_folder, model_folder
from rlaif.errors import ConfigError
from rlaif.serving.choice import Choice

LOOPBACK = ("127.0.0.1", "localhost", "::1")
STOP_S = 15.0  # vLLM takes 3-4 s
POLL_S = 0.2


class Place(NamedTuple):
    """Where and how a model is served."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one
    api_key: str | None = None
    context_tokens: int = 4096  # of one request, its prompt and answer together
    slots: int = 4  # requests computed together

    @property
    def open_to_all(self) -> bool:
        return self.host not in LOOPBACK and self.api_key is None


class Server(NamedTuple):
    url: str  # with /v1
    choice: Choice
    process: subprocess.Popen[bytes]
    log: Path

    def options(self, api_key_env: str | None = None) -> str:
        """What `rlaif generate` is told, for a shell. With the identity: tomorrow another model may be there."""
        settings = {"base_url": self.url, "identity": self.choice.identity, "api_key_env": api_key_env}
        told = [f"--set models.policy.{field}={shlex.quote(value)}" for field, value in settings.items() if value]
        return " ".join([f"--policy {shlex.quote(f'openai/{self.choice.name}')}", *told])


class Started(msgspec.Struct, frozen=True):
    """What a child is told: on its stdin, as others can read a process's arguments."""

    model: str  # a file, a folder or, for transformers, a name on the hub
    lora: str | None
    name: str
    host: str
    port: int
    api_key: str | None
    context_tokens: int
    slots: int
    folder: str  # for logs


@contextmanager
def served(choice: Choice, place: Place, folder: Path) -> Iterator[Server]:
    """Serves it as long as the block lasts. `folder` takes the log, and files made of the weights if the cache cannot.

    Raises ConfigError for a port that is taken or a model that cannot be loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port(place)
    told = msgspec.json.encode(_told(choice, place, port, folder)) + b"\n"
    log = folder / "serve.log"
    with log.open("wb") as messages:
        process = subprocess.Popen(
            # -P and our own path: it imports what we import, whatever lies in the current folder.
            [sys.executable, "-P", "-m", f"rlaif.serving.{choice.engine}_child"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=messages,
            stderr=messages,
            start_new_session=True,  # Ctrl-C is ours, and all that it starts is one group
        )
    try:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(told)
            process.stdin.flush()
        _until_ready(process, place.host, port, choice, log)
        yield Server(f"http://{_address(place.host)}:{port}/v1", choice, process, log)
    finally:
        end(process)


def free_port(place: Place) -> int:
    """The port itself, or any that is free for 0. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just ended is no hindrance
        try:
            probe.bind((place.host, place.port))
        except OSError as error:
            raise ConfigError(
                f"{place.host}:{place.port} cannot be listened at ({error.strerror}); "
                "name another with --port, or 0 for any free one"
            ) from error
        port: int = probe.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes]) -> None:
    """By closing its stdin, by force if that takes too long; nothing that it started is left."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _told(choice: Choice, place: Place, port: int, folder: Path) -> Started:
    spec = choice.spec
    model, lora = spec.model, spec.lora
    if choice.engine == "llama":
        model, lora = str(_as_gguf(choice, folder)), None
    elif choice.engine == "vllm":
        adapter = adapter_folder(spec)
        model, lora = str(model_folder(spec, folder)), str(adapter) if adapter else None
    key = place.api_key
    return Started(model, lora, choice.name, place.host, port, key, place.context_tokens, place.slots, str(folder))


def _as_gguf(choice: Choice, folder: Path) -> Path:
    spec = choice.spec
    if spec.provider != "local":
        return converted(model_folder(spec, folder), adapter_folder(spec), choice.precision)
    weights = find_weights(spec.model)
    return weights if spec.model else as_q8_0(weights, folder)


def _until_ready(process: subprocess.Popen[bytes], host: str, port: int, choice: Choice, log: Path) -> None:
    """As long as it takes: a big model loads for minutes."""
    while process.poll() is None:
        with suppress(OSError, http.client.HTTPException):
            asked = http.client.HTTPConnection(_own(host), port, timeout=10)
            try:
                asked.request("GET", "/health")
                if asked.getresponse().status == 200:
                    return
            finally:
                asked.close()
        time.sleep(POLL_S)
    raise ConfigError(f"{choice.engine} cannot serve {choice.name}: {last_words(log)}; its log: {log}")


def last_words(log: Path) -> str:
    """What a server that could not start says of it last."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    # llama.cpp's own "0.00.004.984 E llama_model_load: ...", or a traceback's last line
    raised = [line for line in lines if " E " in line or re.match(r"(\w+\.)*\w*(Error|Exception)\b", line)]
    return (raised or lines or ["it said nothing"])[-1][:500]


def _own(host: str) -> str:
    """Where a server on this machine that listens at `host` is asked."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _address(host: str) -> str:
    own = _own(host)
    return f"[{own}]" if ":" in own else own
