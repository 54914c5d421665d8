"""The child process: one llama.cpp server that lives as long as the parent holds the other end of stdin.

Reads one JSON line of `Settings`, writes one line with its address, and ends when stdin does, so it
never outlives its parent, however that dies. Everything llama.cpp says goes to stderr.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import xllamacpp


class Settings(msgspec.Struct, frozen=True):
    """On stdin, not in argv: other users can read a process's arguments."""

    path: str
    name: str
    api_key: str
    slots: int
    context_tokens: int  # per slot


def main() -> None:
    with os.fdopen(os.dup(1), "w") as report:
        os.dup2(2, 1)  # llama.cpp writes to the file descriptors themselves
        settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
        import xllamacpp

        server = xllamacpp.Server(params(settings))
        sys.stderr.write(f"{server.listening_address} serves {settings.path}, {settings.slots} slots\n")
        sys.stderr.flush()
        report.write(f"{server.listening_address}\n")
    sys.stdin.buffer.read()
    os._exit(0)  # there is nothing to save, and an orderly close waits for answers nobody will read


def params(settings: Settings) -> xllamacpp.CommonParams:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings.path
    params.model_alias = {settings.name}
    params.api_keys = [settings.api_key]
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # any free one
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context_tokens
    params.kv_unified = False  # each slot has its own share: one long prompt cannot take another's
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads()
    params.cache_ram_mib = 1024  # its own default keeps up to 8 GiB of old prompts
    params.verbosity = 2  # warnings and errors; 3 adds 800 bytes a request
    params.ui = False
    params.endpoint_slots = False
    return params


def threads() -> int:
    """One fewer than there are cores.

    Beside one busy process two threads on two cores made 3-14 tokens/s, as each step waits for the
    slower one; a single thread made 41.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


if __name__ == "__main__":
    main()
