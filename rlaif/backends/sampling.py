"""The next token of each row of a batch, by that row's own settings and chance; in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import msgspec

from rlaif.errors import ProviderError
from rlaif.types import Request

Tensor = Any  # torch ships no types that mypy is asked to follow, and is imported late


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `extra_body` may hold, in vLLM's words and with its meaning."""

    chat_template_kwargs: dict[str, Any] = {}
    top_k: Annotated[int, msgspec.Meta(ge=-1)] = 0
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Row(Protocol):
    """What sampling reads of a request and its answer so far."""

    @property
    def request(self) -> Request: ...

    @property
    def body(self) -> Body: ...

    @property
    def prompt(self) -> list[int]: ...

    @property
    def tokens(self) -> list[int]: ...


def sample(logits: Tensor, rows: Sequence[Row], chances: Sequence[float]) -> Tensor:
    """The token of each row at its place in [0, 1) of the distribution, which runs through the vocabulary in order.

    By inversion, as then a slightly different rounding gives the same token nearly always. Raises
    RuntimeError for logits that are no numbers.
    """
    import torch

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, device=logits.device, dtype=logits.dtype)[:, None]

    if logits.isnan().any():
        raise RuntimeError("the model computes NaN; give it another dtype in engine:, like {dtype: bfloat16}")
    logits = penalised(logits, rows)
    best = logits.argmax(-1)
    # None is OpenAI's default, 1. Below vLLM's threshold it is greedy.
    wanted = [1.0 if row.request.temperature is None else row.request.temperature for row in rows]
    greedy = [temperature < 1e-5 for temperature in wanted]
    if all(greedy):
        return best
    warm = column([1.0 if cold else temperature for cold, temperature in zip(greedy, wanted, strict=True)])
    p = (logits / warm).softmax(-1)
    p = torch.where(p < p.amax(-1, keepdim=True) * column([row.body.min_p for row in rows]), 0.0, p)
    top_p = [1.0 if row.request.top_p is None else row.request.top_p for row in rows]
    top_k = [row.body.top_k if row.body.top_k > 0 else logits.shape[-1] for row in rows]
    if min(top_p) < 1 or min(top_k) < logits.shape[-1]:
        descending, tokens = p.sort(-1, descending=True)
        rank = torch.arange(logits.shape[-1], device=logits.device)
        descending = torch.where(rank < column([float(k) for k in top_k]), descending, 0.0)
        above = (descending.cumsum(-1) - descending) / descending.sum(-1, keepdim=True)
        kept = torch.where((above < column(top_p)) | (rank == 0), descending, 0.0)
        p = torch.zeros_like(p).scatter_(1, tokens, kept)
    upto = p.cumsum(-1)
    # `p > 0`: on a GPU the sums may go up by a rounding where nothing is added.
    here = (upto > upto[:, -1:] * column(list(chances))) & (p > 0)
    drawn = torch.where(here.any(-1), here.float().argmax(-1), best)
    return torch.where(torch.tensor(greedy, device=logits.device), best, drawn)


def penalised(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """The logits with vLLM's repetition_penalty on all tokens of the prompt and the answer (Keskar et al. 2019)."""
    if all(row.body.repetition_penalty == 1 for row in rows):
        return logits
    logits = logits.clone()
    for i, row in enumerate(rows):
        seen = sorted({*row.prompt, *row.tokens})
        penalty, before = row.body.repetition_penalty, logits[i, seen]
        logits[i, seen] = before.where(before < 0, before / penalty**2) * penalty
    return logits


def body_of(request: Request) -> Body:
    """Raises ProviderError that names the field that this backend doesn't know."""
    body = (request.extra or {}).get("body", {})
    if unknown := sorted(body.keys() - set(Body.__struct_fields__)):
        message = f"extra_body.{unknown[0]} is not supported here; known: {', '.join(Body.__struct_fields__)}"
        raise ProviderError("unsupported", message, parameter=unknown[0])
    try:
        return msgspec.convert(body, Body)
    except msgspec.ValidationError as error:
        raise ProviderError("bad_request", f"extra_body: {error}") from error
