"""A server that misbehaves as networks and providers do, down to the socket, and logs what it was asked and gave.

Every prompt carries a marker, `[[q17]]`, and every right answer one of its own, `[[q17:5f0c22aa]]`; what a judge
says follows from the markers it was shown. So it can be told whose answer a record holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import math
import re
import socket
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Any, TypeVar

Body = dict[str, Any]
T = TypeVar("T")

MARKER = re.compile(r"\[\[q(\d+)\]\]")
ANSWER = re.compile(r"\[\[q(\d+):([0-9a-f]{8})\]\]")
MB = 1 << 20


def chance(*names: object) -> float:
    """From 0 to 1, the same for the same names."""
    return int(hashlib.blake2b(repr(names).encode(), digest_size=7).hexdigest(), 16) / 16**14


def odds(first: str, second: str) -> float:
    """The judge's probability for the answer shown first, by their marks."""
    return 0.05 + 0.9 * chance(first, second)


@dataclass
class Exchange:
    """A request, and what became of it."""

    path: str
    headers: dict[str, str]  # names in lower case
    raw: bytes
    body: Body
    nth: int  # how often this very body was asked before
    of_marker: int  # how often this question was asked anything before
    at: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    fault: str = ""
    answered: bool = False  # a whole right answer left
    bytes_sent: int = 0

    @property
    def marker(self) -> int | None:
        """The question's number; None for a model's first call and for probes."""
        found = MARKER.search(self.raw.decode())
        return int(found[1]) if found else None

    @property
    def judging(self) -> bool:
        return ANSWER.search(self.raw.decode()) is not None

    def right_answer(self) -> bytes:
        """The JSON that a healthy server gives: a function of the request."""
        text = self.raw.decode()
        top: dict[str, float] = {"A": -0.1, "B": -2.4}
        said = "A"
        if shown := [found[2] for found in ANSWER.finditer(text)]:
            p = odds(shown[0], shown[-1])
            top = {"A": math.log(p), "B": math.log(1 - p)}
            said = max(top, key=lambda letter: top[letter])
        elif (marker := self.marker) is not None:
            said = answer_to(marker, self.raw)
        if self.path.endswith("/messages"):
            return _json(anthropic_message(said))
        return _json(chat_completion(said, top if self.body.get("logprobs") else None))


def answer_to(marker: int, raw: bytes) -> str:
    return f"Answer [[q{marker}:{hashlib.blake2b(raw, digest_size=4).hexdigest()}]]: kindness helps, 善良 too."


def chat_completion(text: str | None, top: dict[str, float] | None = None, **choice: Any) -> Body:
    token = {"token": text, "logprob": max(top.values())} if top else {}
    tops = [{"token": name, "logprob": p} for name, p in (top or {}).items()]
    message = {"role": "assistant", "content": text}
    logprobs = {"content": [token | {"top_logprobs": tops}]} if top else None
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs} | choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }


def anthropic_message(text: str) -> Body:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }


def _json(body: Body) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def openai_error(message: str, code: str | None = None) -> Body:
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


class HungUp(Exception):
    """The client has gone, or this server closed the connection."""


class Wire:
    """The connection that a request came on, for its reply."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exchange: Exchange) -> None:
        self.reader, self.writer, self.exchange = reader, writer, exchange

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        self.exchange.bytes_sent += len(raw)
        try:
            await self.writer.drain()
        except OSError as error:
            raise HungUp from error

    async def reply(self, status: int, content: bytes | Body, headers: dict[str, str] | None = None) -> None:
        raw = content if isinstance(content, bytes) else _json(content)
        await self.send(head(status, {"Content-Length": str(len(raw)), **(headers or {})}) + raw)

    async def close(self) -> None:
        """An orderly end."""
        self.writer.close()
        raise HungUp

    async def reset(self) -> None:
        """RST: whatever the client has not read yet is lost."""
        linger = b"\1\0\0\0\0\0\0\0"  # struct linger: on, 0 s
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()
        raise HungUp

    async def until_gone(self) -> None:
        """Wait, with nothing more to say, until the client hangs up."""
        with contextlib.suppress(OSError):
            while await self.reader.read(4096):
                pass
        raise HungUp


def head(status: int, headers: dict[str, str]) -> bytes:
    fields = {"Content-Type": "application/json"} | headers
    lines = [f"{name}: {value}" for name, value in fields.items() if value]
    return "\r\n".join([f"HTTP/1.1 {status} Said", *lines, "", ""]).encode("latin-1")


Fault = Callable[[Wire], Awaitable[None]]
Plan = Callable[[Exchange], str | None]  # the name of a fault or a form; None: a plain right answer


# What goes wrong. Each is asked again by a good client.


def failing(status: int, content: bytes | Body | None = None, **headers: str) -> Fault:
    """A status with an error body; `_` in a header's name is `-`."""

    async def fault(wire: Wire) -> None:
        body = openai_error(f"planted {status}") if content is None else content
        await wire.reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    return fault


