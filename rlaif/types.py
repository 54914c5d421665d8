"""The values that flow through a run; none of them ever changes.

They are msgspec structs, not pydantic models: a record is encoded, hashed and rebuilt thousands of
times a second, and what reaches this point was already checked at the door.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Literal

import msgspec

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "content_filter", "refusal"]
REFUSALS: tuple[FinishReason, ...] = ("refusal", "content_filter")
Side = Literal["strong", "weak"]
Outcome = Literal["ok", "dropped", "failed"]
VerdictOutcome = Literal["ok", "tie", "both_bad", "unparsed", "refusal", "low_mass", "escalated"]
# The outcomes of a judge that did answer.
VOTES: frozenset[VerdictOutcome] = frozenset({"ok", "tie", "both_bad"})

# Part of every request's key. Raise it when the key's meaning changes: old answers are then asked anew.
KEY_VERSION = 1


class Value(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Base: immutable, fields left at their default are not written."""


class Message(Value, frozen=True):
    role: Role
    content: str


Messages = tuple[Message, ...]


class Request(Value, frozen=True):
    """One question to one model; everything that can change the answer, and nothing else.

    `model` is the model's identity, not its address. `sample` numbers repeated draws of the same
    question. `seed` is the run's seed for sampled requests, 0 for greedy ones, so that greedy
    answers are shared between runs. A parameter that is None is not sent.
    """

    model: str
    messages: Messages
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None  # JSON, passed through untouched
    extra: dict[str, Any] | None = None  # provider's own body fields and headers, ditto
    seed: int = 0
    sample: int = 0
    provider_seed: bool = True  # False: the model takes no seed parameter
    shared: int = 0  # so many messages at the start are those of other requests too: a hint for prompt caches

    def key(self) -> bytes:
        """16 bytes that name this request in the journal; a hint changes no answer."""
        if self.shared:
            return msgspec.structs.replace(self, shared=0).key()
        return blake2b(_encode(self), digest_size=16, person=_PERSON).digest()


_encode = msgspec.json.Encoder(order="sorted").encode
_PERSON = f"rlaif-key-{KEY_VERSION}".encode()


class Usage(Value, frozen=True):
    """Tokens as the provider counted them.

    Of the prompt tokens `cached` were not computed again, and `written` put into the provider's cache.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0

    @property
    def counted(self) -> bool:
        """Some servers count nothing, and some backwards."""
        counts = self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.written_tokens
        return any(counts) and min(counts) >= 0


class TokenLogprob(Value, frozen=True):
    """One generated token and its most likely rivals: (token, natural log-probability)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Completion(Value, frozen=True, tag="ok", tag_field="status"):
    """A model's answer. `reasoning` holds what a reasoning model thought aloud, never in `text` or `logprobs`."""

    text: str
    finish_reason: FinishReason = "stop"
    reasoning: str | None = None
    usage: Usage = Usage()
    logprobs: tuple[TokenLogprob, ...] | None = None


class Failure(Value, frozen=True, tag="failed", tag_field="status"):
    """A call's final failure as the journal keeps it: `reason` is a ProviderErrorKind."""

    reason: str
    message: str


class Response(Value, frozen=True):
    """A candidate answer to the record's prompt.

    `revises` is the index of the response it rewrites, `principle` and `critique` what led to it.
    `side` is what the way it was made says of it: a strong model or prompt, or a weak one.
    """

    text: str
    model: str
    finish_reason: FinishReason = "stop"
    revises: int | None = None
    principle: str | None = None
    critique: str | None = None
    reasoning: str | None = None
    side: Side | None = None


