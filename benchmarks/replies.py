"""The mock's replies, as bytes: made once, so that answering is putting the row's marker in."""

from __future__ import annotations

import json
import math
import re
from itertools import cycle, islice
from typing import Literal

from workload import MARKER_BYTES

TOKENS = 120
Hint = Literal["none", "exact", "rounded", "headers"]


def whole(status: bytes, body: bytes, headers: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 " + status + b"\r\ncontent-type: application/json\r\nserver: mock\r\n" + headers
        + b"content-length: %d\r\n\r\n" % len(body) + body
    )  # fmt: skip


def refusal(hint: Hint, wait_s: float, limits: bytes) -> bytes:
    headers = limits
    if hint == "exact":
        headers = b"retry-after: %.3f\r\n" % wait_s
    elif hint == "rounded":
        headers = b"retry-after: %d\r\n" % math.ceil(wait_s)
    return whole(b"429 Too Many Requests", _error("Rate limit reached", "rate_limit_exceeded"), headers)


def limit_headers(limit: float, left: float, reset_s: float) -> bytes:
    """OpenAI's: how many requests are left, and when the bucket will be full again."""
    return (
        b"x-ratelimit-limit-requests: %d\r\n"
        b"x-ratelimit-remaining-requests: %d\r\n"
        b"x-ratelimit-reset-requests: %dms\r\n" % (limit, left, max(1, math.ceil(reset_s * 1000)))
    )


def good_reply(marker: bytes, body: bytes, headers: bytes = b"") -> bytes:
    """The marker and a text of 120 tokens; where log-probabilities are asked for, a judge's letter with them."""
    if b'"logprobs":' in body and _LOGPROBS.search(body):
        return _JUDGED
    before, after = _TEXT
    return (before.replace(_LENGTH_OF, headers + _LENGTH_OF) if headers else before) + marker + after


_LOGPROBS = re.compile(rb'"logprobs": *true')
_LENGTH_OF = b"content-length"
NO_MARKER = b"-" * MARKER_BYTES
_SENTENCE = "a short and honest answer helps more than a long one that hides what its writer does not know"


def _error(message: str, code: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}).encode()


SERVER_ERROR = whole(b"500 Internal Server Error", _error("The server had an error", "server_error"))


def _completion(text: str, tokens: int, logprobs: object = None) -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    usage = {
        "prompt_tokens": 90,
        "completion_tokens": tokens,
        "total_tokens": 90 + tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    reply = {
        "id": "chatcmpl-0000000000000000",
        "object": "chat.completion",
        "created": 1790000000,
        "model": "mock-model",
        "choices": [choice],
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    }
    return whole(b"200 OK", json.dumps(reply).encode())


def _text_around_marker() -> tuple[bytes, bytes]:
    words = " ".join(islice(cycle(_SENTENCE.split()), TOKENS - 8))
    before, marker, after = _completion(f"{NO_MARKER.decode()} {words}", TOKENS).partition(NO_MARKER)
    assert marker
    return before, after


def _judged() -> bytes:
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in (("A", 0.7), ("B", 0.28))]
    return _completion("A", 1, {"content": [top[0] | {"top_logprobs": top}], "refusal": None})


_TEXT = _text_around_marker()
_JUDGED = _judged()
