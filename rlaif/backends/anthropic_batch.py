"""Anthropic's Message Batches through its own client: all requests in one post, the results as one stream of lines."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import msgspec

from rlaif.backends import ANTHROPIC_URL, Backend, ModelSpec
from rlaif.backends.anthropic import AnthropicBackend, parse_message, stopped
from rlaif.backends.batch_api import Client, FailedForGood, Look, refusal
from rlaif.backends.batch_folder import Job
from rlaif.backends.http import address_and_key, resolved_headers
from rlaif.errors import ProviderError
from rlaif.types import Completion, Request

if TYPE_CHECKING:
    import anthropic
    from anthropic.types.messages import MessageBatch

_CLOCKS = timedelta(minutes=5)  # by so much theirs may be behind ours
# The API's own statuses of its error types; a line of the results has the type only.
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicBatches:
    """Batches of messages. One may have 100,000 requests and 256 MB; its results are kept for 29 days."""

    provider = "anthropic"

    def __init__(
        self, backend: AnthropicBackend, client: Client, *, max_calls: int = 100_000, max_bytes: int = 256_000_000
    ) -> None:
        self.base_url = client.base_url
        self.place = "Anthropic" if client.base_url == ANTHROPIC_URL else client.base_url
        self.max_calls = max_calls
        self.max_bytes = max_bytes
        self._live = backend
        self._settings = client
        self._made: anthropic.AsyncAnthropic | None = None

    @property
    def live(self) -> Backend:
        return self._live

    @classmethod
    def from_spec(cls, spec: ModelSpec, environment: dict[str, str]) -> AnthropicBatches:
        """Raises ConfigError when the named environment variable is missing or the URL is no URL."""
        base_url, api_key, key_name = address_and_key(spec, environment, ANTHROPIC_URL, "ANTHROPIC_API_KEY")
        headers = resolved_headers(spec.headers, environment)
        client = Client(base_url.removesuffix("/v1"), api_key, key_name, headers)
        return cls(AnthropicBackend.from_spec(spec, environment), client)

    def line(self, custom_id: str, request: Request) -> bytes:
        return f'{{"custom_id":"{custom_id}","params":'.encode() + self._live.body(request) + b"}"

    def read(self, request: Request, line: bytes) -> Completion:
        try:
            found = _decode(line).result
            if found.type == "succeeded":
                completion = parse_message(bytes(found.message))
                return stopped(completion, [stop for stop in request.stop if stop and not stop.strip()])
            if found.type == "errored":
                kind = msgspec.json.decode(found.error, type=_ErrorReply).error.type
                raise refusal(self.place, _STATUS.get(kind, 500), bytes(found.error))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            text = f"{self.place}: a line of the results is not what this API promises ({error})"
            raise ProviderError("server", text) from error
        if found.type == "expired":
            raise ProviderError("timeout", f"{self.place}: the batch expired before this call was answered")
        text = f"{self.place}: the batch was cancelled before this call was answered; 'rlaif retry' asks again"
        raise FailedForGood("server", text)

    async def upload(self, job: Job, lines: Path) -> str:
        return ""

    async def create(self, job: Job, lines: Path) -> str:
        from anthropic.types.messages import MessageBatch

        # The bytes themselves: for `messages.batches.create` they would be taken apart and put together again.
        requests = lines.read_bytes().rstrip(b"\n").replace(b"\n", b",")
        client = self._client().with_options(max_retries=0)
        with self._errors():
            content = b'{"requests":[' + requests + b"]}"
            batch = await client.post("/v1/messages/batches", content=content, cast_to=MessageBatch)
        return batch.id

    async def find(self, job: Job, known: frozenset[str]) -> str | None:
        """The API lets us mark no batch: one of the right time and size, and, once it has ended, of the right ids."""
        since = datetime.fromtimestamp(job.at, UTC) - _CLOCKS
        client = self._client()
        with self._errors():
            async for batch in client.messages.batches.list(limit=100):  # newest first
                if batch.created_at < since:
                    break
                if batch.id not in known and _size(batch) == len(job.calls) and await self._may_be(batch, job):
                    return batch.id
        return None

    async def look(self, job: Job) -> Look:
        client = self._client()
        with self._errors():
            batch = await client.messages.batches.retrieve(job.batch_id)
        if batch.processing_status != "ended":
            return Look("under way")
        return Look("ended", (batch.id,) if batch.results_url else ())

    async def fetch(self, job: Job, source: str, file: BinaryIO) -> None:
        client = self._client()
        with self._errors():
            async with client.messages.batches.with_streaming_response.results(source) as response:
                async for chunk in response.iter_bytes():
                    file.write(chunk)

    async def close(self) -> None:
        await self._live.close()
        if self._made is not None:
            await self._made.close()

    async def _may_be(self, batch: MessageBatch, job: Job) -> bool:
        if batch.processing_status != "ended" or not batch.results_url:
            return True
        results = self._client().messages.batches.with_streaming_response.results(batch.id)
        async with results as response:
            async for line in response.iter_lines():
                return msgspec.json.decode(line, type=_Named).custom_id in job.calls
        return False

    def _client(self) -> anthropic.AsyncAnthropic:
        if self._made is None:
            import anthropic

            self._made = anthropic.AsyncAnthropic(
                api_key=self._settings.api_key or "none",  # it wants one; a server that needs none reads none
                base_url=self.base_url,
                default_headers=self._settings.headers,
                # Not redirected: the key would go along to whatever address the server names.
                http_client=anthropic.DefaultAsyncHttpxClient(follow_redirects=False),
            )
        return self._made

    def _errors(self) -> AbstractContextManager[None]:
        import anthropic
        import httpx2

        return self._settings.errors_of(anthropic, httpx2)


def _size(batch: MessageBatch) -> int:
    counts = batch.request_counts
    return counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired


class _Named(msgspec.Struct):
    custom_id: str


class _Result(msgspec.Struct):
    type: Literal["succeeded", "errored", "canceled", "expired"]
    message: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    result: _Result


class _ErrorType(msgspec.Struct):
    type: str = ""


class _ErrorReply(msgspec.Struct):
    error: _ErrorType


_decode = msgspec.json.Decoder(_Line).decode
