"""POST a JSON body; the answer's bytes, or one typed error: what all backends behind an address share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from urllib.parse import urljoin

import msgspec

from rlaif.backends import ModelSpec
from rlaif.backends.transport import Pyreqwest, Reply, Transport
from rlaif.errors import ConfigError, ProviderError, ProviderErrorKind


class Endpoint:
    """One URL that requests are posted to.

    `keys` are the headers that carry the key, empty if none is sent, `key_name` the environment variable it
    came from. They and `headers` live in the client alone, and their values are cut out of every error; `version`
    is the header of the API's own, no secret.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        keys: Mapping[str, str],
        key_name: str,
        timeout_s: float,
        version: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.url = url
        self._headers = {"Content-Type": "application/json", **version, **(headers or {}), **keys}
        secrets = {*(headers or {}).values(), *(value.removeprefix("Bearer ") for value in keys.values())}
        # A header of a few letters is no secret, and replacing it would garble texts.
        self._secrets = [value for value in secrets if len(value) >= 8]
        self._key_name = key_name if keys else None
        self._timeout_s = timeout_s
        self._transport: Transport | None = None
        self.on_rest: Callable[[float], None] | None = None  # told when a reply says that the rate is used up

    async def post(self, body: bytes) -> bytes:
        """The body of a reply with status 200. Raises ProviderError for everything else."""
        if self._transport is None:
            self._transport = Pyreqwest(self._headers, self._timeout_s)
        reply = await self._transport.post(self.url, body)
        if reply.status != 200:
            raise self._error(reply)
        if self.on_rest is not None and (rest_s := rest_seconds(reply.header)):
            self.on_rest(rest_s)
        return reply.body

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    def unreadable(self, raw: bytes, error: Exception) -> ProviderError:
        """A reply that is not what the API promises."""
        start = self._shown(raw)[:120].decode("utf-8", "replace")
        return ProviderError("server", f"{self.url}: the reply is not what this API promises ({error}): {start}")

    def _moved(self, status: int, location: str) -> ProviderError:
        with suppress(ValueError):  # it may be anything
            location = urljoin(self.url, location)
        shown = self._shown(location.encode("utf-8", "replace")).decode("utf-8", "replace")[:300]
        address = re.sub(r"/(chat/completions|v1/messages)$", "", shown)
        text = f"{self.url} answered {status} and points to {address}: give that address as base_url"
        return ProviderError("not_found", text, status=status)

    def _error(self, reply: Reply) -> ProviderError:
        status = reply.status
        if 300 <= status < 400 and (location := reply.header("location")):
            return self._moved(status, location)
        text, code, parameter = error_fields(self._shown(reply.body))
        kind = error_kind(status, text, code)
        if kind == "auth":
            sent = f"the key in {self._key_name} was refused" if self._key_name else "no key was sent; set api_key_env"
            text = f"{sent}: {text}"
        return ProviderError(
            kind,
            f"{self.url} answered {status}: {text}",
            status=status,
            retry_after_s=retry_after_seconds(reply.header),
            parameter=_refused(parameter, text),
        )

    def _shown(self, raw: bytes) -> bytes:
        """A reply that may be shown; some servers repeat the key. Before it is cut, or a part would stay."""
        for secret in self._secrets:
            raw = raw.replace(secret.encode(), b"[the key]")
        return raw


def address_and_key(
    spec: ModelSpec, environment: dict[str, str], default_url: str, default_key: str
) -> tuple[str, str | None, str]:
    """(base URL, key or None, the key's variable). Raises ConfigError for no URL, or no key where one is needed."""
    base_url = spec.base_url or default_url
    assert not isinstance(spec.api_key_env, tuple)  # see ModelSpec.lanes
    key_name = spec.api_key_env or default_key
    # A key meant for the provider itself is not sent to other hosts unless the settings say so.
    needed = spec.api_key_env is not None or spec.base_url is None
    api_key = environment.get(key_name, "").strip() if needed else ""  # a newline at its end would be no legal header
    if needed and not api_key:
        raise ConfigError(f"model '{spec.model}' needs a key: set the environment variable {key_name}")
    return base_url.rstrip("/"), api_key or None, key_name


def resolved_headers(headers: dict[str, str], environment: dict[str, str]) -> dict[str, str]:
    """`$NAME` values read from the environment. Raises ConfigError when a variable is missing."""
    resolved = {}
    for name, value in headers.items():
        if value.startswith("$"):
            if value[1:] not in environment:
                raise ConfigError(f"header '{name}' needs the environment variable {value[1:]}: set it")
            value = environment[value[1:]].strip()
        resolved[name] = value
    return resolved


