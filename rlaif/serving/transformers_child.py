"""The child process of a model in transformers: our own backend behind OpenAI's API, until stdin ends."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from rlaif.backends import ModelSpec
from rlaif.backends.transformers import TransformersBackend
from rlaif.errors import RlaifError
from rlaif.serving.app import serve
from rlaif.serving.process import Started
from rlaif.types import Message, Request


def main() -> None:
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=Started)
    try:
        asyncio.run(_serve(told))
    except RlaifError as error:
        sys.exit(f"{type(error).__name__}: {error}")


async def _serve(told: Started) -> None:
    spec = ModelSpec(
        provider="transformers",
        model=told.model,
        lora=told.lora,
        slots=told.slots,
        context_tokens=told.context_tokens,
    )
    backend = TransformersBackend(spec, Path(told.folder))
    try:
        # Loaded before the first who asks is let in, and found wanting before anyone is told an address.
        await backend.complete(Request(model=told.name, messages=(Message("user", "Hi"),), max_tokens=1))
        async with serve(backend, told.name, told.host, told.port, told.api_key):
            await asyncio.to_thread(sys.stdin.buffer.read)
    finally:
        await backend.close()


if __name__ == "__main__":
    main()
