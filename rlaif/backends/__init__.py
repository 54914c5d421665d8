"""Where models live: the one-method seam every provider implements, and how one is opened."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlaif.errors import ConfigError
from rlaif.types import Completion, Request

Provider = Literal["openai", "local", "scripted"]


_SECRET = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


class Backend(Protocol):
    """Answers one request. Translates the provider's errors; never retries, caches or logs keys.

    Raises ProviderError, or Pending where the answer only comes after `settle`.
    """

    async def complete(self, request: Request) -> Completion: ...

    async def close(self) -> None: ...


class ModelSpec(BaseModel):
    """A model as the settings name it: in YAML with all fields, or in short as `provider/model`.

    Short forms: `local`, `local/FILE.gguf`, `local/OWNER/REPO/FILE.gguf`, `openai/MODEL`,
    `http://host:8000/v1#MODEL`, `scripted`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Provider
    model: str = ""
    base_url: str | None = None
    api_key_env: str | None = None  # name of the environment variable, never the key itself
    identity: str | None = None  # what the answers belong to, if not base_url#model
    extra_body: dict[str, Any] = Field(default_factory=dict)  # Any: the provider's own JSON
    headers: dict[str, str] = Field(default_factory=dict)  # a value $NAME is read from the environment
    concurrency: Annotated[int, Field(ge=1)] = 64
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    attempts: Annotated[int, Field(ge=1)] = 6  # of one call, the first included
    # local
    context_tokens: Annotated[int, Field(ge=256)] = 4096  # per slot
    slots: Annotated[int, Field(ge=1)] = 4  # requests computed together
    # scripted: settings of backends.scripted.Script
    script: dict[str, Any] = Field(default_factory=dict)  # Any: checked by Script

    @model_validator(mode="before")
    @classmethod
    def _from_short_form(cls, value: object) -> object:
        return short_form(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> ModelSpec:
        if self.provider == "openai" and not self.model:
            raise ValueError("an openai model needs a name: openai/MODEL or http://host:port/v1#MODEL")
        if self.base_url and "@" in self.base_url.partition("://")[2].partition("/")[0]:
            raise ValueError("base_url holds a password; name a variable with api_key_env instead")
        for name, value in self.headers.items():
            if _SECRET.search(name) and not value.startswith("$"):
                raise ValueError(f"header '{name}' may hold a key, which is never written down: give it as $VARIABLE")
        return self


def short_form(text: str) -> dict[str, Any]:
    """`provider/model` as the fields of a ModelSpec. Raises ValueError with the forms known."""
    if text.startswith(("http://", "https://")):
        base_url, _, model = text.partition("#")
        if not model:
            raise ValueError(f"'{text}' names no model; write {base_url.rstrip('/')}#MODEL")
        return {"provider": "openai", "base_url": base_url.rstrip("/"), "model": model}
    provider, _, model = text.partition("/")
    if provider not in ("openai", "local", "scripted"):
        raise ValueError(
            f"unknown model '{text}'; known: local, local/FILE.gguf, openai/MODEL, http://HOST/v1#MODEL, scripted"
        )
    return {"provider": provider, "model": model}


def open_backend(spec: ModelSpec, environment: dict[str, str], log_folder: Path) -> Backend:
    """The backend for `spec`; imports only that provider. Raises ConfigError."""
    if spec.provider == "openai":
        from rlaif.backends.openai import OpenAIBackend

        return OpenAIBackend.from_spec(spec, environment)
    if spec.provider == "local":
        from rlaif.backends.local import LocalBackend

        return LocalBackend(spec, log_folder)
    if spec.provider == "scripted":
        from rlaif.backends.scripted import ScriptedBackend

        return ScriptedBackend.from_spec(spec)
    raise ConfigError(f"unknown provider '{spec.provider}'")


def identity_of(spec: ModelSpec) -> str:
    """What the journal files this model's answers under; an address alone is no identity."""
    if spec.identity:
        return spec.identity
    if spec.provider == "local":
        from rlaif.backends.local import identity

        return identity(spec)
    if spec.provider == "scripted":
        from rlaif.backends.scripted import identity as scripted_identity

        return scripted_identity(spec)
    return f"{spec.base_url or OPENAI_URL}#{spec.model}"


OPENAI_URL = "https://api.openai.com/v1"
