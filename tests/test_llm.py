"""The one door: what is sent, when it is sent again, and what is kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from rlaif.backends.openai import OpenAIBackend
from rlaif.backends.scripted import ScriptedBackend
from rlaif.errors import CallFailed, Pending, ProviderError
from rlaif.journal import Journal
from rlaif.llm import LLM, Tally, ask_all, without_system
from rlaif.prices import Price
from rlaif.types import Completion, Message, Request, Usage
from tests.lab import one_lane
from tests.server import Reply, Server, completion

Answer = Callable[[Request], Completion | str]


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal(tmp_path / "calls.sqlite") as opened:
        yield opened


def door(journal: Journal, backend: ScriptedBackend, concurrency: int = 64, **settings: object) -> LLM:
    return LLM("m", "m@1", journal, one_lane(lambda: backend, concurrency), **settings)  # type: ignore[arg-type] # any of its fields


def ask(text: str, sample: int = 0) -> Request:
    return Request("m@1", (Message("user", text),), temperature=1.0, sample=sample)


class Faulty:
    """Fails with these errors, one a call, then answers; counts its calls by text."""

    def __init__(self, *errors: ProviderError) -> None:
        self.errors = list(errors)
        self.calls: Counter[str] = Counter()

    def __call__(self, request: Request) -> str:
        self.calls[request.messages[-1].content] += 1
        if self.errors:
            raise self.errors.pop(0)
        return "fine"


async def test_a_question_is_asked_once_and_answered_from_the_journal_after_that(journal: Journal) -> None:
    answer, tally = Faulty(), Tally()
    for _ in range(2):
        llm = door(journal, ScriptedBackend(answer))
        assert (await llm.complete(ask("a"), tally)).text == "fine"
        await llm.close()
    assert answer.calls == {"a": 1}
    assert (tally.sent, tally.from_journal) == (1, 0)  # of this run itself


async def test_two_equal_questions_in_flight_are_one_call(journal: Journal) -> None:
    answer = Faulty()
    llm = door(journal, ScriptedBackend(answer, latency_s=0.02))
    asked = [llm.complete(ask(text), Tally()) for text in "aabab"]
    assert {completion.text for completion in await asyncio.gather(*asked)} == {"fine"}
    assert answer.calls == {"a": 1, "b": 1}


@pytest.mark.parametrize("kind", ["server", "rate_limit", "timeout", "connection"])
async def test_what_may_pass_is_asked_again(journal: Journal, kind: str) -> None:
    answer = Faulty(*(ProviderError(kind, "down", retry_after_s=0.0) for _ in range(3)))  # type: ignore[arg-type]
    tally = Tally()
    assert (await door(journal, ScriptedBackend(answer)).complete(ask("a"), tally)).text == "fine"
    assert (tally.sent, tally.retried, tally.failed) == (4, 3, 0)


async def test_what_will_not_pass_fails_at_once_is_kept_and_only_a_retry_asks_again(journal: Journal) -> None:
    answer, tally = Faulty(ProviderError("context_length", "too long")), Tally()
    llm = door(journal, ScriptedBackend(answer))
    for _ in range(2):
        with pytest.raises(CallFailed, match="too long") as failed:
            await llm.complete(ask("a"), tally)
        assert failed.value.reason == "context_length"
    assert answer.calls == {"a": 1}
    again = door(journal, ScriptedBackend(answer), retry_failed=True)
    assert (await again.complete(ask("a"), tally)).text == "fine"
    assert (await again.complete(ask("a"), tally)).text == "fine"
    assert answer.calls == {"a": 2}


async def test_a_retry_asks_once_more_and_not_for_ever(journal: Journal) -> None:
    answer = Faulty(*(ProviderError("bad_request", "no") for _ in range(9)))
    for llm in (door(journal, ScriptedBackend(answer)), door(journal, ScriptedBackend(answer), retry_failed=True)):
        for _ in range(2):
            with pytest.raises(CallFailed):
                await llm.complete(ask("a"), Tally())
    assert answer.calls == {"a": 2}


@pytest.mark.parametrize("kind", ["auth", "not_found", "connection"])
async def test_an_endpoint_of_no_use_is_an_error_of_the_run_and_not_of_the_call(journal: Journal, kind: str) -> None:
    errors = [ProviderError(kind, "gone", retry_after_s=0.0) for _ in range(50)]  # type: ignore[arg-type]
    llm = LLM("m", "m@1", journal, one_lane(lambda: ScriptedBackend(Faulty(*errors)), outage_s=0.01))
    llm.probe_with(ask("?"), Tally)
    with pytest.raises(ProviderError, match="gone"):
        await llm.complete(ask("a"), Tally())
    assert journal.get(ask("a").key()) is None


async def test_an_outage_stops_before_it_burns_records(journal: Journal) -> None:
    errors = [ProviderError("server", "502", retry_after_s=0.0) for _ in range(400)]
    llm = door(journal, ScriptedBackend(Faulty(*errors)), attempts=2)
    ended = await asyncio.gather(*(llm.complete(ask(str(i)), Tally()) for i in range(100)), return_exceptions=True)
    kinds = Counter(type(error) for error in ended)
    assert kinds[CallFailed] == 63
    assert kinds[ProviderError] == 37


async def test_every_attempt_is_charged_when_it_fails_and_not_only_with_the_answer(journal: Journal) -> None:
    answer = Faulty(ProviderError("server", "down", status=500, retry_after_s=30.0))
    llm = door(journal, ScriptedBackend(answer), run="r")
    waiting = asyncio.create_task(llm.complete(ask("a"), Tally(), stage="sample"))
    async with asyncio.timeout(60):
        while not journal.ledger("r"):
            await asyncio.sleep(0.01)
    assert [(charge.stage, charge.sent, charge.failed) for charge in journal.ledger("r")] == [("sample", 1, 1)]
    llm.stop()
    with pytest.raises(Pending):
        await waiting
    await llm.close()


@pytest.mark.parametrize("usage", [Usage(), Usage(-5, -7)])
async def test_tokens_that_nobody_counted_are_charged_at_the_most_they_can_be(journal: Journal, usage: Usage) -> None:
    backend = ScriptedBackend(lambda _: Completion("fine", usage=usage))
    llm, tally = door(journal, backend, run="r", price=Price(input=1.0, output=2.0)), Tally()
    await llm.complete(msgspec.structs.replace(ask("a" * 100), max_tokens=50), tally, stage="sample")
    await llm.close()
    (charge,) = journal.ledger("r")
    assert charge.completion_tokens == tally.completion_tokens == 50
    assert charge.prompt_tokens == tally.prompt_tokens > 100


async def test_a_call_whose_caller_is_cancelled_still_lands_in_the_journal(journal: Journal) -> None:
    llm = door(journal, ScriptedBackend(Faulty(), latency_s=0.05))
    caller = asyncio.create_task(llm.complete(ask("a"), Tally()))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await llm.close()
    assert journal.get(ask("a").key()) == Completion("fine")


async def test_after_stop_no_call_begins_and_those_in_flight_end(journal: Journal) -> None:
    answer = Faulty()
    llm = door(journal, ScriptedBackend(answer, latency_s=0.05), concurrency=2)
    callers = [asyncio.create_task(llm.complete(ask(str(i)), Tally())) for i in range(5)]
    await asyncio.sleep(0.01)
    llm.stop()
    ended = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(result) for result in ended] == [Completion, Completion, Pending, Pending, Pending]
    assert answer.calls.total() == 2


async def test_stop_wakes_a_call_that_waits_to_be_asked_again(journal: Journal) -> None:
    llm = door(journal, ScriptedBackend(Faulty(ProviderError("rate_limit", "later", retry_after_s=300.0))))
    caller = asyncio.create_task(llm.complete(ask("a"), Tally()))
    await asyncio.sleep(0.01)
    llm.stop()
    with pytest.raises(Pending):
        await asyncio.wait_for(caller, 60)


async def test_a_dry_run_sends_nothing_and_counts_what_it_would(journal: Journal) -> None:
    def opened() -> ScriptedBackend:
        raise AssertionError("a dry run opens no backend")

    llm, tally = LLM("m", "m@1", journal, one_lane(opened), sending=False), Tally()
    with pytest.raises(Pending):
        await llm.complete(ask("a"), tally)
    assert (tally.sent, tally.unsent) == (0, 1)


async def test_no_more_calls_are_in_flight_than_allowed(journal: Journal) -> None:
    now, most = 0, 0

    async def answer(request: Request) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        return "fine"

    llm = door(journal, ScriptedBackend(answer), concurrency=3)
    await asyncio.gather(*(llm.complete(ask(str(i)), Tally()) for i in range(20)))
    assert most == 3


async def test_ask_all_settles_every_call_before_it_raises_and_waits_rather_than_fails() -> None:
    ended: list[str] = []

    async def call(name: str, error: BaseException | None = None, delay: float = 0.0) -> str:
        await asyncio.sleep(delay)
        ended.append(name)
        if error:
            raise error
        return name

    failure = CallFailed("server", "down")
    assert await ask_all(call("a"), call("b")) == ["a", "b"]
    ended.clear()
    with pytest.raises(Pending):
        await ask_all(call("fails", failure), call("waits", Pending()), call("late", delay=0.02))
    assert ended == ["fails", "waits", "late"]
    with pytest.raises(CallFailed):
        await ask_all(call("fails", failure), call("fine"))
    with pytest.raises(ZeroDivisionError):
        await ask_all(call("waits", Pending()), call("fails", failure), call("bug", ZeroDivisionError()))


def test_without_a_system_role_its_text_opens_the_first_user_turn() -> None:
    system, user, reply = Message("system", "Be kind."), Message("user", "Hi."), Message("assistant", "Hello.")
    assert without_system((system, user, reply)) == (Message("user", "Be kind.\n\nHi."), reply)
    assert without_system((user, reply)) == (user, reply)
    assert without_system((system,)) == (Message("user", "Be kind."),)


@pytest.mark.parametrize(
    "fault",
    [
        (500, "<html>Internal Server Error</html>", {"Retry-After": "0"}),
        (429, {"error": {"message": "Rate limit reached"}}, {"Retry-After": "0"}),
        (200, '{"choices": [{"mess', {}),
        (200, {"error": {"message": "overloaded"}}, {}),
    ],
)
async def test_a_server_with_a_fault_is_asked_again_with_the_same_body(journal: Journal, fault: Reply) -> None:
    replies: list[Reply] = [fault, completion("fine")]
    async with Server(lambda _: replies.pop(0)) as server:
        tally = Tally()
        llm = LLM("m", "m@1", journal, one_lane(lambda: OpenAIBackend(server.url, "m")))
        assert (await llm.complete(ask("a"), tally)).text == "fine"
        assert server.requests[0] == server.requests[1]
        assert (tally.sent, tally.retried, tally.prompt_tokens) == (2, 1, 7)
        await llm.close()


async def test_the_wait_that_a_server_asks_for_is_kept(journal: Journal) -> None:
    answer = Faulty(ProviderError("rate_limit", "later", retry_after_s=0.3))
    start = time.monotonic()
    await door(journal, ScriptedBackend(answer)).complete(ask("a"), Tally())
    assert 0.3 <= time.monotonic() - start < 60


async def test_what_waits_in_our_own_queue_does_not_time_out(journal: Journal) -> None:
    async with Server(lambda _: completion("fine"), latency_s=lambda: 0.8) as server:
        llm = LLM("m", "m@1", journal, one_lane(lambda: OpenAIBackend(server.url, "m", timeout_s=5), 1), attempts=1)
        await asyncio.gather(*(llm.complete(ask(str(i)), Tally()) for i in range(8)))
        assert (len(server.requests), server.most_in_flight) == (8, 1)
        await llm.close()
