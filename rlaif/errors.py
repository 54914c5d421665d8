"""Every error a user can meet; each message names the thing and the way out."""

from __future__ import annotations

from typing import Literal

ProviderErrorKind = Literal[
    "auth",  # the key is missing, wrong or not allowed: nothing will work until it is changed
    "not_found",  # no such model or route at this address
    "connection",  # no answer at all: refused, reset, DNS
    "rate_limit",
    "timeout",
    "server",  # 5xx, or a reply that is not what the API promises
    "bad_request",  # the provider will never take this request
    "context_length",
    "content_filter",
    "unsupported",  # one parameter is not known to this model; `parameter` names it
]


class RlaifError(Exception):
    """Base of all errors raised on purpose; the command line prints it without a traceback."""


class ConfigError(RlaifError):
    """Settings, files or arguments that cannot be used as they are (exit code 2)."""


class StoreError(RlaifError):
    """The run folder or the journal cannot be read or written: full disk, read-only folder, lock."""


class ProviderError(RlaifError):
    """What a backend raises when a provider did not answer a request.

    `retry_after_s` is the provider's own wish, in seconds, if it sent one.
    """

    def __init__(
        self,
        kind: ProviderErrorKind,
        message: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: ProviderErrorKind = kind
        self.status = status
        self.retry_after_s = retry_after_s
        self.parameter = parameter

    @property
    def transient(self) -> bool:
        """Worth asking again as it is."""
        return self.kind in ("connection", "rate_limit", "timeout", "server")

    @property
    def fatal(self) -> bool:
        """No other request to this endpoint will fare better: stop the run, burn no records."""
        return self.kind in ("auth", "not_found", "connection")


class AuditFailed(RlaifError):
    """The judges agree less with people's labels than was asked of them; the run was not begun."""


class EndpointGone(ProviderError):
    """Every address and key of a model was given up: after a refused key, or a long outage."""

    @property
    def fatal(self) -> bool:
        return True


class CallFailed(RlaifError):
    """A call that ended for good without an answer; journaled, and the record fails with `reason`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Pending(Exception):
    """This call has no answer yet; the record is let go and replayed in the next pass."""
