"""Bytes posted, bytes back: the HTTP client under every endpoint, in one place and easily replaced.

pyreqwest (Rust) takes a quarter of the CPU that aiohttp does for a call, never gives a late reply to the next
question, and can be told to stop reading. `benchmarks/README.md` has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

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


class Pyreqwest:
    """Made in the event loop that will use it; only then is the library imported."""

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
                length = (
                    reply.get_header("content-length") or ""
                )  # packed, if the reply is packed: then it has none here
                if length.isdigit():
                    _check_size(int(length), url)
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


def _check_size(size: int, url: str) -> None:
    if size > LARGEST_REPLY:
        raise ProviderError("server", f"{url}: the reply is longer than {LARGEST_REPLY >> 20} MiB, and was not read")
