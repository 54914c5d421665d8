"""A request's key names exactly what can change its answer; a record knows its own responses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.store import decode, encode
from rlaif.types import KEY_VERSION, Drop, Message, Record, Request, Response, Score, Verdict, prompt_id

FULL = Request(
    model="https://api.example/v1#m",
    messages=(Message("system", "Be kind."), Message("user", "Grüße 🙂")),
    temperature=0.7,
    top_p=0.9,
    max_tokens=128,
    stop=("\n\n",),
    top_logprobs=20,
    response_format={"type": "json_object"},
    extra={"body": {"top_k": 40}, "headers": {"x-team": "a"}},
    seed=3,
    sample=2,
    provider_seed=False,
)
OTHER: dict[str, Any] = {
    "model": "https://api.example/v1#n",
    "messages": (Message("user", "Grüße 🙂"),),
    "temperature": 0.0,
    "top_p": 1.0,
    "max_tokens": 129,
    "stop": ("\n", "\n"),
    "top_logprobs": 5,
    "response_format": {"type": "text"},
    "extra": {"body": {"top_k": 41}, "headers": {"x-team": "a"}},
    "seed": 4,
    "sample": 3,
    "provider_seed": True,
}


def test_keys_are_pinned() -> None:
    """If this fails, answers that were paid for are no longer found: raise KEY_VERSION and pin anew."""
    assert KEY_VERSION == 1
    assert Request("m", (Message("user", "hi"),)).key().hex() == "d1b03393dbf81d9edb31cef1ce7d197e"
    assert FULL.key().hex() == "239442ece535bb2df3fd4e6b3eedcc0f"


def test_every_field_is_part_of_the_key() -> None:
    assert set(OTHER) | {"shared"} == set(Request.__struct_fields__), "a new field: say here how it changes the key"
    for name, value in OTHER.items():
        assert msgspec.structs.replace(FULL, **{name: value}).key() != FULL.key(), name


def test_a_hint_for_a_prompt_cache_is_no_part_of_the_key() -> None:
    assert msgspec.structs.replace(FULL, shared=3).key() == FULL.key()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(max_size=12)), max_size=3
).map(tuple)
requests = st.builds(
    Request,
    model=st.text(max_size=8),
    messages=messages,
    temperature=st.none() | st.floats(0, 2),
    max_tokens=st.none() | st.integers(1, 4096),
    stop=st.lists(st.text(max_size=4), max_size=2).map(tuple),
    extra=st.none() | st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    seed=st.integers(0, 9),
    sample=st.integers(0, 9),
)


@given(requests, requests)
def test_two_requests_share_a_key_only_if_they_are_equal(one: Request, other: Request) -> None:
    same = msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
    assert (one.key() == other.key()) == same
    assert len(one.key()) == 16


def turned(value: Any) -> Any:
    """The same JSON with every mapping written in the opposite order."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_the_order_of_foreign_options_does_not_matter(extra: dict[str, Any]) -> None:
    one, other = (Request("m", (), extra=e, response_format=e) for e in (extra, turned(extra)))
    assert one.key() == other.key()


def test_text_cannot_move_between_messages_unseen() -> None:
    one = Request("m", (Message("user", "a"), Message("user", "b")))
    other = Request("m", (Message("user", 'a"},{"role":"user","content":"b'),))
    assert one.key() != other.key()


def test_a_prompt_id_is_a_function_of_roles_texts_and_occurrence() -> None:
    prompt = (Message("user", "How are you?"),)
    assert prompt_id(prompt) == prompt_id((Message("user", "How are you?"),)) == "5789b6aea24c274a"
    others = [
        prompt_id(prompt, 1),
        prompt_id(prompt, 2),
        prompt_id((Message("assistant", "How are you?"),)),
        prompt_id((Message("user", "How are you"), Message("user", "?"))),
        prompt_id((*prompt, *prompt)),
    ]
    assert len({prompt_id(prompt), *others}) == 6
    assert all(len(name) == 16 for name in others)


def responses(*revises: int | None) -> tuple[Response, ...]:
    return tuple(Response(f"text {i}", "m", revises=parent) for i, parent in enumerate(revises))


@pytest.mark.parametrize(
    ("revises", "dropped", "expected"),
    [
        ((), (), []),
        ((None, None), (), [0, 1]),
        ((None, None, 0), (), [0, 1, 2]),
        ((None, None, 0, 2, 3), (), [0, 1, 4]),  # of a chain the last
        ((None, None, 0, 2, 3), (4,), [0, 1, 3]),  # the last that lives
        ((None, None, 0, 2), (0,), [1, 3]),  # a draft may be gone, its revisions not
        ((None, None, 0, 1), (1, 2), [0, 3]),
        ((None,), (0,), []),
    ],
)
def test_candidates_are_live_drafts_and_the_last_live_revision_of_each(
    revises: tuple[int | None, ...], dropped: tuple[int, ...], expected: list[int]
) -> None:
    record = Record("id", (), responses=responses(*revises), drops=tuple(Drop(i, "empty") for i in dropped))
    assert record.candidates() == expected
    assert record.live() == [i for i in range(len(revises)) if i not in dropped]


def test_draft_of_follows_the_chain_to_its_start() -> None:
    record = Record("id", (), responses=responses(None, None, 1, 2, 0, 3))
    assert [record.draft_of(i) for i in range(6)] == [0, 1, 1, 1, 0, 1]


def test_a_record_never_changes() -> None:
    record = Record("id", (Message("user", "hi"),))
    ended = record.ended("dropped", "refusal", "filter")
    assert (record.outcome, ended.outcome, ended.reason, ended.stage) == (None, "dropped", "refusal", "filter")
    with pytest.raises(AttributeError):
        record.outcome = "ok"  # type: ignore[misc]


def test_a_full_record_survives_encoding_as_one_line() -> None:
    record = Record(
        "id",
        (Message("user", "hi"),),
        category="harm",
        source="prompts.jsonl:7",
        responses=responses(None, None, 0),
        verdicts=(
            Verdict("j", "kind", 0, 2, 0.75, 0.8, 0.7, True, replies=("A", "B")),
            Verdict("j", "kind", 1, 2, outcome="low_mass", votes=(True, False), method="votes", rationale="Ünsure 🌍"),
        ),
        scores=(Score("j", "kind", 2, -0.5),),
        drops=(Drop(0, "too_short"),),
        outcome="failed",
        reason="server",
        stage="judge",
        detail='a "quoted"\nline\u2028',
    )
    assert decode(encode(record)) == record
    assert b"\n" not in encode(record)  # parts are lines


def test_what_is_at_its_default_is_not_written() -> None:
    record = Record("id", (Message("user", "hi"),))
    assert encode(record) == b'{"id":"id","prompt":[{"role":"user","content":"hi"}]}'
