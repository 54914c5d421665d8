"""A limit is a limit: what is spent and reserved stays within it, whatever comes back in whatever order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rlaif.backends.scripted import ScriptedBackend
from rlaif.budget import Budget, Limited, LimitedBatches, Reservation, may_be_billed, seconds, tokens_at_most
from rlaif.errors import ConfigError, Pending, ProviderError
from rlaif.prices import FREE, Price, cost_usd
from rlaif.types import Completion, Message, Request, Usage

PRICE = Price(input=4, cached=0.2, written=5, output=20, batch=0.5)
CHEAP = Price(input=0.05, output=0.4)
TOKENS = st.integers(0, 5000)


def usage_within(prompt: int, completion: int) -> st.SearchStrategy[Usage]:
    """What a provider may count for it."""
    share = st.floats(0, 1)
    return st.builds(
        lambda a, b, c, d: Usage(
            int(prompt * a), int(completion * b), int(prompt * a * c), int(prompt * a * (1 - c) * d)
        ),
        share,
        share,
        share,
        share,
    )


class Spending(RuleBasedStateMachine):
    """Requests of all sizes, granted, answered, refused and lost in any order."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(max_cost_usd=0.5, max_calls=40)
        self.open: list[Reservation] = []
        self.calls = 0

    @rule(
        target=held, prompt=TOKENS, completion=TOKENS, price=st.sampled_from([PRICE, CHEAP, FREE]), batch=st.booleans()
    )
    def reserve(self, prompt: int, completion: int, price: Price, batch: bool) -> tuple[Reservation | None, int, int]:
        reservation = self.budget.reserve_now(prompt, completion, price, batch=batch)
        if reservation is not None:
            assert self.budget.exhausted is None
            self.open.append(reservation)
        return reservation, prompt, completion

    @rule(held=consumes(held), data=st.data())
    def settle(self, held: tuple[Reservation | None, int, int], data: st.DataObject) -> None:
        reservation, prompt, completion = held
        if reservation is None:
            return
        self.budget.settle(reservation, data.draw(usage_within(prompt, completion) | st.none()))
        self.open.remove(reservation)
        self.calls += 1

    @rule(held=consumes(held), sent=st.booleans())
    def release(self, held: tuple[Reservation | None, int, int], sent: bool) -> None:
        if held[0] is not None:
            self.budget.release(held[0], sent=sent)
            self.open.remove(held[0])
            self.calls += sent

    @invariant()
    def within_the_limits(self) -> None:
        assert self.budget.spent_usd + self.budget.reserved_usd <= 0.5 * (1 + 1e-12)
        assert self.budget.calls == self.calls
        assert self.calls + len(self.open) <= 40
        assert self.budget.reserved_usd == pytest.approx(sum(one.amount for one in self.open) / 1e12)


TestSpending = Spending.TestCase


async def call(budget: Budget, usage: Usage, prompt: int = 1000, completion: int = 100) -> bool:
    reservation = await budget.reserve(prompt, completion, PRICE)
    if reservation is None:
        return False
    await asyncio.sleep(0)
    budget.settle(reservation, usage)
    return True


async def test_a_call_that_does_not_fit_beside_those_in_flight_waits_until_they_come_to_less() -> None:
    # At most 0.007 USD each, so one at a time; really 0.0006, so 22 of them before the next might be too much.
    budget = Budget(max_cost_usd=0.02)
    usage = Usage(100, 10)
    sent = await asyncio.gather(*(call(budget, usage) for _ in range(60)))
    assert sent == [True] * 22 + [False] * 38
    assert budget.spent_usd == pytest.approx(22 * cost_usd(PRICE, 100, 0, 10))
    assert budget.exhausted == "--max-cost 0.02 reached: 0.013 USD spent, and the next call may cost 0.007"
    assert budget.reserved_usd == 0


