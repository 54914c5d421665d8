"""What a backend can do, found out by asking it; and what the README's table says it can."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path

from rlaif.backends import Backend
from rlaif.errors import ProviderError
from rlaif.types import Message, Request

README = Path(__file__).parent.parent / "README.md"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
EXAMPLES = "The quick brown fox jumps over the lazy dog, and the dog does not mind. " * 16


def promised(backend: str) -> dict[str, str]:
    """The README's row of a backend: column -> cell."""
    lines = README.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| backend "))
    header, _, *rows = (re.split(r" *\| *", line.strip("| ")) for line in lines[start:] if line.startswith("|"))
    return next(dict(zip(header[1:], row[1:], strict=True)) for row in rows if row[0] == backend)


async def observed(backend: Backend) -> dict[str, str]:
    """The same columns, but for what cannot be asked."""
    return {
        "log-probabilities": _said(await _logprobs(backend)),
        "system role": _said(await _system(backend)),
        "JSON schema": _said(await _schema(backend)),
        "prompt cache": _said(await _cache(backend)),
        "batching": _said(await _together(backend)),
    }


def _said(found: bool) -> str:
    return "yes" if found else "no"


def ask(*turns: tuple[str, str], **fields: object) -> Request:
    messages = tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]
    return Request("m", messages, **{"temperature": 0.0, "max_tokens": 4, **fields})  # type: ignore[arg-type]


async def _logprobs(backend: Backend) -> bool:
    reply = await backend.complete(ask(("user", "A or B?"), top_logprobs=5))
    return reply.logprobs is not None and len(reply.logprobs[0].top) == 5


async def _system(backend: Backend) -> bool:
    """A system prompt is read: its tokens are counted."""
    short = await backend.complete(ask(("system", "Be brief."), ("user", "Hello")))
    long = await backend.complete(ask(("system", EXAMPLES), ("user", "Hello")))
    return long.usage.prompt_tokens - short.usage.prompt_tokens > 200


async def _schema(backend: Backend) -> bool:
    form = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    try:
        reply = await backend.complete(ask(("user", "Give me a person."), response_format=form, max_tokens=64))
        found = json.loads(reply.text)
    except ValueError:
        return False
    except ProviderError as error:
        if error.parameter != "response_format":
            raise
        return False
    return isinstance(found, dict) and found.keys() == {"name", "age"}


async def _cache(backend: Backend) -> bool:
    """A prefix that another request had is not computed again."""
    await backend.complete(ask(("system", f"2. {EXAMPLES}"), ("user", "Who jumps?"), shared=1))
    again = await backend.complete(ask(("system", f"2. {EXAMPLES}"), ("user", "Who lies there?"), shared=1))
    return again.usage.cached_tokens > 100


async def _together(backend: Backend) -> bool:
    """Two long answers asked for at once end at nearly the same time; one after the other would end at 1 and 2.

    What else the machine does may come between the ends, but not each time.
    """

    async def seconds(hero: str, started: float) -> tuple[float, int]:
        reply = await backend.complete(ask(("user", f"Tell me a long story about a {hero}."), max_tokens=48))
        return time.monotonic() - started, reply.usage.completion_tokens

    for _ in range(5):
        started = time.monotonic()
        (one, tokens), (other, others) = await asyncio.gather(seconds("fox", started), seconds("dog", started))
        assert tokens == others == 48
        if min(one, other) / max(one, other) > 0.65:
            return True
    return False