def error_fields(raw: bytes) -> tuple[str, str, str | None]:
    """(message, code or type, parameter) of an error body in any of the shapes servers use."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw[:300].decode("utf-8", "replace").strip() or "no text", "", None
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return str(error)[:300], "", None
    message = error.get("message") or error.get("detail") or str(error)
    details = error.get("details")  # Anthropic's place for the stable name of a cause
    cause = details.get("error_code") if isinstance(details, dict) else None
    code = f"{error.get('code') or ''} {error.get('type') or ''} {cause or ''}"
    parameter = error.get("param")
    return str(message)[:500], code, parameter if isinstance(parameter, str) else None


_STATUS_KINDS: dict[int, ProviderErrorKind] = {
    401: "auth",
    402: "auth",  # no money
    403: "auth",
    404: "not_found",
    408: "timeout",
    413: "context_length",
}
# No money or no account is no rate: waiting does not help.
_NO_ACCOUNT = re.compile(
    "insufficient_quota|credit balance is too low|spend_limit_reached|specified api usage limits"
    "|organization_on_hold|organization has been disabled"
)
_TOO_LONG = re.compile(
    "context_length|exceed_context|exceed context limit|maximum context|max_model_len|prompt is too long"
)


def error_kind(status: int, text: str, code: str) -> ProviderErrorKind:
    said = f"{code} {text}".lower()
    if status == 403 and ("flagged" in said or "moderation" in said):
        return "content_filter"  # OpenRouter
    if status == 403 and "request logprobs" in said:
        return "unsupported"  # OpenAI's reasoning models: "You are not allowed to request logprobs from this model"
    if status in _STATUS_KINDS:
        return _STATUS_KINDS[status]
    if status in (400, 429) and _NO_ACCOUNT.search(said):
        return "auth"
    if status == 429:
        return "rate_limit"
    if status >= 500:
        return "server"
    if _TOO_LONG.search(said):
        return "context_length"
    if "content_filter" in said or "content management policy" in said or "content filtering policy" in said:
        return "content_filter"
    if "unsupported" in said or "not supported" in said or "does not support" in said or "unrecognized" in said:
        return "unsupported"
    return "bad_request"


PARAMETERS = (
    "max_completion_tokens",
    "response_format",
    "top_logprobs",
    "top_p",  # before temperature, which is kept where a model takes one of the two
    "temperature",
    "max_tokens",
    "logprobs",
    "seed",
    "stop",
)


def named_parameter(text: str) -> str | None:
    """The request parameter an error text speaks of, if any; "system" for the role of that name."""
    said = text.lower()
    if re.search(r"system (role|prompt|message|instruction)|'system'", said):
        return "system"
    return next((name for name in PARAMETERS if re.search(rf"\b{name}\b", said)), None)


def _refused(parameter: str | None, text: str) -> str | None:
    """The parameter as we call it: OpenAI names "messages[0].role" where it means the system role."""
    if not parameter or parameter.startswith("messages"):
        return named_parameter(text) or parameter or None
    return parameter


Header = Callable[[str], str | None]


def retry_after_seconds(header: Header) -> float | None:
    """How long a refusal asks us to wait: in seconds or to a date, or until what is used up is there again."""
    if (ms := _number(header("retry-after-ms"))) is not None:
        return ms / 1000.0
    said = header("retry-after")
    if said is None:
        waits = [_reset(header, *names) for names in _RATE_HEADERS]
        return max((wait for wait in waits if wait is not None), default=None)
    return _number(said) if _number(said) is not None else _until(said)


def rest_seconds(header: Header) -> float | None:
    """How long until one more request is let through, after one that used up their number; else None."""
    waits = [_reset(header, *names) for names in _RATE_HEADERS if "requests" in names[0] and header(names[1])]
    return max((wait for wait in waits if wait is not None), default=None)


def _reset(header: Header, remaining: str, limit: str, reset: str) -> float | None:
    """Seconds, by headers that say when all of a limit is there again: one request is there after its share."""
    if header(remaining) != "0" or not (said := header(reset)):
        return None
    wait_s = _duration(said)
    wait_s = _until(said) if wait_s is None else wait_s
    number = _number(header(limit)) if "requests" in limit else None
    return wait_s if wait_s is None else wait_s / (number or 1.0)


# OpenAI's, Anthropic's: what is left, of how much, and when all of it is there again.
_RATE_HEADERS = [
    (f"x-ratelimit-remaining-{what}", f"x-ratelimit-limit-{what}", f"x-ratelimit-reset-{what}")
    for what in ("requests", "tokens")
] + [
    (f"anthropic-ratelimit-{what}-remaining", f"anthropic-ratelimit-{what}-limit", f"anthropic-ratelimit-{what}-reset")
    for what in ("requests", "input-tokens", "output-tokens", "tokens")
]
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0.0 <= value < float("inf") else None


def _duration(text: str) -> float | None:
    """OpenAI's "6m0s", "1.2s" or "20ms"."""
    parts = re.findall(r"([\d.]+)(ms|s|m|h|d)", text)
    if not parts or "".join(map("".join, parts)) != text.strip():
        return None
    values = [(_number(value), unit) for value, unit in parts]
    return sum(value * _UNITS[unit] for value, unit in values if value is not None)


def _until(text: str) -> float | None:
    """Seconds to a point in time, an HTTP date or RFC 3339; by a clock that may not be the server's."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        with suppress(ValueError, OverflowError):
            return max(0.0, read(text.strip()).timestamp() - time.time())
    return None