async def test_a_dear_request_is_not_overtaken_for_ever_by_cheap_ones() -> None:
    budget = Budget(max_cost_usd=0.01)
    first = await budget.reserve(1000, 100, PRICE)
    dear = asyncio.create_task(budget.reserve(1000, 200, PRICE))
    await asyncio.sleep(0)
    cheap = asyncio.create_task(budget.reserve(10, 1, CHEAP))
    await asyncio.sleep(0)
    assert budget.reserve_now(10, 1, CHEAP) is None
    assert not dear.done()
    assert not cheap.done()
    assert first is not None
    budget.release(first, sent=True)
    assert await dear is not None
    assert await cheap is not None


async def test_a_cancelled_caller_leaves_nothing_reserved() -> None:
    budget = Budget(max_cost_usd=0.01)
    first = await budget.reserve(1000, 100, PRICE)
    assert first is not None
    waiting = asyncio.create_task(budget.reserve(1000, 100, PRICE))
    await asyncio.sleep(0)
    budget.release(first, sent=True)  # grants it,
    waiting.cancel()  # before the task has seen it
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.reserved_usd == 0
    assert budget.calls == 1
    assert await budget.reserve(1000, 100, PRICE) is not None


async def test_the_end_is_announced_once_and_nothing_is_granted_after_it() -> None:
    ends: list[str | None] = []
    budget = Budget(max_calls=3, calls=1, when_exhausted=lambda: ends.append(budget.exhausted))
    assert await asyncio.gather(*(call(budget, Usage(1, 1)) for _ in range(5))) == [True, True, False, False, False]
    assert ends == ["--max-calls 3 reached"]
    assert budget.reserve_now(1, 1, None) is None
    assert ends == ["--max-calls 3 reached"]


async def test_the_end_sends_away_all_who_wait_whoever_else_is_told() -> None:
    """The run that is told stops its models, and these the budget."""
    budget = Budget(max_cost_usd=0.01)
    budget.when_exhausted = budget.stop
    held = await budget.reserve(1000, 100, PRICE)
    waiting = [asyncio.create_task(budget.reserve(1000, 100, PRICE)) for _ in range(3)]
    await asyncio.sleep(0)
    assert held is not None
    budget.settle(held, None)
    assert await asyncio.gather(*waiting) == [None, None, None]


async def test_a_call_that_was_not_sent_leaves_its_place_to_another() -> None:
    budget = Budget(max_calls=1)
    first = await budget.reserve(1, 1, None)
    waiting = asyncio.create_task(budget.reserve(1, 1, None))
    await asyncio.sleep(0)
    assert first is not None
    budget.release(first, sent=False)
    assert await waiting is not None
    assert budget.exhausted is None


async def test_what_earlier_invocations_spent_counts() -> None:
    budget = Budget(max_cost_usd=5, spent_usd=4.999)
    assert await budget.reserve(1000, 100, PRICE) is None
    assert budget.exhausted == "--max-cost 5.00 reached: 5.00 USD spent, and the next call may cost 0.007"


async def test_time_is_up_for_those_who_wait_too() -> None:
    budget = Budget(max_cost_usd=0.01, max_time_s=0.05, clock=lambda: 0.0)  # its end comes by the watch alone
    first = await budget.reserve(1000, 100, PRICE)
    assert first is not None
    watch = asyncio.create_task(budget.watch())
    assert await budget.reserve(1000, 100, PRICE) is None
    assert budget.exhausted == "--max-time reached: 0.05 s"
    await watch
    budget.settle(first, Usage(1000, 100))
    assert budget.spent_usd == pytest.approx(0.006)


def test_time_is_measured_from_the_start_of_this_invocation() -> None:
    now = 100.0
    budget = Budget(max_time_s=10, clock=lambda: now)
    assert budget.reserve_now(1, 1, None) is not None
    now = 110.0
    assert budget.reserve_now(1, 1, None) is None
    assert budget.exhausted == "--max-time reached: 10 s"


def test_without_limits_everything_passes_and_known_costs_are_counted() -> None:
    budget = Budget()
    reservations = [budget.reserve_now(10**6, 10**6, price) for price in (PRICE, None, FREE)]
    for reservation in reservations:
        assert reservation is not None
        budget.settle(reservation, Usage(1000, 100))
    assert budget.spent_usd == pytest.approx(0.006)
    assert budget.exhausted is None


