"""For every test: no network but loopback, and public data where its folder is given."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.llama import Llama, served

# Children inherit it: a missing file is an error at once, not a look at the hub.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The same examples in every run: a change is refused for its own faults. For new ones: --hypothesis-profile=default
settings.register_profile("repeatable", derandomize=True, deadline=None)  # nor for what else the machine does
settings.load_profile("repeatable")


class NetworkBlocked(RuntimeError):
    """A test reached out. No OSError, which the code under test would take for a provider's fault."""


def _is_loopback(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


def _refuse_network(event: str, args: tuple[Any, ...]) -> None:  # Any: each event has its own arguments
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None  # AF_UNIX addresses are strings
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = args[0]
    else:
        return
    if not _is_loopback(host):
        raise NetworkBlocked(f"tests may only talk to this machine; blocked: {event} to {host!r}")


# An audit hook sees what patched methods miss: _socket.socket, UDP, connect_ex, every library's own
# import of `socket`. It stays for the life of the process, which is pytest's own.
sys.addaudithook(_refuse_network)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    """A llama.cpp server on this machine, for all tests that talk to one by its address."""
    with served(tmp_path_factory.mktemp("llama")) as server:
        yield server


@pytest.fixture
def public_data() -> Callable[[str], Path]:
    """Gives the path of a public data file by its name; skips the test without RLAIF_TEST_DATA."""

    def path(name: str) -> Path:
        folder = os.environ.get("RLAIF_TEST_DATA")
        if not folder:
            pytest.skip("needs public data: set RLAIF_TEST_DATA to the folder that holds it")
        found = Path(folder) / name
        if not found.is_file():
            pytest.fail(f"RLAIF_TEST_DATA={folder} has no file {name}")
        return found

    return path
