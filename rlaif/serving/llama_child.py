"""The child process of a GGUF file: llama.cpp's own server at an address, until stdin ends."""

from __future__ import annotations

import os
import sys

import msgspec

from rlaif.backends.llama_server import Settings, params
from rlaif.serving.process import Started


def main() -> None:
    told = msgspec.json.decode(sys.stdin.buffer.readline(), type=Started)
    import xllamacpp

    chosen = params(Settings(told.model, told.name, told.api_key or "", told.slots, told.context_tokens))
    chosen.hostnames, chosen.port = [told.host], told.port
    chosen.api_keys = [told.api_key] if told.api_key else []
    server = xllamacpp.Server(chosen)  # noqa: F841 # it serves as long as it is held
    sys.stdin.buffer.read()
    os._exit(0)  # there is nothing to save, and an orderly close waits for answers nobody will read


if __name__ == "__main__":
    main()
