"""The child process of a vLLM server: ends it when stdin does, which vLLM itself would not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec

from rlaif.backends.hf_folder import read_json
from rlaif.serving.process import Started


def main() -> None:
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=Started)
    key = {"VLLM_API_KEY": told.api_key} if told.api_key else {}
    server = subprocess.Popen(command(told), env={**os.environ, **key}, stdin=subprocess.DEVNULL)

    def watch() -> None:
        sys.stdin.buffer.read()
        server.terminate()

    threading.Thread(target=watch, daemon=True).start()
    sys.exit(server.wait())


def command(told: Started) -> list[str]:
    """Of the API server's module, since `vllm serve` looks for a distribution of that very name."""
    name = ["--served-model-name", told.name]
    if told.lora:  # the adapter has the name; the base is served under its own
        rank = str(_rank(told.lora))
        name = ["--enable-lora", "--lora-modules", f"{told.name}={told.lora}", "--max-lora-rank", rank]
    return [
        *(sys.executable, "-P", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", told.model, "--host", told.host, "--port", str(told.port)),
        *("--max-model-len", str(told.context_tokens), *name),
    ]


def _rank(adapter: str) -> int:
    """The least of vLLM's that holds the adapter's."""
    own = int(read_json(Path(adapter), "adapter_config.json").get("r", 8))
    return next(rank for rank in (8, 16, 32, 64, 128, 256, 320, 512) if rank >= min(own, 512))


if __name__ == "__main__":
    main()