@pytest.mark.parametrize("usage", [None, Usage()])
def test_an_answer_that_was_lost_or_not_counted_costs_all_that_was_reserved(usage: Usage | None) -> None:
    budget = Budget(max_cost_usd=1)
    reservation = budget.reserve_now(1000, 100, PRICE)
    assert reservation is not None
    budget.settle(reservation, usage)
    assert budget.spent_usd == pytest.approx(1000 * 5e-6 + 100 * 20e-6)


def test_more_tokens_than_were_reserved_are_counted_and_end_the_run() -> None:
    budget = Budget(max_cost_usd=0.01)
    reservation = budget.reserve_now(1000, 100, PRICE)
    assert reservation is not None
    budget.settle(reservation, Usage(10_000, 100))
    assert budget.spent_usd == pytest.approx(0.042)
    assert budget.reserve_now(1, 1, CHEAP) is None
    assert budget.exhausted is not None


def test_a_cost_limit_with_an_unknown_price_is_refused_by_name() -> None:
    prices = {"gpt-4o": PRICE, "my-model": None, "local": FREE}
    with pytest.raises(ConfigError, match=r"price of my-model is not known.*price: \{input: .*prices=FILE"):
        Budget(max_cost_usd=5).check_prices(prices)
    Budget(max_calls=5).check_prices(prices)
    Budget(max_cost_usd=5).check_prices({"gpt-4o": PRICE, "local": FREE})


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
def test_a_prompts_bound_has_room_for_a_token_a_byte_and_for_what_stands_around(texts: list[str]) -> None:
    request = Request("m", tuple(Message("user", text) for text in texts), max_tokens=7)
    prompt, completion = tokens_at_most(request)
    assert prompt >= len("".join(texts).encode()) + 10 * len(texts)
    assert completion == 7


def test_a_schema_and_body_fields_of_the_users_own_count_too() -> None:
    messages = (Message("user", "hi"),)
    plain, _ = tokens_at_most(Request("m", messages, max_tokens=7))
    schema = {"type": "json_schema", "json_schema": {"schema": {"description": "x" * 1000}}}
    assert tokens_at_most(Request("m", messages, max_tokens=7, response_format=schema))[0] >= plain + 1000
    extra = {"body": {"max_completion_tokens": 900}, "headers": {}}
    assert tokens_at_most(Request("m", messages, max_tokens=7, extra=extra))[1] == 900


def test_an_answer_of_any_length_has_no_bound() -> None:
    endless = Request("m", (Message("user", "hi"),))
    assert tokens_at_most(endless)[1] is None
    limited = Limited(ScriptedBackend(lambda _: "word"), Budget(max_cost_usd=1), PRICE)
    with pytest.raises(ConfigError, match="max_tokens"):
        asyncio.run(limited.complete(endless))


async def test_an_answer_of_any_length_is_no_matter_where_nothing_is_paid_for_it() -> None:
    free = Limited(ScriptedBackend(lambda _: "word"), Budget(max_cost_usd=1), FREE)
    assert (await free.complete(Request("m", (Message("user", "hi"),)))).text == "word"


