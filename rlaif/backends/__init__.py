"""Where models live: the one-method seam every provider implements, and how one is opened."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rlaif.prices import Price
from rlaif.types import Completion, Request

Provider = Literal["openai", "anthropic", "local", "vllm", "transformers", "reward", "scripted"]
# These hold the weights in this machine's memory.
ENGINES: frozenset[Provider] = frozenset({"local", "vllm", "transformers", "reward"})
BATCHES: tuple[Provider, ...] = ("openai", "anthropic")
FALLBACK = ".fallback"  # after a role: the role of its fallback
OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"
FORMS = (
    "local, local/FILE.gguf, openai/MODEL, anthropic/MODEL, http://HOST/v1#MODEL, vllm/MODEL, transformers/MODEL, "
    "reward/MODEL, scripted"
)

# Fields that not every provider reads. `extra_body` all do: `scripted` takes it into its chance.
_READ_BY: dict[str, tuple[Provider, ...]] = {
    "base_url": ("openai", "anthropic"),
    "endpoints": ("openai", "anthropic"),
    "batch": BATCHES,
    "requests_per_minute": ("openai", "anthropic"),
    "tokens_per_minute": ("openai", "anthropic"),
    "api_key_env": ("openai", "anthropic"),
    "headers": ("openai", "anthropic"),
    "engine": ("vllm", "transformers", "reward"),
    "lora": ("vllm", "transformers", "reward"),
    "script": ("scripted",),
}
_SECRET = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


class Backend(Protocol):
    """Answers one request. Translates the provider's errors; never retries, caches or logs keys.

    Raises ProviderError, or Pending where the answer only comes after `settle`.
    """

    async def complete(self, request: Request) -> Completion: ...

    async def close(self) -> None: ...


class ModelSpec(BaseModel):
    """A model as the settings name it: in YAML with all fields, or in short as `provider/model`.

    Short forms: `local`, `local/FILE.gguf`, `local/OWNER/REPO/FILE.gguf`, `openai/MODEL`, `anthropic/MODEL`,
    `http://host:8000/v1#MODEL`, `vllm/MODEL` and `transformers/MODEL` (a folder, a GGUF file or a name on
    the Hugging Face hub; alone, the bundled model), `reward/MODEL` (a folder or a name on the hub), `scripted`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Provider
    model: str = ""
    base_url: str | None = None
    endpoints: tuple[str, ...] = ()  # several base URLs of one model; needs `identity`
    # Names of the environment variables, never the keys themselves; with several, each address is used with each.
    api_key_env: str | tuple[str, ...] | None = None
    identity: str | None = None  # what the answers belong to, if not base_url#model
    extra_body: dict[str, Any] = Field(default_factory=dict)  # Any: the provider's own JSON
    headers: dict[str, str] = Field(default_factory=dict)  # a value $NAME is read from the environment
    batch: bool = False  # through the provider's batch API: half the price, an answer within a day
    concurrency: Annotated[int, Field(ge=1)] = 64  # calls in flight at most, at each address with each key
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None  # the provider's own limits, ditto
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=1e6)] = 600.0
    attempts: Annotated[int, Field(ge=1)] = 6  # of one call, the first included
    outage_s: Annotated[float, Field(gt=0, le=1e9)] = 600.0  # an address that only fails for so long is given up
    price: Price | None = None  # USD per million tokens, before any list of prices
    fallback: ModelSpec | None = None  # asked where this one fails for good, or refuses to criticise or to judge
    # local, transformers and reward
    context_tokens: Annotated[int, Field(ge=256)] = 4096  # per slot
    slots: Annotated[int, Field(ge=1)] = 4  # requests computed together
    # vllm, transformers and reward
    engine: dict[str, Any] = Field(default_factory=dict)  # Any: AsyncEngineArgs of vLLM; from_pretrained's
    lora: str | None = None  # folder or hub name of an adapter
    # scripted: settings of backends.scripted.Script
    script: dict[str, Any] = Field(default_factory=dict)  # Any: checked by Script

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: object) -> object:
        return short_form(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> ModelSpec:
        if self.provider in ("openai", "anthropic", "reward") and not self.model:
            article = "a" if self.provider == "reward" else "an"
            raise ValueError(f"{article} {self.provider} model needs a name: {self.provider}/MODEL")
        for field, readers in _READ_BY.items():
            if getattr(self, field) and self.provider not in readers:
                raise ValueError(f"'{field}' is read by {', '.join(readers)}, not by {self.provider}: leave it out")
        for name, value in self.headers.items():
            if _SECRET.search(name) and not value.startswith("$"):
                raise ValueError(f"header '{name}' may hold a key, which is never written down: give it as $VARIABLE")
        if self.provider == "reward" and self.fallback:
            raise ValueError("a reward model has no fallback: no other model scores as it does")
        if self.fallback and self.fallback.fallback:
            raise ValueError("a fallback has no fallback of its own")
        return self

    @field_validator("extra_body")
    @classmethod
    def _json(cls, body: dict[str, Any]) -> dict[str, Any]:  # Any: the provider's own JSON
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot be sent as JSON: {error}; put dates in quotes") from None
        return body

    @field_validator("headers")
    @classmethod
    def _sendable(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if not re.fullmatch(r"[!#$%&'*+.^`|~\w-]+", name, re.ASCII) or re.search(r"[\r\n\0]", value):
                raise ValueError(f"header '{name}' is none that HTTP can carry")
        return headers

    @field_validator("api_key_env")
    @classmethod
    def _named(cls, names: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if names == ():
            raise ValueError("names no variable: leave it out for a server without keys")
        return names

    @field_validator("base_url", "endpoints")
    @classmethod
    def _reachable(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for url in (value,) if isinstance(value, str) else value or ():
            if problem := _wrong_url(url):
                raise ValueError(f"'{url}' {problem}")
        return value

    @model_validator(mode="after")
    def _addresses(self) -> ModelSpec:
        if any("@" in url.partition("://")[2].partition("/")[0] for url in (self.base_url or "", *self.endpoints)):
            raise ValueError("an address holds a password; name a variable with api_key_env instead")
        if self.batch and len(self.lanes()) > 1:
            raise ValueError("a batch goes to one address with one key: leave out the others, or `batch`")
        if self.endpoints and self.base_url:
            raise ValueError("give `base_url` for one address or `endpoints` for several, not both")
        if self.endpoints and not self.identity:
            raise ValueError(
                "`endpoints` need an `identity`: the name of what answers at all of them, like llama-3-8b@rev2"
            )
        if len({*self.endpoints}) < len(self.endpoints) or len({*self.key_names}) < len(self.key_names):
            raise ValueError("an address or a key is named twice")
        return self

    @property
    def key_names(self) -> tuple[str | None, ...]:
        return self.api_key_env if isinstance(self.api_key_env, tuple) else (self.api_key_env,)

    @property
    def places(self) -> int:
        """Calls in flight at most, at each address with each key.

        A llama.cpp server computes `slots` at a time. What queued at its door would time out there, and get the slot
        that has the prompt of the record whose turn it is.
        """
        return min(self.concurrency, self.slots) if self.provider == "local" else self.concurrency

    def lanes(self) -> list[ModelSpec]:
        """One spec for each address with each key."""
        addresses = self.endpoints or (self.base_url,)
        if len(addresses) == len(self.key_names) == 1 and not self.endpoints:
            return [self]
        same = {"endpoints": ()}
        return [
            self.model_copy(update=same | {"base_url": address, "api_key_env": name})
            for address in addresses
            for name in self.key_names
        ]


def _wrong_url(url: str) -> str | None:
    if not url.startswith(("http://", "https://")):
        return "must start with http:// or https://"
    try:
        parts = urlsplit(url)
        _ = parts.port  # ValueError if it is none
    except ValueError as error:
        return f"is no address: {error}"
    return None if parts.hostname and not re.search(r"\s", url) else "names no host"


def short_form(text: str) -> dict[str, Any]:
    """`provider/model` as the fields of a ModelSpec. Raises ValueError with the forms known."""
    if text.startswith(("http://", "https://")):
        base_url, _, model = text.partition("#")
        if not model:
            raise ValueError(f"'{text}' names no model; write {base_url.rstrip('/')}#MODEL")
        return {"provider": "openai", "base_url": base_url.rstrip("/"), "model": model}
    provider, _, model = text.partition("/")
    if provider not in get_args(Provider):
        raise ValueError(f"unknown model '{text}'; known: {FORMS}")
    return {"provider": provider, "model": model}


def open_backend(spec: ModelSpec, environment: dict[str, str], log_folder: Path) -> Backend:
    """The backend for `spec`; imports only that provider. Raises ConfigError."""
    if spec.batch:
        from rlaif.backends.batch import open_batches

        return open_batches(spec, environment, log_folder.parent / "batches")
    match spec.provider:
        case "openai":
            from rlaif.backends.openai import OpenAIBackend

            return OpenAIBackend.from_spec(spec, environment)
        case "anthropic":
            from rlaif.backends.anthropic import AnthropicBackend

            return AnthropicBackend.from_spec(spec, environment)
        case "local":
            from rlaif.backends.local import LocalBackend

            return LocalBackend(spec, log_folder)
        case "vllm":
            from rlaif.backends.vllm import VLLMBackend

            return VLLMBackend(spec, log_folder)
        case "transformers" | "reward":
            from rlaif.backends.transformers import TransformersBackend

            return TransformersBackend(spec, log_folder)
        case "scripted":
            from rlaif.backends.scripted import ScriptedBackend

            return ScriptedBackend.from_spec(spec)


def identity_of(spec: ModelSpec) -> str:
    """What the journal files this model's answers under; an address alone is no identity."""
    if spec.identity:
        return spec.identity
    match spec.provider:
        case "openai":
            return f"{spec.base_url or OPENAI_URL}#{spec.model}"
        case "anthropic":  # told apart from the other API at one address: they take and give different things
            return f"anthropic:{spec.base_url or ANTHROPIC_URL}#{spec.model}"
        case "local":
            from rlaif.backends.local import identity
        case "vllm" | "transformers" | "reward":
            from rlaif.backends.weights import identity
        case "scripted":
            from rlaif.backends.scripted import identity
    return identity(spec)
