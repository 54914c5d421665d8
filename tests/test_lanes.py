"""Addresses and keys side by side: who is asked, who is slowed down, who is left alone and asked again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest

from rlaif.backends.scripted import ScriptedBackend
from rlaif.errors import EndpointGone, Pending, ProviderError
from rlaif.lanes import Lane, Lanes
from rlaif.throttle import Rate
from rlaif.types import Message, Request

QUESTION = Request("m@1", (Message("user", "A or B?"),))


async def ask(one: Lane) -> None:
    await one.live.complete(QUESTION)


BUSY = ProviderError("rate_limit", "slow down")
DOWN = ProviderError("server", "502")


def lane(name: str = "a", **settings: object) -> Lane:
    return Lane(name, lambda: ScriptedBackend(lambda _: "fine"), **settings)  # type: ignore[arg-type]


def lanes(*several: Lane) -> Lanes:
    return Lanes(several, said.append)


said: list[str] = []


@pytest.fixture(autouse=True)
def _silence() -> None:
    said.clear()


async def test_the_lane_with_the_most_room_is_taken() -> None:
    wide, narrow = lane("wide", most=8), lane("narrow", most=2)
    several = lanes(wide, narrow)
    taken = Counter([(await several.take()).name for _ in range(10)])
    assert taken == {"wide": 8, "narrow": 2}


async def test_equal_lanes_keep_their_records() -> None:
    several = lanes(lane("a"), lane("b"))
    for rank, name in ((0, "a"), (1, "b"), (2, "a"), (5, "b")):
        taken = await several.take(rank)
        assert taken.name == name
        several.leave(taken)


async def test_those_that_wait_are_served_by_rank() -> None:
    several = lanes(lane(most=1))
    first = await several.take(9)
    order: list[int] = []

    async def call(rank: int) -> None:
        taken = await several.take(rank)
        order.append(rank)
        several.leave(taken)

    calls = [asyncio.create_task(call(rank)) for rank in (7, 3, 5)]
    await asyncio.sleep(0)
    several.leave(first)
    await asyncio.gather(*calls)
    assert order == [3, 5, 7]


async def test_many_refusals_cut_once_for_all_that_were_sent_before() -> None:
    one, now = lane(most=100), time.monotonic()
    for _ in range(90):
        one.take(0, now)
    for _ in range(60):
        one.answered(now - 1, now)
    for _ in range(60):
        one.in_flight -= 1
        one.slowed(BUSY, now, now + 1)
    assert one.throttle.limit == pytest.approx(0.8 * 71)  # of those in flight when it was clear, not of the 100 allowed
    for _ in range(32):
        one.slowed(BUSY, now + 90, now + 90)
    assert one.throttle.limit == pytest.approx(0.25 * 30)  # nothing was answered any more
    assert one.refused == 92


async def test_a_refused_calls_place_stays_empty_for_as_long_as_an_answer_takes() -> None:
    """Or a place too many would be refused again and again while the others wait for answers."""
    one = lane(most=2)
    several = lanes(one)
    for _ in range(400):
        one.answered(0.0, 0.3)
    taken = await several.take()
    several.slowed(taken, BUSY, time.monotonic())
    several.leave(taken)
    assert one.places == 1
    await several.take()
    start = time.monotonic()
    await asyncio.wait_for(several.take(), 60)
    assert time.monotonic() - start > 0.2
    assert one.cooling == 0


async def test_a_refusal_now_and_then_costs_its_own_call_a_wait_and_the_lane_nothing() -> None:
    one, now, rng = lane(most=100), time.monotonic(), random.Random(1)
    for i in range(5000):
        one.in_flight = 99
        if rng.random() < 0.1:
            one.slowed(ProviderError("rate_limit", "busy", retry_after_s=1.0), now + i / 100, now + i / 100)
        else:
            one.answered(now + i / 100, now + i / 100)
    assert one.throttle.limit > 80
    assert one.throttle.resting_until == 0.0


async def test_what_was_cut_grows_slowly_while_it_is_used_and_never_past_the_setting() -> None:
    one, now = lane(most=20), time.monotonic()
    one.throttle.limit, one.throttle._grown_at = 10.0, now
    one.in_flight = 9
    for _ in range(10):
        now += 0.1
        one.answered(now - 0.05, now)
    assert one.throttle.limit == pytest.approx(10.5, abs=0.05)
    one.in_flight = 2
    one.answered(now, now + 0.1)
    assert one.throttle.limit == pytest.approx(10.5, abs=0.05)
    for _ in range(1000):
        now += 0.5
        one.in_flight = 19
        one.answered(now - 0.05, now)
    assert one.throttle.limit == 20


async def test_a_lane_rests_as_long_as_it_was_told_and_then_goes_on() -> None:
    one = lane()
    several = lanes(one)
    for _ in range(60):
        one.slowed(ProviderError("rate_limit", "later", retry_after_s=0.2), time.monotonic(), time.monotonic())
    start = time.monotonic()
    await several.take()
    assert 0.2 <= time.monotonic() - start < 60


async def test_a_rate_limit_of_ours_spreads_the_calls_and_lets_a_second_of_them_pass_at_once() -> None:
    several = lanes(lane(most=1000, requests=Rate(60 * 50)))
    start = time.monotonic()
    for _ in range(60):  # 50 at once, 10 more at 50 a second
        await several.take()
    assert 0.15 <= time.monotonic() - start < 60


async def test_a_call_larger_than_the_token_limit_passes_and_is_waited_off() -> None:
    one = lane(tokens=Rate(60_000))
    several = lanes(one)
    await several.take(tokens=1200)
    start = time.monotonic()
    await several.take(tokens=1)
    assert 0.1 <= time.monotonic() - start < 60


async def test_a_lane_that_only_fails_is_left_alone_until_it_answers_a_small_question() -> None:
    answers = [DOWN]

    def answer(request: Request) -> str:
        assert request == QUESTION
        if answers:
            raise answers.pop()
        return "A"

    one = Lane("a", lambda: ScriptedBackend(answer))
    several = lanes(one)
    several.probe = ask
    for _ in range(5):
        several.failed(one, DOWN)
    waits = asyncio.create_task(several.take())
    await asyncio.sleep(0.1)
    assert not waits.done()
    assert said == ["a is left alone until it answers again (502)"]
    assert await asyncio.wait_for(waits, 60) is one
    assert said[1:] == ["a answers again"]
    for _ in range(9):  # it answers, so it is the rows that fail: less readily next time
        several.failed(one, DOWN)
    assert one.broken is None
    await several.close()


async def test_while_one_lane_is_down_the_others_take_its_calls() -> None:
    down, up = lane("down"), lane("up")
    several = lanes(down, up)
    for _ in range(5):
        several.failed(down, DOWN)
    assert {(await several.take(rank)).name for rank in range(6)} == {"up"}
    await several.close()


async def test_a_refused_key_gives_up_its_lane_and_the_last_one_ends_the_run() -> None:
    a, b = lane("a", most=1), lane("b", most=1)
    several = lanes(a, b)
    await several.take()
    await several.take()
    waits = asyncio.create_task(several.take())
    await asyncio.sleep(0)
    several.failed(a, ProviderError("auth", "the key in A was refused"))
    assert said == ["a is given up, the others go on (the key in A was refused)"]
    several.failed(b, ProviderError("auth", "the key in B was refused"))
    with pytest.raises(EndpointGone, match="the key in B was refused") as gone:
        await waits
    assert gone.value.fatal
    with pytest.raises(EndpointGone):
        await several.take()


async def test_a_lane_that_is_down_for_too_long_is_given_up() -> None:
    def down(request: Request) -> str:
        raise DOWN

    one = Lane("a", lambda: ScriptedBackend(down), outage_s=0.05)
    several = lanes(one)
    several.probe = ask
    for _ in range(5):
        several.failed(one, DOWN)
    with pytest.raises(EndpointGone, match="502"):
        await asyncio.wait_for(several.take(), 60)


async def test_stopping_lets_go_of_those_that_wait_and_of_lanes_that_are_left_alone() -> None:
    one = lane(most=1)
    several = lanes(one)
    await several.take()
    waits = asyncio.create_task(several.take())
    for _ in range(5):
        several.failed(one, DOWN)
    await asyncio.sleep(0)
    several.stop()
    for call in (waits, several.take()):
        with pytest.raises(Pending):
            await call
    await asyncio.wait_for(several.close(), 60)


async def test_a_caller_that_went_away_takes_no_place() -> None:
    several = lanes(lane(most=1))
    first = await several.take()
    gone, waits = (asyncio.create_task(several.take()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    several.leave(first)
    await asyncio.wait_for(waits, 60)


async def test_a_lane_that_only_refuses_for_the_rate_is_given_up_and_nobody_waits_for_ever() -> None:
    one = lane(outage_s=0.05)
    several = lanes(one)
    one.throttle.resting_until = time.monotonic() + 300
    waits = asyncio.create_task(several.take())
    await asyncio.sleep(0)
    for _ in range(60):
        several.slowed(one, BUSY, time.monotonic())
    await asyncio.sleep(0.1)
    several.slowed(one, BUSY, time.monotonic())
    with pytest.raises(EndpointGone, match="slow down"):
        await asyncio.wait_for(waits, 60)


@pytest.mark.parametrize("error", [Pending(), ZeroDivisionError("a bug")])
async def test_a_small_question_that_ends_oddly_hangs_nobody(error: Exception) -> None:
    def odd(request: Request) -> str:
        raise error

    one = Lane("a", lambda: ScriptedBackend(odd), outage_s=0.05)
    several = lanes(one)
    several.probe = ask
    for _ in range(5):
        several.failed(one, DOWN)
    with pytest.raises(EndpointGone):
        await asyncio.wait_for(several.take(), 60)


async def test_closing_does_not_wait_for_a_small_question() -> None:
    async def slow(request: Request) -> str:
        await asyncio.sleep(600)
        return "A"

    one = Lane("a", lambda: ScriptedBackend(slow), outage_s=0.05)
    several = lanes(one)
    several.probe = ask
    for _ in range(5):
        several.failed(one, DOWN)
    await asyncio.sleep(0.2)
    await asyncio.wait_for(several.close(), 60)


async def test_a_long_wait_that_is_asked_for_is_the_lanes_at_once() -> None:
    one = lane()
    several = lanes(one)
    several.slowed(one, ProviderError("rate_limit", "later", retry_after_s=60.0), time.monotonic())
    assert one.throttle.resting_until - time.monotonic() > 59


async def test_a_slow_lane_grows_too() -> None:
    one, now = lane(most=64), time.monotonic()
    one.throttle.limit = 2.0
    for _ in range(10):
        now += 20.0
        one.in_flight = int(one.throttle.limit) - 1
        one.answered(now - 0.05, now)
    assert one.throttle.limit >= 5.0
