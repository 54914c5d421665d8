"""What a model's tokens cost: the bundled list of prices, a user's own file before it, and the sum for one use."""

from __future__ import annotations

import re
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from rlaif.documents import check, load

# Where these providers are if the settings name no address.
_HOSTS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}
# No bill comes for what runs in this machine's memory. A server of one's own behind an address is told from
# somebody else's by nobody but its owner: its price is unknown until `price: {input: 0, output: 0}` says it.
_FREE = frozenset({"local", "vllm", "transformers", "reward", "scripted"})
_BUNDLED = Path(__file__).with_name("prices.yaml")
# gpt-4o-2024-08-06, claude-haiku-4-5-20251001
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
# Sums are made in whole millionths of a millionth of a dollar: of many reservations none may leave a rest.
PICO = 10**12

Usd = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Factor = Annotated[float, Field(gt=0, le=1)]


class Price(BaseModel):
    """USD per million tokens, as in a model's `price:` and in files of prices.

    Tokens from the provider's cache and tokens written to it cost as much as `input` if nothing else is said;
    `batch` is the factor of the provider's batch API.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Usd
    output: Usd
    cached: Usd | None = None
    written: Usd | None = None
    batch: Factor = 1.0

    @property
    def free(self) -> bool:
        return not any((self.input, self.output, self.cached, self.written))

    @property
    def in_batch(self) -> Price:
        """What the same costs through the provider's batch API."""
        cached, written = (None if usd is None else usd * self.batch for usd in (self.cached, self.written))
        return Price(input=self.input * self.batch, output=self.output * self.batch, cached=cached, written=written)

    def cost(
        self, prompt_tokens: int, cached_tokens: int, completion_tokens: int, written_tokens: int = 0, *, batch: bool
    ) -> int:
        """In picodollars; cached and written tokens are among those of the prompt."""
        cached_tokens = min(cached_tokens, prompt_tokens)
        written_tokens = min(written_tokens, prompt_tokens - cached_tokens)
        fresh = prompt_tokens - cached_tokens - written_tokens
        fresh_pico, cached_pico, written_pico, output_pico = self._picos[batch]
        return (
            fresh * fresh_pico
            + cached_tokens * cached_pico
            + written_tokens * written_pico
            + completion_tokens * output_pico
        )

    def cost_at_most(self, prompt_tokens: int, completion_tokens: int, *, batch: bool) -> int:
        """In picodollars, whatever the provider's cache does."""
        *prompt_picos, output_pico = self._picos[batch]
        return prompt_tokens * max(prompt_picos) + completion_tokens * output_pico

    @cached_property
    def _picos(self) -> tuple[tuple[int, int, int, int], tuple[int, int, int, int]]:
        """Of one token that is fresh, cached, written, generated; alone and in a batch.

        Rounded to 1e-12 USD; lists have prices down to 1e-9.
        """
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.written is None else self.written

        def picos(factor: float) -> tuple[int, int, int, int]:
            each = factor * (PICO // 10**6)
            return round(self.input * each), round(cached * each), round(written * each), round(self.output * each)

        return picos(1.0), picos(self.batch)


FREE = Price(input=0, output=0)


def cost_usd(
    price: Price,
    prompt_tokens: int,
    cached_tokens: int,
    completion_tokens: int,
    written_tokens: int = 0,
    *,
    batch: bool = False,
) -> float:
    """What a use costs; the counts are the provider's own, of one call or of many."""
    return price.cost(prompt_tokens, cached_tokens, completion_tokens, written_tokens, batch=batch) / PICO


def dollars(usd: float) -> str:
    """4.97; where cents say nothing, with the digits that do: 0.00031."""
    if usd >= 0.1 or usd < 1e-9:
        return f"{usd:,.2f}"
    return f"{usd:.2g}" if usd >= 1e-4 else f"{usd:.7f}".rstrip("0")


class Host(BaseModel):
    """The prices at one address; `batch` is for all models that say nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, Price]
    source: str | None = None
    retrieved: date | None = None
    batch: Factor = 1.0

    def find(self, model: str) -> Price | None:
        """By the exact name, else by that of the family a dated snapshot belongs to."""
        price = self.models.get(model) or self.models.get(_SNAPSHOT.sub("", model))
        if price is None or "batch" in price.model_fields_set:
            return price
        return price.model_copy(update={"batch": self.batch})


class Prices(BaseModel):
    """A file of prices: host name (with its port, if it has one) -> model -> price."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: dict[str, Host]
    version: int = 1
    updated: date | None = None


def load_prices(path: Path | None = None) -> tuple[Prices, ...]:
    """What prices are looked up in, in this order: the user's file, the bundled one. Raises ConfigError."""
    return (_bundled(),) if path is None else (check(load(path), Prices), _bundled())


def price_of(
    lists: tuple[Prices, ...], provider: str, model: str, base_url: str | None, own: Price | None = None
) -> Price | None:
    """The price of a model as its settings name it, `own` being their `price:`. None: unknown, which is not zero."""
    if own is not None:
        return own
    if provider in _FREE:
        return FREE
    address = urlsplit(base_url) if base_url else None
    names = (_HOSTS[provider],) if address is None else (address.netloc.lower(), address.hostname or "")
    found = (prices.hosts[name].find(model) for prices in lists for name in names if name in prices.hosts)
    return next((price for price in found if price is not None), None)


def updated() -> str:
    """The day of the bundled list, and its version."""
    return f"{_bundled().updated}, version {_bundled().version}"


@cache
def _bundled() -> Prices:
    return check(load(_BUNDLED), Prices)