def later(seconds: float) -> str:
    """An HTTP date; whole seconds, so up to one more than asked for."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds + 0.999), usegmt=True)


def iso_later(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _dated(wire: Wire) -> None:
    await failing(429, Retry_After=later(-0.999))(wire)  # this second, which is over


async def _anthropic_reset(wire: Wire) -> None:
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "planted 429"}}
    names = {"anthropic_ratelimit_requests_remaining": "0", "anthropic_ratelimit_requests_reset": iso_later(0.05)}
    await failing(429, error, **names)(wire)


def saying(content: bytes, **headers: str) -> Fault:
    """200, and this."""
    return failing(200, content, **headers)


async def _hung(wire: Wire) -> None:
    await wire.until_gone()


async def _late_and_too_late(wire: Wire) -> None:
    """Half a reply in time, the rest never: a client that gives up must not use the connection again."""
    raw = wire.exchange.right_answer()
    await wire.send(head(200, {"Content-Length": str(len(raw))}) + raw[: len(raw) // 2])
    await wire.until_gone()


async def _closed_before_headers(wire: Wire) -> None:
    await wire.close()


async def _reset_before_headers(wire: Wire) -> None:
    await wire.reset()


async def _reset_after_headers(wire: Wire) -> None:
    await wire.send(head(200, {"Content-Length": "500"}))
    await asyncio.sleep(0.005)
    await wire.reset()


async def _cut_mid_headers(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Ty")
    await wire.close()


async def _cut_mid_body(wire: Wire) -> None:
    """Content-Length promises more than comes. What comes is whole JSON, the trap in this."""
    raw = wire.exchange.right_answer()
    await wire.send(head(200, {"Content-Length": str(len(raw) + 40)}) + raw)
    await wire.close()


async def _with_more(wire: Wire) -> None:
    """More than Content-Length says, which no client needs to understand."""
    raw = wire.exchange.right_answer()
    await wire.send(head(200, {"Content-Length": str(len(raw))}) + raw + b"}}}}\r\n")


async def _twice(wire: Wire) -> None:
    """The same reply a second time, unasked: the next question on this connection must not get it."""
    raw = wire.exchange.right_answer()
    await wire.send((head(200, {"Content-Length": str(len(raw))}) + raw) * 2)


async def _twice_later(wire: Wire) -> None:
    """As before, on a connection that lies idle by then: in use, no client could tell."""
    await plain(wire)
    await asyncio.sleep(0.02)
    if not wire.reader._buffer:  # type: ignore[attr-defined]
        await plain(wire)


async def _cut_in_half(wire: Wire) -> None:
    raw = wire.exchange.right_answer()
    await wire.send(head(200, {"Content-Length": str(len(raw))}) + raw[: len(raw) // 2])
    await wire.close()


async def _cut_mid_chunk(wire: Wire) -> None:
    raw = wire.exchange.right_answer()
    await wire.send(head(200, {"Transfer-Encoding": "chunked"}) + b"%x\r\n%s\r\n" % (len(raw), raw))
    await wire.close()  # without the last chunk


async def _cut_gzip(wire: Wire) -> None:
    raw = gzip.compress(wire.exchange.right_answer())[:-12]
    await wire.reply(200, raw, {"Content-Encoding": "gzip"})


async def _no_gzip_at_all(wire: Wire) -> None:
    await wire.reply(200, b"this is no gzip", {"Content-Encoding": "gzip"})


async def _truncated_utf8(wire: Wire) -> None:
    raw = wire.exchange.right_answer()
    at = raw.find("善".encode())
    await wire.reply(200, raw[: at + 2] if at > 0 else raw[:-1] + b"\xe5\x96")


async def _bad_utf8(wire: Wire) -> None:
    raw = wire.exchange.right_answer()
    said = re.search(rb'"(?:content|text)": "', raw)
    assert said
    await wire.reply(200, raw[: said.end()] + b"\xff\xfe" + raw[said.end() :])


async def _big(wire: Wire) -> None:
    """50 MB, of which the client should not want all."""
    await wire.send(head(200, {"Content-Length": str(50 * MB)}))
    for _ in range(50):
        await wire.send(b" " * MB)


async def _endless(wire: Wire) -> None:
    await wire.send(head(200, {"Transfer-Encoding": "chunked"}))
    for _ in range(200):
        await wire.send(b"%x\r\n%s\r\n" % (MB, b" " * MB))
    await wire.close()


@cache
def bomb() -> bytes:
    """512 MB of spaces in half a megabyte: one compressed piece again and again, without a right end."""
    deflate = zlib.compressobj(wbits=31)
    first, piece = (deflate.compress(b" " * MB) + deflate.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + piece * 511


async def _bomb(wire: Wire) -> None:
    await wire.reply(200, bomb(), {"Content-Encoding": "gzip"})


async def _endless_headers(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\n")
    for i in range(2000):
        await wire.send(f"X-Filler-{i}: {'x' * 1000}\r\n".encode())
    await wire.close()


LIMITS: dict[str, Fault] = {
    "429": failing(429),
    "429, seconds": failing(429, Retry_After="0"),
    "429, fraction": failing(429, Retry_After="0.05"),
    "429, milliseconds": failing(429, retry_after_ms="50"),
    "429, date": _dated,
    "429, date gone by": failing(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
    "429, rubbish": failing(429, Retry_After="soon"),
    "429, not a number": failing(429, Retry_After="nan"),
    "429, negative": failing(429, Retry_After="-5"),
    "429, openai": failing(
        429,
        x_ratelimit_limit_requests="500",
        x_ratelimit_remaining_requests="0",
        x_ratelimit_reset_requests="50ms",
        x_ratelimit_remaining_tokens="90000",
        x_ratelimit_reset_tokens="6m0s",  # that is when the tokens are back in full; there are some left
    ),
    "429, rubbish reset": failing(429, x_ratelimit_remaining_requests="none", x_ratelimit_reset_requests="tomorrow"),
    "429, anthropic": _anthropic_reset,
}
SERVER: dict[str, Fault] = {
    "500": failing(500),
    "502, page": failing(502, b"<html><h1>502 Bad Gateway</h1></html>", Content_Type="text/html"),
    "502, page as JSON": failing(502, b"<html><h1>502 Bad Gateway</h1></html>"),
    "503": failing(503, Retry_After="0.05"),
    "504, empty": failing(504, b""),
    "529": failing(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
}
REPLIES: dict[str, Fault] = {
    "malformed": saying(b'{"choices": [{"message": {"content": "Sure'),
    "no JSON": saying(b"Sure, here it is."),
    "empty body": saying(b""),
    "null": saying(b"null"),
    "other JSON": saying(b'{"ok": true}'),
    "page as JSON": saying(b"<!DOCTYPE html><title>Sign in</title>"),
    "page": saying(b"<!DOCTYPE html><title>Sign in</title>", Content_Type="text/html"),
    "no choices": saying(_json({"object": "chat.completion", "choices": []})),
    "choices null": saying(_json({"object": "chat.completion", "choices": None})),
    "message null": saying(_json({"choices": [{"index": 0, "message": None, "finish_reason": "stop"}]})),
    "error in 200": saying(_json(openai_error("Provider returned error"))),
    "truncated UTF-8": _truncated_utf8,
    "bad UTF-8": _bad_utf8,
    "cut gzip": _cut_gzip,
    "no gzip": _no_gzip_at_all,
}
CUTS: dict[str, Fault] = {
    "closed before headers": _closed_before_headers,
    "reset before headers": _reset_before_headers,
    "reset after headers": _reset_after_headers,
    "cut mid-headers": _cut_mid_headers,
    "cut mid-body": _cut_mid_body,
    "cut in half": _cut_in_half,
    "cut mid-chunk": _cut_mid_chunk,
    "no HTTP": lambda wire: _then_close(wire, b"220 mail.example.org ESMTP\r\n\r\n"),
    "endless headers": _endless_headers,
}
SLOW: dict[str, Fault] = {"hung": _hung, "hung mid-body": _late_and_too_late}
BIG: dict[str, Fault] = {"big": _big, "endless": _endless, "bomb": _bomb}
LEAKS: dict[str, Fault] = {"with more": _with_more, "twice": _twice, "twice, later": _twice_later}
FAULTS = LIMITS | SERVER | REPLIES | CUTS | SLOW | BIG


async def _then_close(wire: Wire, raw: bytes) -> None:
    await wire.send(raw)
    await wire.close()


# What is odd and still right: taken at the first time.


async def _gzip(wire: Wire) -> None:
    await wire.reply(200, gzip.compress(wire.exchange.right_answer()), {"Content-Encoding": "gzip"})


def chunks(raw: bytes, size: int) -> bytes:
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def _chunked(wire: Wire) -> None:
    await wire.send(head(200, {"Transfer-Encoding": "chunked"}) + chunks(wire.exchange.right_answer(), 7))


async def _chunked_gzip(wire: Wire) -> None:
    raw = chunks(gzip.compress(wire.exchange.right_answer()), 50)
    await wire.send(head(200, {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}) + raw)


async def _trickled(wire: Wire) -> None:
    raw = wire.exchange.right_answer()
    raw = head(200, {"Content-Length": str(len(raw))}) + raw
    for i in range(0, len(raw), 60):
        await wire.send(raw[i : i + 60])
        await asyncio.sleep(0.002)


async def _until_closed(wire: Wire) -> None:
    """HTTP/1.0: no length, the end of the connection is the end of the body."""
    await _then_close(wire, b"HTTP/1.0 200 OK\r\n\r\n" + wire.exchange.right_answer())


async def _wrong_type(wire: Wire) -> None:
    await wire.reply(200, wire.exchange.right_answer(), {"Content-Type": "text/html; charset=latin-1"})


async def _no_type(wire: Wire) -> None:
    await wire.reply(200, wire.exchange.right_answer(), {"Content-Type": ""})


async def _continued(wire: Wire) -> None:
    await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await wire.reply(200, wire.exchange.right_answer())


async def _lower_case(wire: Wire) -> None:
    raw = wire.exchange.right_answer()
    await wire.send(b"HTTP/1.1 200\r\ncontent-length:%d\r\n\r\n" % len(raw) + raw)


async def _with_bom(wire: Wire) -> None:
    await wire.reply(200, b"\r\n  " + wire.exchange.right_answer() + b"\n\n")


async def _closed_while_idle(wire: Wire) -> None:
    """As a proxy does with a keep-alive connection: it says nothing and hangs up after the reply."""
    await plain(wire)
    await asyncio.sleep(0.01)
    await wire.close()


async def _reset_while_idle(wire: Wire) -> None:
    await plain(wire)
    await asyncio.sleep(0.1)  # a reset takes back what was not read yet
    await wire.reset()


FORMS: dict[str, Fault] = {
    "gzip": _gzip,
    "chunked": _chunked,
    "chunked gzip": _chunked_gzip,
    "trickled": _trickled,
    "until closed": _until_closed,
    "wrong type": _wrong_type,
    "no type": _no_type,
    "100 first": _continued,
    "lower case": _lower_case,
    "white space": _with_bom,
    "closed while idle": _closed_while_idle,
    "reset while idle": _reset_while_idle,
}


async def plain(wire: Wire) -> None:
    await wire.reply(200, wire.exchange.right_answer())


async def _refused_key(wire: Wire) -> None:
    await wire.reply(401, openai_error("Incorrect API key provided", "invalid_api_key"))


class FaultyServer:
    """On 127.0.0.1, in a thread of its own, which the client's loop cannot hold up.

    Args:
        plan: names the fault or form of each reply; called in the server's thread.
        faults: more of them, by name.
        keys: the bearer keys that are let in; None: everybody is.
        latency_s: before every reply.
    """

    def __init__(
        self,
        plan: Plan = lambda _: None,
        *,
        faults: dict[str, Fault] | None = None,
        keys: set[str] | None = None,
        latency_s: Callable[[Exchange], float] = lambda _: 0.0,
    ) -> None:
        self.plan, self.keys, self.latency_s = plan, keys, latency_s
        self.log: list[Exchange] = []
        self.connections = 0
        self.most_in_flight = 0
        self._in_flight = 0
        self._faults = FAULTS | FORMS | LEAKS | (faults or {})
        self._writers: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._seen: dict[bytes, int] = {}
        self._seen_markers: dict[int, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._bugs: list[Exception] = []
        self.port = 0

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        self._call(self._up())
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._bugs:
            raise self._bugs[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def down_for(self, seconds: float) -> None:
        """From now on nobody listens, and all connections are cut; then it is back, at the same port.

        To be called from a plan.
        """
        self._down()
        task = self._loop.create_task(self._outage(seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def asked_again(self) -> list[Exchange]:
        """Requests for what had been answered in full before."""
        answered: set[bytes] = set()
        again = []
        for exchange in self.log:
            if exchange.marker is not None and exchange.raw in answered:
                again.append(exchange)
            if exchange.answered:
                answered.add(exchange.raw)
        return again

    def faults(self) -> list[str]:
        """The names of the faults given, each once."""
        return sorted({exchange.fault for exchange in self.log if exchange.fault})

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _up(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._listener.sockets[0].getsockname()[1]

    def _down(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for writer in list(self._writers):
            writer.close()  # after what was written: an answer that left is not taken back

    async def _outage(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._up()

    async def _end(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._down()
        for handler in list(self._handlers):
            handler.cancel()
        await asyncio.gather(*self._handlers, *self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._handlers.add(task)
        self._writers.add(writer)
        try:
            while True:
                await self._exchange(reader, writer)
        except (HungUp, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except Exception as bug:  # of a plan or a fault: it is no fault of the network, and the test must know
            self._bugs.append(bug)
        finally:
            self._handlers.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        raw = await reader.readexactly(int(headers["content-length"]))
        nth = self._seen.get(raw, 0)
        self._seen[raw] = nth + 1
        exchange = Exchange(start.split()[1], headers, raw, json.loads(raw), nth, 0)
        if (marker := exchange.marker) is not None:
            exchange.of_marker = self._seen_markers.get(marker, 0)
            self._seen_markers[marker] = exchange.of_marker + 1
        self.log.append(exchange)
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            if latency_s := self.latency_s(exchange):
                await asyncio.sleep(latency_s)
            await self._reply(Wire(reader, writer, exchange))
            if writer.is_closing():
                raise HungUp
        finally:
            self._in_flight -= 1
            exchange.ended = time.monotonic()

    async def _reply(self, wire: Wire) -> None:
        exchange = wire.exchange
        if self.keys is not None and exchange.headers.get("authorization", "").removeprefix("Bearer ") not in self.keys:
            exchange.fault = "401"
            await _refused_key(wire)
            return
        name = self.plan(exchange)
        if wire.writer.is_closing() or wire.reader.at_eof():
            raise HungUp  # the client, or an outage
        exchange.fault = "" if name is None or name in FORMS else name
        exchange.answered = not exchange.fault
        await (plain if name is None else self._faults[name])(wire)


# Plans


def at_first(names: Iterable[str], share: float = 1.0) -> Plan:
    """So many of the calls meet one of these at their first time, the next time none."""
    faults = list(names)

    def plan(exchange: Exchange) -> str | None:
        if exchange.marker is None or exchange.nth or chance("share", exchange.raw) >= share:
            return None
        return faults[int(chance("which", exchange.raw) * len(faults))]

    return plan


def mixed(shares: dict[str, float]) -> Plan:
    """Each request meets each of these with its probability, whether asked before or not."""

    def plan(exchange: Exchange) -> str | None:
        left = chance(exchange.raw, exchange.nth)
        for name, share in shares.items():
            left -= share
            if left < 0:
                return None if exchange.marker is None else name
        return None

    return plan
