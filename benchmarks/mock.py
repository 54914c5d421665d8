"""A mock of an OpenAI endpoint, several times faster than what is measured against it.

    python benchmarks/mock.py --port 8100 --latency-ms 50 --p429 .1
    curl 'localhost:8100/stats'     what arrived and how it was answered, as JSON
    curl 'localhost:8100/reset'     all counts to zero
    curl 'localhost:8100/set?latency_ms=500&slots=64'

One thread and a hand-written protocol: replies are bytes made at the start, with the row's marker put
in. It reads what it needs of a request (its length, the marker, whether log-probabilities are asked for)
and expects one request at a time on a connection, as HTTP clients send them. A request without a
marker, such as a check before the run, is answered at once and never meets a fault or a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, get_type_hints

import uvloop
from replies import NO_MARKER, SERVER_ERROR, Hint, good_reply, limit_headers, refusal, whole
from workload import MARKER_BYTES, MARKER_START

Fault = Literal["", "429", "500", "malformed", "cut"]


@dataclass(slots=True)
class Settings:
    latency_ms: float = 0.0
    # Log-normal latencies instead: their median, the sigma of their logarithm, and their cap.
    median_ms: float = 0.0
    sigma: float = 1.5
    cap_ms: float = 5000.0
    slots: int = 0  # requests computed together, the others queue; 0: no limit
    # A token bucket: `rate` requests a second, `burst` at once; what is over gets a 429.
    rate: float = 0.0
    burst: float = 10.0
    # How a 429 tells its wait: Retry-After to the millisecond, rounded up to seconds, or OpenAI's x-ratelimit-*.
    hint: Hint = "rounded"
    # Shares of requests that meet a fault: an error status, a body cut short, a connection closed in mid-body.
    p429: float = 0.0
    p500: float = 0.0
    pmalformed: float = 0.0
    pcut: float = 0.0
    seed: int = 1


@dataclass(slots=True)
class Counts:
    requests: int = 0
    unmarked: int = 0
    asked_again: int = 0  # requests for a row that had its good reply: work paid for twice
    ended: Counter[str] = field(default_factory=Counter)  # good, 429, 500, malformed, cut, gone (the client left)
    in_flight: int = 0
    max_in_flight: int = 0
    connections: int = 0
    work_s: float = 0.0  # sum of all latencies drawn
    first_at: float | None = None  # time.monotonic() of the first and the last request
    last_at: float | None = None
    good_rows: set[bytes] = field(default_factory=set)
    chains: dict[bytes, float] = field(default_factory=dict)  # row -> sum of its latencies

    def report(self) -> dict[str, object]:
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        chains, rows = plain.pop("chains"), plain.pop("good_rows")
        return plain | {"good_rows": len(rows), "longest_chain_s": max(chains.values(), default=0.0)}


class Mock:
    """Decides what becomes of each request. All connections share it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        self.counts = Counts()
        self._random = random.Random(self.settings.seed)
        self._busy = 0
        self._queue: deque[Callable[[], object]] = deque()
        self._tokens, self._filled_at = self.settings.burst, time.monotonic()

    def control(self, path: str) -> bytes:
        command, _, query = path.strip("/").partition("?")
        if command == "set":
            types = get_type_hints(Settings)
            for name, _, value in (pair.partition("=") for pair in query.split("&")):
                cast = {"float": float, "int": int}.get(getattr(types[name], "__name__", ""), str)
                setattr(self.settings, name, cast(value))
            self.reset()
            return json.dumps(asdict(self.settings)).encode()
        if command == "reset":
            self.reset()
        return json.dumps(self.counts.report()).encode()

    def request(self, body: bytes, reply: Connection) -> None:
        counts = self.counts
        start = body.find(MARKER_START)
        if start < 0:
            counts.unmarked += 1
            reply.send(good_reply(NO_MARKER, body))
            return
        now = time.monotonic()
        marker = body[start : start + MARKER_BYTES]
        counts.requests += 1
        counts.first_at = counts.first_at or now
        counts.last_at = now
        counts.asked_again += marker in counts.good_rows
        counts.in_flight += 1
        if counts.in_flight > counts.max_in_flight:
            counts.max_in_flight = counts.in_flight
        if self.settings.rate and not self._took_token(now):
            self._end(reply, "429", refusal(self.settings.hint, self._until_token(), self._limit_headers()))
            return
        fault = self._fault()
        if fault == "429":
            self._end(reply, fault, refusal(self.settings.hint, 1.0, self._limit_headers()))
        elif fault == "500":
            self._end(reply, fault, SERVER_ERROR)
        else:
            self._compute(body, marker, fault, reply)

    def _compute(self, body: bytes, marker: bytes, fault: Fault, reply: Connection) -> None:
        latency_s = self._latency_s()
        if not latency_s and not self.settings.slots:
            self._answer(body, marker, fault, reply)
            return
        self.counts.work_s += latency_s
        self.counts.chains[marker] = self.counts.chains.get(marker, 0.0) + latency_s
        loop = asyncio.get_running_loop()
        if not self.settings.slots:
            loop.call_later(latency_s, self._answer, body, marker, fault, reply)
            return

        def end() -> None:
            self._busy -= 1
            if self._queue:
                self._busy += 1
                self._queue.popleft()()
            self._answer(body, marker, fault, reply)

        if self._busy < self.settings.slots:
            self._busy += 1
            loop.call_later(latency_s, end)
        else:
            self._queue.append(lambda: loop.call_later(latency_s, end))

    def _answer(self, body: bytes, marker: bytes, fault: Fault, reply: Connection) -> None:
        data = good_reply(marker, body, self._limit_headers())
        if fault == "malformed":
            _, _, json_text = data.partition(b"\r\n\r\n")
            data = whole(b"200 OK", json_text[: len(json_text) // 2])
        elif fault == "cut":
            data = data[: len(data) // 2]
        elif not reply.gone:
            self.counts.good_rows.add(marker)
        self._end(reply, fault or "good", data)

    def _end(self, reply: Connection, how: str, data: bytes) -> None:
        self.counts.in_flight -= 1
        if reply.gone:
            self.counts.ended["gone"] += 1
            return
        self.counts.ended[how] += 1
        reply.send(data)
        if how == "cut":
            reply.close()

    def _fault(self) -> Fault:
        given = self.settings
        if not (given.p429 or given.p500 or given.pmalformed or given.pcut):
            return ""
        drawn = self._random.random()
        shares: tuple[tuple[Fault, float], ...] = (
            ("429", given.p429),
            ("500", given.p500),
            ("malformed", given.pmalformed),
            ("cut", given.pcut),
        )
        for fault, share in shares:
            drawn -= share
            if drawn < 0:
                return fault
        return ""

    def _latency_s(self) -> float:
        given = self.settings
        if not given.median_ms:
            return given.latency_ms / 1000
        return min(given.cap_ms, given.median_ms * math.exp(self._random.gauss(0.0, given.sigma))) / 1000

    def _took_token(self, now: float) -> bool:
        self._tokens = min(self.settings.burst, self._tokens + (now - self._filled_at) * self.settings.rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _until_token(self) -> float:
        return max(0.0, 1 - self._tokens) / self.settings.rate

    def _limit_headers(self) -> bytes:
        given = self.settings
        if given.hint != "headers" or not given.rate:
            return b""
        return limit_headers(given.burst, self._tokens, (given.burst - self._tokens) / given.rate)


class Connection(asyncio.Protocol):
    """One client's connection: splits off requests, hands their bodies to the mock."""

    def __init__(self, mock: Mock) -> None:
        self._mock = mock
        self._rest = b""
        self.gone = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # of TCP it is one
        self.send, self.close = transport.write, transport.close
        self._mock.counts.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        head_end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, head_end) if head_end > 0 else None
        body_end = head_end + 4 + (int(length[1]) if length else 0)
        if head_end < 0 or len(data) < body_end:
            self._rest = data
            return
        self._rest = b""
        if data.startswith(b"POST"):
            self._mock.request(data[head_end + 4 : body_end], self)
        else:
            self.send(whole(b"200 OK", self._mock.control(data.split(b" ", 2)[1].decode())))


_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


async def serve(mock: Mock, port: int) -> None:
    """Until it is ended, or whoever started it is gone."""
    parent = os.getppid()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(mock), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    while os.getppid() == parent:
        await asyncio.sleep(1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--port", type=int, default=0, help="0 takes a free one; the port is printed")
    for f in fields(Settings):
        arguments.add_argument("--" + f.name.replace("_", "-"), type=type(f.default), default=f.default)
    given = vars(arguments.parse_args())
    port = given.pop("port")
    uvloop.run(serve(Mock(Settings(**given)), port))


if __name__ == "__main__":
    main()