@pytest.mark.parametrize("limit_usd", [0.001, 0.01, 0.1])
async def test_a_hundred_calls_at_once_against_a_backend_that_counts_stay_within_the_limit(limit_usd: float) -> None:
    backend = ScriptedBackend(lambda request: "word " * int(request.messages[0].content))
    budget = Budget(max_cost_usd=limit_usd)
    bill = 0.0

    async def one(number: int) -> None:
        nonlocal bill
        request = Request("m", (Message("user", str(number % 7)),), max_tokens=20)
        reservation = await budget.reserve(*tokens_at_most(request), PRICE)
        if reservation is None:
            return
        usage = (await backend.complete(request)).usage
        bill += cost_usd(PRICE, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
        budget.settle(reservation, usage)

    await asyncio.gather(*(one(number) for number in range(100)))
    assert bill <= limit_usd
    assert (budget.calls < 100) == (budget.exhausted is not None)


class Queue:
    """A batch API: what it is asked is answered after the next `settle`."""

    def __init__(self) -> None:
        self.live = ScriptedBackend(lambda request: Completion("live", usage=Usage(10, 1)))
        self.handed_in: dict[bytes, bool] = {}

    async def complete(self, request: Request) -> Completion:
        if not self.handed_in.setdefault(request.key(), False):
            raise Pending
        return Completion("batch", usage=Usage(100, 10))

    async def settle(self) -> bool:
        waiting = not all(self.handed_in.values())
        self.handed_in = dict.fromkeys(self.handed_in, True)
        return waiting

    def stop(self) -> None: ...

    async def close(self) -> None: ...


def asked(number: int) -> Request:
    return Request("m", (Message("user", str(number)),), max_tokens=100, sample=number)


async def unanswered(backend: Limited, requests: list[Request]) -> list[Request]:
    """What is left after a pass."""
    done = await asyncio.gather(*map(backend.complete, requests), return_exceptions=True)
    assert all(isinstance(one, (Completion, Pending)) for one in done)
    return [request for request, one in zip(requests, done, strict=True) if isinstance(one, Pending)]


async def test_what_is_queued_in_batches_keeps_its_place_until_it_is_answered() -> None:
    # At most 0.0014 USD each, so 7 at a time; really 0.0003.
    budget, queue = Budget(max_cost_usd=0.01), Queue()
    backend = LimitedBatches(queue, budget, PRICE.in_batch, PRICE)
    requests = [asked(number) for number in range(12)]
    for _ in range(2):
        assert await unanswered(backend, requests) == requests
        assert len(queue.handed_in) == 7  # those asked again are not reserved for again
        assert budget.spent_usd + budget.reserved_usd <= 0.01
    passes = 0
    while requests := await unanswered(backend, requests):
        assert await backend.settle()
        assert budget.spent_usd + budget.reserved_usd <= 0.01
        passes += 1
    assert passes == 2
    assert budget.spent_usd == pytest.approx(12 * cost_usd(PRICE.in_batch, 100, 0, 10))
    assert budget.exhausted is None
    assert not await backend.settle()


async def test_live_calls_that_find_no_room_beside_batches_wait_for_another_pass_and_not_in_this_one() -> None:
    budget, queue = Budget(max_calls=4), Queue()
    batches = LimitedBatches(queue, budget, PRICE, PRICE)
    live = Limited(queue.live, budget, PRICE, waits=False)
    assert len(await unanswered(batches, [asked(number) for number in range(4)])) == 4
    with pytest.raises(Pending):
        await live.complete(asked(9))
    assert not await live.settle()  # only the batch can make room: another pass at once would find none
    assert await batches.settle()
    assert not await unanswered(batches, [asked(0)])
    assert budget.exhausted is None


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ProviderError("timeout", "no answer"), True),
        (ProviderError("server", "cut"), True),
        (ProviderError("server", "gateway", status=504), True),
        (ProviderError("server", "internal", status=500), False),
        (ProviderError("rate_limit", "slow down", status=429), False),
        (ProviderError("connection", "nobody there"), False),
        (ProviderError("bad_request", "no", status=400), False),
    ],
)
async def test_only_answers_that_were_lost_on_the_way_are_billed_without_an_answer(
    error: ProviderError, lost: bool
) -> None:
    def fail(request: Request) -> Completion:
        raise error

    budget = Budget(max_cost_usd=1)
    backend = Limited(ScriptedBackend(fail), budget, PRICE)
    with pytest.raises(ProviderError):
        await backend.complete(asked(1))
    assert (budget.spent_usd > 0, may_be_billed(error)) == (lost, lost)
    assert (budget.calls, budget.reserved_usd) == (1, 0)


@pytest.mark.parametrize(
    ("text", "expected"), [("2h", 7200), ("90m", 5400), ("600s", 600), ("45", 45), ("1h30m", 5400)]
)
def test_times_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert seconds(text) == seconds(f" {text.upper()} ") == expected
