"""OpenAI's Batch API through its own client: a file of lines up, a file of answers and one of errors down."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from rlaif.backends import OPENAI_URL, Backend, ModelSpec
from rlaif.backends.batch_api import Client, FailedForGood, Look, refusal
from rlaif.backends.batch_folder import Job
from rlaif.backends.http import address_and_key, resolved_headers
from rlaif.backends.openai import OpenAIBackend, parse_completion
from rlaif.errors import ProviderError
from rlaif.types import Completion, Request

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

_TOKEN = "rlaif_batch"  # the name of our token in a batch's metadata
_CLOCKS_S = 24 * 3600.0  # by so much theirs may be behind ours
# What a status would have said, of errors that have a code only.
_STATUS = {
    "batch_expired": 408,
    "batch_cancelled": 408,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "request_timeout": 408,
    "server_error": 500,
}


class OpenAIBatches:
    """Batches of chat completions. A file may have 50,000 lines and 200 MB, and lines of one model only."""

    provider = "openai"

    def __init__(
        self, backend: OpenAIBackend, client: Client, *, max_calls: int = 50_000, max_bytes: int = 200_000_000
    ) -> None:
        self.base_url = client.base_url
        self.place = "OpenAI" if client.base_url == OPENAI_URL else client.base_url
        self.max_calls = max_calls
        self.max_bytes = max_bytes
        self._live = backend
        self._settings = client
        self._made: openai.AsyncOpenAI | None = None

    @property
    def live(self) -> Backend:
        return self._live

    @classmethod
    def from_spec(cls, spec: ModelSpec, environment: dict[str, str]) -> OpenAIBatches:
        """Raises ConfigError when the named environment variable is missing or the URL is no URL."""
        base_url, api_key, key_name = address_and_key(spec, environment, OPENAI_URL, "OPENAI_API_KEY")
        client = Client(base_url, api_key, key_name, resolved_headers(spec.headers, environment))
        return cls(OpenAIBackend.from_spec(spec, environment), client)

    def line(self, custom_id: str, request: Request) -> bytes:
        start = f'{{"custom_id":"{custom_id}","method":"POST","url":"/v1/chat/completions","body":'
        return start.encode() + self._live.body(request) + b"}"

    def read(self, request: Request, line: bytes) -> Completion:
        try:
            found = _decode(line)
            if found.response is None or found.error is not None:
                raise self._line_error(found.error or _Error())
            if found.response.status_code != 200:
                raise refusal(self.place, found.response.status_code, bytes(found.response.body))
            return parse_completion(bytes(found.response.body))
        except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
            text = f"{self.place}: a line of the results is not what this API promises ({error})"
            raise ProviderError("server", text) from error

    async def upload(self, job: Job, lines: Path) -> str:
        client = self._client()
        with self._errors(), lines.open("rb") as file:
            return (await client.files.create(file=(f"{job.name}.jsonl", file), purpose="batch")).id

    async def create(self, job: Job, lines: Path) -> str:
        client = self._client().with_options(max_retries=0)
        with self._errors():
            batch = await client.batches.create(
                completion_window="24h",
                endpoint="/v1/chat/completions",
                input_file_id=job.input_file_id,
                metadata={_TOKEN: job.name},
            )
        return batch.id

    async def find(self, job: Job, known: frozenset[str]) -> str | None:
        client = self._client()
        with self._errors():
            async for batch in client.batches.list(limit=100):  # newest first
                # A gateway may drop the metadata, but the file is in one batch only.
                if (batch.metadata or {}).get(_TOKEN) == job.name or batch.input_file_id == job.input_file_id:
                    return batch.id
                if batch.created_at < job.at - _CLOCKS_S:
                    break
        return None

    async def look(self, job: Job) -> Look:
        client = self._client()
        with self._errors():
            batch = await client.batches.retrieve(job.batch_id)
        files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
        match batch.status:
            case "completed":
                return Look("ended", files)
            case "expired":
                text = f"{self.place}: batch {batch.id} expired before this call was answered"
                return Look("ended", files, {None: ProviderError("timeout", text)})
            case "cancelled":
                return Look("ended", files, {None: self._cancelled(f"batch {batch.id}")})
            case "failed":
                return self._failed(batch)
        return Look("under way")

    async def fetch(self, job: Job, source: str, file: BinaryIO) -> None:
        client = self._client()
        with self._errors():
            async with client.files.with_streaming_response.content(source) as response:
                async for chunk in response.iter_bytes():
                    file.write(chunk)

    async def close(self) -> None:
        await self._live.close()
        if self._made is not None:
            await self._made.close()

    def _failed(self, batch: Batch) -> Look:
        """Not one line was computed. The errors name lines, from 1; without any they mean the batch as a whole."""
        errors = (batch.errors.data if batch.errors else None) or []
        if any(error.code == "token_limit_exceeded" for error in errors):
            return Look("no room")
        others = ProviderError("server", f"{self.place}: batch {batch.id} was refused for other calls in it")
        unanswered: dict[int | None, ProviderError] = {None: others}
        for error in errors:
            of_line = self._line_error(_Error(error.code, error.message, error.param))
            if error.line is None:
                unanswered[None] = of_line
            else:
                unanswered.setdefault(error.line - 1, of_line)
        return Look("ended", (), unanswered)

    def _line_error(self, error: _Error) -> ProviderError:
        if error.code == "batch_cancelled":
            return self._cancelled("the batch")
        return refusal(self.place, _STATUS.get(error.code or "", 400), msgspec.json.encode({"error": error}))

    def _cancelled(self, batch: str) -> ProviderError:
        text = f"{self.place}: {batch} was cancelled before this call was answered; 'rlaif retry' asks again"
        return FailedForGood("server", text)

    def _client(self) -> openai.AsyncOpenAI:
        if self._made is None:
            import openai

            self._made = openai.AsyncOpenAI(
                api_key=self._settings.api_key or "none",  # it wants one; a server that needs none reads none
                base_url=self.base_url,
                default_headers=self._settings.headers,
                # Not redirected: the key would go along to whatever address the server names.
                http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False),
            )
        return self._made

    def _errors(self) -> AbstractContextManager[None]:
        import httpx2
        import openai

        return self._settings.errors_of(openai, httpx2)


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None
    param: str | None = None


class _Line(msgspec.Struct):
    response: _Response | None = None
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Line).decode
