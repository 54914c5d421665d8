"""A server with OpenAI's and Anthropic's routes: answers from a function, plants faults, and logs every request.

In a test: `async with Server(answer) as server`. As a process of its own, which outlives the ones that
are killed: `python -m tests.server LOG [MOST]`, which prints its URL; LOG gets a line per request and per reply.
It answers so many requests and holds the rest, so that a run is not over before it is killed. A number on its
standard input allows so many more, once nobody is connected; it then says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from aiohttp import web

Body = dict[str, Any]
# A reply's JSON, or (status, body, headers)
Reply = Body | tuple[int, Any, dict[str, str]]


def completion(text: str, *, top: dict[str, float] | None = None, **choice: Any) -> Body:
    """A chat completion; `top` gives the first token's log-probabilities."""
    first: Body = {"token": text, "logprob": -0.1}
    if top:
        first["top_logprobs"] = [{"token": token, "logprob": p} for token, p in top.items()]
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": {"content": [first]} if top else None,
            }
            | choice
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}},
    }


def answer(body: Body) -> Reply:
    """Different texts for different requests; a judge gives A or B with log-probabilities. A function of the body."""
    digest = hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=8).hexdigest()
    if body.get("logprobs"):
        a = int(digest, 16) / 16**16
        return completion("A", top={"A": -0.1 - a, "B": -1.1 + a})
    return completion(f"Answer {digest} says that kindness costs nothing and helps everyone.")


@dataclass
class Server:
    """`requests` are the bodies in the order they came; those beyond `places` wait for ever."""

    answer: Callable[[Body], Reply] = answer
    latency_s: Callable[[], float] = lambda: 0.0
    log: TextIO | None = None
    places: asyncio.Semaphore | None = None
    requests: list[Body] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def __aenter__(self) -> Server:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._post)
        app.router.add_post("/v1/messages", self._post)
        # Who waits for a place is forgotten when its client is gone.
        self._runner = web.AppRunner(app, handler_cancellation=self.places is not None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def left_alone(self) -> None:
        """Whatever clients sent has been read, and they are gone."""
        await asyncio.sleep(0.01)
        while self.in_flight or (self._runner.server and self._runner.server.connections):
            await asyncio.sleep(0.01)

    async def _post(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = json.loads(raw)
        key = hashlib.blake2b(raw, digest_size=16).hexdigest()
        self.requests.append(body)
        self.headers.append(request.headers)
        self._write("asked", key)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s())
            if self.places is not None:
                await self.places.acquire()
            reply = self.answer(body)
        finally:
            self.in_flight -= 1
        status, content, headers = reply if isinstance(reply, tuple) else (200, reply, {})
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        response = web.Response(status=status, body=content, headers=headers, content_type="application/json")
        with contextlib.suppress(ConnectionResetError):  # the client was killed
            await response.prepare(request)
            await response.write_eof()
            self._write("answered", key)
        return response

    def _write(self, event: str, key: str) -> None:
        if self.log is not None:
            self.log.write(f"{time.time():.6f} {event} {key}\n")
            self.log.flush()


async def main(log: Path, most: int) -> None:
    rng = random.Random(7)
    with log.open("a") as file:
        latency_s: Callable[[], float] = lambda: rng.uniform(0.002, 0.03)  # noqa: E731
        async with Server(latency_s=latency_s, log=file, places=asyncio.Semaphore(most)) as server:
            print(server.url, flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):  # until the test closes the pipe
                await server.left_alone()
                server.places = asyncio.Semaphore(int(line))
                print("left alone", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 10**9))
