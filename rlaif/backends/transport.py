"""Bytes posted, bytes back: the HTTP client under every endpoint, one of two.

pyreqwest (Rust) takes a quarter of the CPU of aiohttp for a call, which makes it the default; aiohttp is there
for whoever does not trust it with their network. `benchmarks/` measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rlaif.backends import Transport as Name
from rlaif.errors import ProviderError

if TYPE_CHECKING:
    from pyreqwest.client import Client
    from pyreqwest.exceptions import PyreqwestError

_CONNECT_S = 30.0
# No answer of a model is longer; a proxy's or an attacker's may be.
LARGEST_REPLY = 32 * 1024 * 1024


class Reply(NamedTuple):
    status: int
    header: Callable[[str], str | None]  # a header's value by its name, in any case
    body: bytes


class Transport(Protocol):
    """Posts to any URL with the headers it was made with; follows no redirect, and honours the proxy variables.

    Raises ProviderError: `connection` if nobody is there, `timeout`, `server` if the reply is cut or too long.
    """

    async def post(self, url: str, body: bytes) -> Reply: ...

    async def close(self) -> None: ...


def open_transport(name: Name, headers: Mapping[str, str], timeout_s: float) -> Transport:
    """Called in the event loop that will use it. Imports the one library that is needed."""
    return (Pyreqwest if name == "pyreqwest" else Aiohttp)(headers, timeout_s)


class Pyreqwest:
    def __init__(self, headers: Mapping[str, str], timeout_s: float) -> None:
        from pyreqwest.client import ClientBuilder
        from pyreqwest.exceptions import PyreqwestError

        self._error = PyreqwestError
        self._timeout_s = timeout_s
        self._client: Client = (
            ClientBuilder()
            .default_headers(dict(headers))
            .timeout(timedelta(seconds=timeout_s))
            .connect_timeout(timedelta(seconds=min(_CONNECT_S, timeout_s)))
            .follow_redirects(False)  # the key would go along to whatever address the server names
            .build()
        )

    async def post(self, url: str, body: bytes) -> Reply:
        try:
            async with self._client.post(url).body_bytes(body).build_streamed() as reply:
                length = reply.get_header("content-length")
                if length is not None and length.isdigit() and int(length) <= LARGEST_REPLY:
                    raw = bytes(await reply.bytes())
                else:
                    chunks, size = [], 0
                    while (chunk := await reply.body_reader.read_chunk()) is not None:
                        chunks.append(bytes(chunk))
                        size += len(chunk)
                        _check_size(size, url)
                    raw = b"".join(chunks)
                return Reply(reply.status, reply.get_header, raw)
        except self._error as error:
            raise self._named(error, url) from error
        except ValueError as error:  # no URL
            raise ProviderError("connection", f"{url} cannot be reached: {error}") from error

    def _named(self, error: PyreqwestError, url: str) -> ProviderError:
        # The classes do not tell a refused connection from one that was cut; what caused them does.
        details = getattr(error, "details", None) or {}
        causes = [cause["message"] for cause in details.get("causes") or ()] or [str(error)]
        reason = causes[-1].partition(" (os error")[0]
        if "client error (Connect)" in causes:
            return ProviderError("connection", f"{url} cannot be reached: {reason}")
        if "operation timed out" in causes:
            return ProviderError("timeout", f"{url}: no answer within {self._timeout_s:g} s")
        # It was there: it may come back, or choke on this request only.
        return ProviderError("server", f"{url}: the connection was cut ({reason})")

    async def close(self) -> None:
        await self._client.close()


class Aiohttp:
    def __init__(self, headers: Mapping[str, str], timeout_s: float) -> None:
        import aiohttp

        self._timeout_s = timeout_s
        self._http = aiohttp
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the lanes bound what is in flight
            headers=headers,
            trust_env=True,  # HTTPS_PROXY and friends
            timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_S),
        )

    async def post(self, url: str, body: bytes) -> Reply:
        http = self._http
        try:
            async with self._session.post(url, data=body, allow_redirects=False) as reply:
                if (reply.content_length or LARGEST_REPLY) < LARGEST_REPLY:
                    raw = await reply.read()
                else:
                    chunks, size = [], 0
                    async for chunk in reply.content.iter_any():
                        chunks.append(chunk)
                        size += len(chunk)
                        _check_size(size, url)
                    raw = b"".join(chunks)
                return Reply(reply.status, reply.headers.get, raw)
        except (http.ClientConnectorError, http.ConnectionTimeoutError, http.InvalidURL) as error:
            raise ProviderError("connection", f"{url} cannot be reached: {_reason(error)}") from error
        except TimeoutError as error:
            raise ProviderError("timeout", f"{url}: no answer within {self._timeout_s:g} s") from error
        except (http.ClientError, OSError) as error:
            raise ProviderError("server", f"{url}: the connection was cut ({_reason(error)})") from error

    async def close(self) -> None:
        await self._session.close()


def _check_size(size: int, url: str) -> None:
    if size > LARGEST_REPLY:
        raise ProviderError("server", f"{url}: the reply is longer than {LARGEST_REPLY >> 20} MiB, and was not read")


def _reason(error: BaseException) -> str:
    """What the system says of a failed connection, without aiohttp's details."""
    import os

    system = getattr(error, "os_error", error)
    if isinstance(system, ConnectionRefusedError) and system.errno:
        return os.strerror(system.errno)  # asyncio's own text repeats the address
    return (system.strerror if isinstance(system, OSError) else None) or str(error)
