"""What a provider's batch interface must offer, and what both official clients need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

from rlaif.backends import Backend
from rlaif.backends.batch_folder import Job
from rlaif.backends.http import error_fields, error_kind, named_parameter
from rlaif.errors import ProviderError
from rlaif.types import Completion, Request


class Look(NamedTuple):
    """What the provider says of a batch.

    `sources` are what `fetch` takes. `unanswered` says what became of calls that are in none of them: by
    their line in the input, from 0; None is for all others. "no room" is a refusal that is no fault of any call.
    """

    state: Literal["under way", "ended", "no room"]
    sources: tuple[str, ...] = ()
    unanswered: Mapping[int | None, ProviderError] = MappingProxyType({})


class BatchApi(Protocol):
    """One provider's batch interface. Every method that asks it raises ProviderError."""

    place: str  # as people call it
    provider: str
    base_url: str
    max_calls: int
    max_bytes: int

    @property
    def live(self) -> Backend:
        """Makes the bodies, and answers what cannot wait."""
        ...

    def line(self, custom_id: str, request: Request) -> bytes:
        """A line of the input, without its end."""
        ...

    def read(self, request: Request, line: bytes) -> Completion:
        """A line of the results, as the answer that a live call would have got. Raises ProviderError."""
        ...

    async def upload(self, job: Job, lines: Path) -> str:
        """The input file's id; nothing can come of it yet. Empty where the API takes no file."""
        ...

    async def create(self, job: Job, lines: Path) -> str:
        """The batch's id. Sent once: whoever sent it again after a lost reply could pay twice."""
        ...

    async def find(self, job: Job, known: frozenset[str]) -> str | None:
        """The id of the batch that came of a `create` whose reply was lost; it is none of `known`."""
        ...

    async def look(self, job: Job) -> Look: ...

    async def fetch(self, job: Job, source: str, file: BinaryIO) -> None: ...

    async def close(self) -> None: ...


class FailedForGood(ProviderError):
    """A call that is not asked again by itself, whatever its kind."""

    @property
    def transient(self) -> bool:
        return False


def refusal(place: str, status: int, raw: bytes) -> ProviderError:
    """The error of a reply, of the interface itself or of one line in a batch."""
    text, code, parameter = error_fields(raw)
    if parameter is None or parameter.startswith("messages"):
        parameter = named_parameter(text) or parameter
    return ProviderError(
        error_kind(status, text, code),
        f"{place} answered {status}: {text}",
        status=status,
        parameter=parameter,
    )


class Client:
    """What both SDKs need: the address, the key and the headers, and their errors as ours."""

    def __init__(self, base_url: str, api_key: str | None, key_name: str, headers: Mapping[str, str]) -> None:
        self.base_url = base_url
        self.api_key = api_key
        self.headers = dict(headers)
        self._key_name = key_name
        secrets = {*self.headers.values(), api_key or ""}
        self._secrets = [secret.encode() for secret in secrets if len(secret) >= 8]

    @contextlib.contextmanager
    def errors_of(self, sdk: Any, httpx: Any) -> Iterator[None]:  # Any: modules
        """`sdk` is openai or anthropic: their errors have the same names. "connection" means that nothing was sent."""
        try:
            yield
        except sdk.APIStatusError as error:
            raise self._refusal(error.response) from error
        except sdk.APIConnectionError as error:
            reason = error.__cause__ or error
            if isinstance(reason, (httpx.ConnectError, httpx.ConnectTimeout)):
                raise ProviderError("connection", f"{self.base_url} cannot be reached: {reason}") from error
            if isinstance(error, sdk.APITimeoutError):
                raise ProviderError("timeout", f"{self.base_url}: no answer in time") from error
            raise ProviderError("server", f"{self.base_url}: the connection was cut ({reason})") from error
        except httpx.HTTPError as error:  # in the middle of a download
            raise ProviderError("server", f"{self.base_url}: the connection was cut ({error})") from error
        except sdk.APIError as error:
            text = f"{self.base_url}: the reply is not what this API promises ({error})"
            raise ProviderError("server", text) from error

    def _refusal(self, response: Any) -> ProviderError:  # Any: httpx's Response
        raw: bytes = response.content if response.is_closed else b""
        for secret in self._secrets:
            raw = raw.replace(secret, b"[the key]")
        error = refusal(f"{self.base_url} (batches)", response.status_code, raw)
        if error.kind == "auth":
            sent = f"the key in {self._key_name} was refused" if self.api_key else "no key was sent; set api_key_env"
            return ProviderError("auth", f"{sent}: {error}", status=error.status)
        return error