class Verdict(Value, frozen=True):
    """One judge's comparison of two responses (by index) under one principle, asked in both orders.

    `p_ab` is the judge's probability for `first` when it was shown first, `p_ba` when it was shown
    second; `p_first` is their mean. None where that order gave no usable answer: then `outcome`
    says why, and the verdict is no vote. A judge that may say so finds a `tie` or `both_bad`, with half of
    their probability in each p and all of it in `p_tie` and `p_bad`. `escalated` is what a cascade did not
    rely on. `votes` are sampled answers (True: for `first`, None: neither) where the judge has no
    log-probabilities, or what its rankings say of the two. `replies` are the judge's raw texts in the order asked;
    those of a ranking are with the first of its verdicts only.
    """

    judge: str
    principle: str
    first: int
    second: int
    p_first: float | None = None
    p_ab: float | None = None
    p_ba: float | None = None
    consistent: bool | None = None
    p_tie: float | None = None
    p_bad: float | None = None
    votes: tuple[bool | None, ...] = ()
    outcome: VerdictOutcome = "ok"
    method: Literal["logprobs", "votes", "ranking", "reward", "code"] = "logprobs"
    replies: tuple[str, ...] = ()
    rationale: str | None = None
    weight: float = 1.0  # of the principle, among those that a judge was asked by

    @property
    def in_both_orders(self) -> tuple[float, float] | None:
        """(`p_ab`, `p_ba`) as they count, None unless both are there.

        Who finds two responses equally good or bad prefers neither, whatever is left of its probability.
        """
        if self.p_ab is None or self.p_ba is None:
            return None
        return (0.5, 0.5) if self.outcome in ("tie", "both_bad") else (self.p_ab, self.p_ba)


ROUNDING = 1e-9  # probabilities that differ by less are the same, whichever way round they were computed


def same_winner(p_ab: float, p_ba: float) -> bool:
    """Whether both orders have the same winner; a tie in one of them is none."""
    return min(p_ab, p_ba) > 0.5 + ROUNDING or max(p_ab, p_ba) < 0.5 - ROUNDING


class Score(Value, frozen=True):
    """A judge's absolute rating of one response by a principle or aspect, scaled to [-1, 1].

    None where the judge gave no rating. `replies` are its raw texts, `weight` that of the aspect in means.
    """

    judge: str
    principle: str
    response: int
    value: float | None
    replies: tuple[str, ...] = ()
    weight: float = 1.0


class Drop(Value, frozen=True):
    """A response that must not be judged or exported, and why."""

    response: int
    reason: str


class Record(Value, frozen=True):
    """A prompt and everything that was made from it. Stages return a new record with more in it.

    `outcome` is None while the record is under way. `id` is the hash of the prompt; `category` and
    `source` ("set:row") come with the prompt.
    """

    id: str
    prompt: Messages
    category: str | None = None
    source: str | None = None
    responses: tuple[Response, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    scores: tuple[Score, ...] = ()
    drops: tuple[Drop, ...] = ()
    outcome: Outcome | None = None
    reason: str | None = None
    stage: str | None = None  # where the record was dropped or failed
    detail: str | None = None  # the failure in words

    @property
    def prompt_set(self) -> str:
        return (self.source or "").rpartition(":")[0]

    def having(self, **changes: Any) -> Record:  # Any: any field of the record
        """The same record with these fields replaced."""
        return msgspec.structs.replace(self, **changes)

    def ended(self, outcome: Outcome, reason: str | None = None, stage: str | None = None) -> Record:
        """The same record at its end; the stages after this one are skipped."""
        return self.having(outcome=outcome, reason=reason, stage=stage)

    def live(self) -> list[int]:
        """Indices of the responses that no filter has dropped."""
        dropped = {drop.response for drop in self.drops}
        return [i for i in range(len(self.responses)) if i not in dropped]

    def candidates(self) -> list[int]:
        """What is compared: live first drafts and the last live revision of each."""
        chosen: dict[int, int] = {}  # (draft, or -1 - draft for its revisions) -> response
        for i in self.live():
            draft = self.draft_of(i)
            chosen[i if draft == i else -1 - draft] = i
        return sorted(chosen.values())

    def draft_of(self, index: int) -> int:
        """The first draft at the start of a response's chain of revisions."""
        while (parent := self.responses[index].revises) is not None:
            index = parent
        return index


def prompt_id(prompt: Messages, occurrence: int = 0) -> str:
    """The record id: 16 hex digits from the prompt's text and how often it occurred before."""
    digest = blake2b(digest_size=8)
    for message in prompt:
        digest.update(f"{message.role}\0{message.content}\0".encode())
    if occurrence:
        digest.update(str(occurrence).encode())
    return digest.hexdigest()
