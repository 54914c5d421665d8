"""The network is blocked in tests, by every way out, and loopback is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
import uvloop

# A multicast group: the kernel refuses TCP to it without sending anything, should the block ever fail.
ELSEWHERE = ("224.0.0.1", 9)
blocked = pytest.raises(RuntimeError, match="blocked")


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_a_socket_to_another_machine_is_refused(method: str) -> None:
    with socket.socket() as sock, blocked:
        getattr(sock, method)(ELSEWHERE)


def test_a_datagram_to_another_machine_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock, blocked:
        sock.sendto(b"x", ELSEWHERE)


def test_a_name_is_not_even_looked_up() -> None:
    with blocked:
        socket.getaddrinfo("host.invalid", 443)


async def test_asyncio_is_refused() -> None:
    with blocked:
        await asyncio.open_connection(*ELSEWHERE)


def test_an_http_client_on_uvloop_is_refused() -> None:
    async def get() -> None:
        async with aiohttp.ClientSession() as session:
            await session.get(f"http://{ELSEWHERE[0]}:{ELSEWHERE[1]}/")

    with blocked, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(get())


async def test_loopback_works() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
        assert await reader.read() == b"hello"
        writer.close()


def test_unix_sockets_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an AF_UNIX path has about 100 characters at most
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("s")
        server.listen()
        client.connect("s")
        client.sendall(b"hello")
        with server.accept()[0] as accepted:
            assert accepted.recv(5) == b"hello"


def test_public_data_is_found_in_its_folder(
    public_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_TEST_DATA", str(tmp_path))
    (tmp_path / "prompts.csv").touch()
    assert public_data("prompts.csv") == tmp_path / "prompts.csv"


def test_without_the_folder_the_test_is_skipped(
    public_data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RLAIF_TEST_DATA", raising=False)
    with pytest.raises(pytest.skip.Exception, match="RLAIF_TEST_DATA"):
        public_data("prompts.csv")
