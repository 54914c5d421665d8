"""What the transformers backend decides before any weights are loaded; needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.backends import ModelSpec, open_backend
from rlaif.backends import transformers as backend
from rlaif.backends.causal_lm import Call, Row
from rlaif.backends.sampling import Body, body_of
from rlaif.backends.transformers import batch_of, size_of
from rlaif.errors import ConfigError, ProviderError
from rlaif.types import Message, Request


def ask(max_tokens: int | None = 8, **more: Any) -> Request:  # Any: Request's own fields
    return Request("m", (Message("user", "hi"),), max_tokens=max_tokens, **more)


def row(length: int, max_tokens: int | None) -> Row:
    call: Any = Call(ask(max_tokens), None, None)  # type: ignore[arg-type] # nobody waits
    return Row(call, Body(), [1] * length, max_tokens or 100)


@pytest.mark.parametrize(("missing", "lora"), [("torch", None), ("transformers", None), ("peft", "adapter")])
def test_a_missing_library_is_an_error_that_names_the_extra(
    missing: str, lora: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(ConfigError, match=rf"needs {missing}; run: pip install 'rlaif-kit\[train\]'"):
        open_backend(ModelSpec(provider="transformers", lora=lora), {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_one_without_an_adapter_opens_without_peft_and_closes_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None if name == "peft" else object())
    opened = open_backend(ModelSpec(provider="transformers"), {}, tmp_path)
    await opened.close()
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_is_computed_with_those_that_generate_as_much_and_are_most_like_it_in_length() -> None:
    oldest, judged, long, near, alike = row(50, 160), row(50, 3), row(900, 160), row(60, 160), row(50, 160)
    assert batch_of([oldest, judged, long, near, alike], 3, float("inf")) == [oldest, alike, near]
    assert batch_of([judged, oldest, alike], 3, float("inf")) == [judged]


def test_a_batch_is_halved_until_it_is_as_small_as_memory_allows_but_the_oldest_always_goes() -> None:
    waiting = [row(90, 10) for _ in range(8)]
    assert size_of(waiting) == 800
    assert len(batch_of(waiting, 8, 800)) == 8
    assert len(batch_of(waiting, 8, 400)) == 4
    assert len(batch_of(waiting, 8, 399)) == 2
    assert batch_of(waiting, 8, 1)[0] is waiting[0]
    assert len(batch_of(waiting, 8, 1)) == 1


def test_padding_and_the_longest_answer_count_for_every_row() -> None:
    assert size_of([row(10, 5), row(90, 10)]) == 200


def test_fields_of_the_body_go_to_the_template_and_to_the_sampling() -> None:
    given = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 5, "min_p": 0.1, "repetition_penalty": 2}
    body = body_of(ask(extra={"body": given, "headers": {}}))
    assert body == Body({"enable_thinking": False}, 5, 0.1, 2.0)
    assert body_of(ask()) == Body()


def test_a_field_of_the_body_that_is_not_known_is_named() -> None:
    with pytest.raises(ProviderError, match=r"extra_body\.logit_bias .*known: .*top_k") as caught:
        body_of(ask(extra={"body": {"logit_bias": {}}}))
    assert (caught.value.kind, caught.value.parameter) == ("unsupported", "logit_bias")


@pytest.mark.parametrize("body", [{"top_k": "many"}, {"min_p": 2.0}, {"repetition_penalty": 0}])
def test_a_value_in_the_body_that_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ProviderError, match=next(iter(body))) as caught:
        body_of(ask(extra={"body": body}))
    assert caught.value.kind == "bad_request"
