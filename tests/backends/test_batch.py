"""Calls through the providers' batch APIs: asked once, whatever is killed, lost, refused or late in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rlaif
from rlaif.backends import Backend, ModelSpec, identity_of
from rlaif.backends.anthropic import AnthropicBackend
from rlaif.backends.anthropic_batch import AnthropicBatches
from rlaif.backends.batch import BatchBackend
from rlaif.backends.batch_folder import Job
from rlaif.backends.openai import OpenAIBackend
from rlaif.backends.openai_batch import OpenAIBatches
from rlaif.constitution import load_constitution
from rlaif.context import Context
from rlaif.errors import ConfigError, Pending, ProviderError, StoreError
from rlaif.journal import Journal, Traits
from rlaif.llm import LLM
from rlaif.runner import Runner
from rlaif.stages.judge import Judge
from rlaif.stages.sample import Sample
from rlaif.store import RunFolder, encode
from rlaif.templates import Templates
from rlaif.types import Completion, Message, Record, Request, prompt_id
from tests.batch_server import BatchServer
from tests.lab import one_lane
from tests.server import Body, Reply, Server, answer, completion

KEY = "sk-test-1234567890abcdef"
Outcome = Completion | ProviderError


def requests(count: int, **fields: Any) -> list[Request]:
    return [Request("m", (Message("user", f"Question {i}"),), **fields) for i in range(count)]


def question(body: Body) -> int:
    content = body["messages"][-1]["content"]
    return int((content if isinstance(content, str) else content[0]["text"]).split()[-1])


def claude(body: Body) -> Reply:
    usage = {"input_tokens": 7, "output_tokens": 3}
    content = [{"type": "text", "text": answer(body)["choices"][0]["message"]["content"]}]  # type: ignore[call-overload]
    return {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn", "usage": usage}


def spec_of(provider: str, url: str) -> ModelSpec:
    return ModelSpec.model_validate({"provider": provider, "model": "gpt-test", "base_url": url, "api_key_env": "KEY"})


def backend_of(
    url: str, folder: Path, provider: str = "openai", limits: dict[str, int] | None = None, **options: Any
) -> BatchBackend:
    spec = spec_of(provider, url)
    api = {"openai": OpenAIBatches, "anthropic": AnthropicBatches}[provider].from_spec(spec, {"KEY": KEY})
    for name, limit in (limits or {}).items():
        setattr(api, name, limit)
    return BatchBackend(api, folder, identity_of(spec), **{"wait_s": (0.01, 0.02), "grace_s": 0.1, **options})


@asynccontextmanager
async def batches(
    folder: Path, answer: Callable[[Body], Reply] = answer, provider: str = "openai", **fields: Any
) -> AsyncIterator[tuple[BatchBackend, BatchServer]]:
    options = {name: fields.pop(name) for name in ("limits", "attempts") if name in fields}
    async with BatchServer(answer, **fields) as server:
        backend = backend_of(server.url, folder, provider, **options)
        try:
            yield backend, server
        finally:
            await backend.close()


async def ask(backend: BatchBackend, asked: list[Request]) -> dict[int, Outcome]:
    """One pass: what has come of each request by now."""
    found: dict[int, Outcome] = {}
    for number, request in enumerate(asked):
        try:
            found[number] = await backend.complete(request)
        except Pending:
            pass
        except ProviderError as error:
            found[number] = error
    return found


async def run(backend: BatchBackend, asked: list[Request]) -> list[Outcome]:
    """Passes until every request has its outcome; like a journal, it asks none again."""
    found: dict[int, Outcome] = {}
    while True:
        open_ones = [number for number in range(len(asked)) if number not in found]
        outcomes = await ask(backend, [asked[number] for number in open_ones])
        found |= {open_ones[place]: outcome for place, outcome in outcomes.items()}
        if len(found) == len(asked):
            return [found[number] for number in range(len(asked))]
        assert await asyncio.wait_for(backend.settle(), 100)


def texts(outcomes: list[Outcome]) -> list[str]:
    return [outcome.text if isinstance(outcome, Completion) else outcome.kind for outcome in outcomes]


def jobs(folder: Path) -> list[Job]:
    return [msgspec.json.decode(path.read_bytes(), type=Job) for path in sorted(folder.glob("*.json"))]


def ids(asked: list[Request]) -> list[str]:
    return [request.key().hex() for request in asked]


PROVIDERS = pytest.mark.parametrize(("provider", "model"), [("openai", answer), ("anthropic", claude)])


# Answers


@PROVIDERS
async def test_a_batch_answers_as_live_calls_would_whatever_the_order_of_its_results(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    asked = requests(20, temperature=0.0, max_tokens=9)
    async with Server(model) as server:
        live_backend = {"openai": OpenAIBackend, "anthropic": AnthropicBackend}[provider]
        live = live_backend.from_spec(spec_of(provider, server.url), {"KEY": KEY})
        expected = [await live.complete(request) for request in asked]
        await live.close()
        bodies = server.requests
    async with batches(tmp_path, model, provider, key=KEY) as (backend, server):
        assert await run(backend, asked) == expected
        [batch] = server.batches.values()
        assert [body for _, body in batch.calls] == bodies
        assert [line["custom_id"] for line in batch.results] != [name for name, _ in batch.calls]


async def test_a_stop_of_white_space_which_anthropic_takes_not_cuts_a_batchs_answer_too(tmp_path: Path) -> None:
    def lines(_: Body) -> Reply:
        return {"content": [{"type": "text", "text": "one\ntwo"}], "stop_reason": "end_turn", "usage": {}}

    async with batches(tmp_path, lines, "anthropic") as (backend, _):
        assert texts(await run(backend, requests(1, stop=("\n",)))) == ["one"]


async def test_logprobs_come_through_a_batch(tmp_path: Path) -> None:
    async with batches(tmp_path, lambda _: completion("A", top={"A": -0.1, "B": -2.0})) as (backend, _):
        [outcome] = await run(backend, requests(1, top_logprobs=2))
        assert isinstance(outcome, Completion)
        assert outcome.logprobs is not None
        assert outcome.logprobs[0].top == (("A", -0.1), ("B", -2.0))


async def test_nothing_is_asked_before_the_pass_is_over(tmp_path: Path) -> None:
    async with batches(tmp_path) as (backend, server):
        assert await ask(backend, requests(3)) == {}
        assert server.asked == []
        assert await backend.settle()
        assert len(await ask(backend, requests(3))) == 3


async def test_without_anything_to_wait_for_there_is_no_new_pass(tmp_path: Path) -> None:
    async with batches(tmp_path) as (backend, _):
        assert not await backend.settle()
        await run(backend, requests(2))
        assert not await backend.settle()


# Limits


@PROVIDERS
async def test_calls_are_split_at_the_number_a_file_may_hold(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    async with batches(tmp_path, model, provider, max_calls=4, limits={"max_calls": 4}) as (backend, server):
        await run(backend, requests(10))
        assert [len(batch) for batch in server.submitted] == [4, 4, 2]


@PROVIDERS
async def test_calls_are_split_at_the_bytes_a_file_may_hold(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    async with batches(tmp_path, model, provider, max_bytes=1000, limits={"max_bytes": 1000}) as (backend, server):
        outcomes = await run(backend, requests(20))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert len(server.batches) > 2


async def test_a_call_larger_than_any_file_fails_alone(tmp_path: Path) -> None:
    async with batches(tmp_path, limits={"max_bytes": 1000}) as (backend, _):
        with pytest.raises(ProviderError, match="more than a batch file may have") as caught:
            await backend.complete(Request("m", (Message("user", "x" * 1000),)))
        assert caught.value.kind == "bad_request"


async def test_without_room_for_more_tokens_batches_are_sent_as_others_end(tmp_path: Path) -> None:
    async with batches(tmp_path, room=6, looks=2, limits={"max_calls": 4}) as (backend, server):
        outcomes = await run(backend, requests(20))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        answered = [name for batch in server.batches.values() for line in batch.results for name in [line["custom_id"]]]
        assert sorted(answered) == sorted(ids(requests(20)))  # each once
        refused = [batch for batch in server.batches.values() if batch.status == "failed"]
        assert 0 < len(refused) <= 4


async def test_a_batch_that_is_too_large_for_the_account_is_sent_in_smaller_ones(tmp_path: Path) -> None:
    async with batches(tmp_path, room=3) as (backend, server):
        outcomes = await run(backend, requests(10))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert [len(batch) for batch in server.submitted][:3] == [10, 5, 2]


@PROVIDERS
async def test_a_429_for_a_new_batch_uses_up_no_attempt(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    route = {"openai": "POST /v1/batches", "anthropic": "POST /v1/messages/batches"}[provider]
    async with batches(tmp_path, model, provider, attempts=1, faults={route: [-429] * 8}) as (backend, server):
        outcomes = await run(backend, requests(3))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.times(route) == 8 + len(server.batches)


# Faults


@PROVIDERS
async def test_only_what_failed_for_a_while_is_submitted_again(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    failed: set[int] = set()

    def overloaded_once(body: Body) -> Reply:
        number = question(body)
        if number % 3 == 0 and number not in failed:
            failed.add(number)
            return 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, {}
        return model(body)

    asked = requests(7)
    async with batches(tmp_path, overloaded_once, provider) as (backend, server):
        outcomes = await run(backend, asked)
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.submitted == [ids(asked), ids([asked[0], asked[3], asked[6]])]
        await backend.close()
        assert jobs(tmp_path) == []


@PROVIDERS
async def test_a_call_that_fails_in_every_batch_fails_for_good_after_its_attempts(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    def down(body: Body) -> Reply:
        error = {"type": "error", "error": {"type": "api_error", "message": "down"}}
        return (500, error, {}) if question(body) == 1 else model(body)

    async with batches(tmp_path, down, provider, attempts=3) as (backend, server):
        outcomes = await run(backend, requests(3))
        assert [len(batch) for batch in server.submitted] == [3, 1, 1]
        error = outcomes[1]
        assert isinstance(error, ProviderError)
        assert (error.kind, error.transient, error.fatal) == ("server", False, False)
        assert "down (after 3 batches)" in str(error)


@PROVIDERS
async def test_a_call_that_the_provider_will_never_take_fails_at_once_and_alone(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    def picky(body: Body) -> Reply:
        error = {"type": "invalid_request_error", "message": "temperature is not supported", "param": "temperature"}
        return (400, {"type": "error", "error": error}, {}) if question(body) == 1 else model(body)

    async with batches(tmp_path, picky, provider) as (backend, server):
        outcomes = await run(backend, requests(3))
        assert len(server.batches) == 1
        error = outcomes[1]
        assert isinstance(error, ProviderError)
        assert (error.kind, error.parameter) == ("unsupported", "temperature")


@PROVIDERS
async def test_an_expired_batch_keeps_what_was_answered_and_the_rest_is_submitted_again(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    asked = requests(5)
    async with batches(tmp_path, model, provider, fates=["expired"], done_before=2) as (backend, server):
        outcomes = await run(backend, asked)
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.submitted == [ids(asked), ids(asked[2:])]


async def test_an_expired_batch_that_says_nothing_of_the_rest_is_no_other(tmp_path: Path) -> None:
    asked = requests(5)
    async with batches(tmp_path, fates=["expired"], done_before=2, silent=True) as (backend, server):
        outcomes = await run(backend, asked)
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.submitted == [ids(asked), ids(asked[2:])]


async def test_results_that_somebody_deleted_are_asked_for_again(tmp_path: Path) -> None:
    faults = {"GET /v1/files/ID/content": [-404]}
    async with batches(tmp_path, faults=faults) as (backend, server):
        outcomes = await run(backend, requests(2))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert len(server.batches) == 2


async def test_a_batch_that_this_key_may_not_see_is_named_and_kept(tmp_path: Path) -> None:
    async with batches(tmp_path, looks=10**6) as (backend, server):
        await ask(backend, requests(2))
        server.faults["GET /v1/batches/ID"] = [-404] * 9
        with pytest.raises(ProviderError, match="take the key it was submitted with, or delete") as caught:
            await backend.settle()
        assert caught.value.kind == "not_found"
        assert len(jobs(tmp_path)) == 1


@pytest.mark.parametrize("silent", [False, True])
@PROVIDERS
async def test_what_somebody_cancelled_is_not_paid_for_by_itself(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply], silent: bool
) -> None:
    async with batches(tmp_path, model, provider, fates=["cancelled"], done_before=2, silent=silent) as (
        backend,
        server,
    ):
        outcomes = await run(backend, requests(3))
        assert len(server.batches) == 1
        error = outcomes[2]
        assert isinstance(error, ProviderError)
        assert not error.transient
        assert "'rlaif retry' asks again" in str(error)


async def test_a_batch_refused_for_one_line_is_sent_again_without_it(tmp_path: Path) -> None:
    asked = [*requests(4), *requests(1, stop=("refuse",))]
    async with batches(tmp_path) as (backend, server):
        outcomes = await run(backend, asked)
        assert server.submitted == [ids(asked), ids(asked[:4])]
        error = outcomes[4]
        assert isinstance(error, ProviderError)
        assert (error.kind, error.parameter) == ("bad_request", "stop")
        assert all(isinstance(outcome, Completion) for outcome in outcomes[:4])


async def test_a_batch_that_fails_as_a_whole_is_sent_again(tmp_path: Path) -> None:
    async with batches(tmp_path, fates=["failed"]) as (backend, server):
        outcomes = await run(backend, requests(2))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert len(server.batches) == 2


@PROVIDERS
async def test_an_outage_while_waiting_ends_nothing(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{provider}._base_client.INITIAL_RETRY_DELAY", 0.001)
    route = {"openai": "GET /v1/batches/ID", "anthropic": "GET /v1/messages/batches/ID"}[provider]
    async with batches(tmp_path, model, provider, faults={route: [-500] * 7}) as (backend, server):
        await run(backend, requests(2))
        assert len(server.batches) == 1
        assert server.times(route) >= 8


async def test_a_refused_key_ends_the_run_and_is_not_shown(tmp_path: Path) -> None:
    async with batches(tmp_path, key="another") as (backend, _):
        await ask(backend, requests(1))
        with pytest.raises(ProviderError, match="the key in KEY was refused") as caught:
            await backend.settle()
        assert caught.value.fatal
        assert KEY not in str(caught.value)
        assert jobs(tmp_path) == []


async def test_calls_refused_for_a_key_are_asked_again_by_the_next_run(tmp_path: Path) -> None:
    allowed: list[bool] = []

    def model(body: Body) -> Reply:
        return answer(body) if allowed else (401, {"error": {"message": "no access to this model"}}, {})

    async with batches(tmp_path, model) as (backend, server):
        assert texts(await run(backend, requests(3))) == ["auth"] * 3
        allowed.append(True)
        later = backend_of(server.url, tmp_path)
        outcomes = await run(later, requests(3))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        await later.close()


# Kills, and processes beside each other


CREATE = {"openai": "POST /v1/batches", "anthropic": "POST /v1/messages/batches"}


@PROVIDERS
async def test_the_next_process_finds_a_batch_under_way_and_submits_nothing_again(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    asked = requests(5)
    async with batches(tmp_path, model, provider, looks=1000) as (killed, server):
        await ask(killed, asked)
        settling = asyncio.create_task(killed.settle())
        while not server.batches or jobs(tmp_path)[0].state == "intended":
            await asyncio.sleep(0.01)
        [job] = jobs(tmp_path)
        assert job.batch_id in server.batches
        assert list(job.calls) == ids(asked)
        server.looks = 1
        settling.cancel()  # and it is never asked again
        later = backend_of(server.url, tmp_path, provider)
        outcomes = await run(later, asked)
        await later.close()
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.submitted == [ids(asked)]


CLIENT = """
import asyncio, sys
from pathlib import Path
from tests.backends.test_batch import ask, backend_of, requests

async def main():
    backend = backend_of(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    await ask(backend, requests(4))
    await backend.settle()

asyncio.run(main())
"""


@PROVIDERS
async def test_a_process_killed_between_the_providers_yes_and_its_record_loses_no_batch(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    async with batches(tmp_path, model, provider) as (_, server):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT, server.url, str(tmp_path), provider), cwd=Path(__file__).parents[2]
        )
        server.on_created = lambda _: os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
        server.on_created = lambda _: None
        [job] = jobs(tmp_path)
        assert (job.state, job.batch_id) == ("intended", "")
        later = backend_of(server.url, tmp_path, provider)
        outcomes = await run(later, requests(4))
        await later.close()
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.submitted == [ids(requests(4))]


@PROVIDERS
@pytest.mark.parametrize("fault", [500, 598])
async def test_a_batch_whose_acceptance_never_reached_us_is_looked_up_and_not_sent_twice(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply], fault: int
) -> None:
    async with batches(tmp_path, model, provider, faults={CREATE[provider]: [fault]}) as (backend, server):
        outcomes = await run(backend, requests(3))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.submitted == [ids(requests(3))]


async def test_a_gateway_that_drops_our_token_is_found_out_by_the_file(tmp_path: Path) -> None:
    async with batches(tmp_path, keep_metadata=False, faults={CREATE["openai"]: [500]}) as (backend, server):
        await run(backend, requests(3))
        assert len(server.batches) == 1


@PROVIDERS
async def test_a_batch_that_was_never_taken_is_sent_again(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply]
) -> None:
    async with batches(tmp_path, model, provider, faults={CREATE[provider]: [-500, -503]}) as (backend, server):
        outcomes = await run(backend, requests(3))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert len(server.batches) == 1


async def test_a_provider_that_takes_no_batch_at_all_ends_the_run(tmp_path: Path) -> None:
    async with batches(tmp_path, faults={CREATE["openai"]: [-500] * 100}) as (backend, server):
        with pytest.raises(ProviderError, match="answered 500: planted"):
            await run(backend, requests(3))
        assert server.times(CREATE["openai"]) == 5


@PROVIDERS
async def test_an_address_where_nobody_is_ends_the_run(
    tmp_path: Path, provider: str, model: Callable[[Body], Reply], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{provider}._base_client.INITIAL_RETRY_DELAY", 0.001)
    async with batches(tmp_path, model, provider) as (backend, server):
        await server.__aexit__()
        with pytest.raises(ProviderError, match="cannot be reached") as caught:
            await run(backend, requests(3))
        assert caught.value.kind == "connection"
        assert jobs(tmp_path) == []


async def test_anothers_batch_of_the_same_size_is_not_taken_for_the_lost_one(tmp_path: Path) -> None:
    faults = {CREATE["anthropic"]: [0, -500]}
    async with batches(tmp_path, claude, "anthropic", faults=faults, attempts=1) as (backend, server):
        other = backend_of(server.url, tmp_path / "other", "anthropic")
        await ask(other, requests(6)[3:])
        assert await other.settle()
        outcomes = await run(backend, requests(3))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.submitted == [ids(requests(6)[3:]), ids(requests(3))]
        await other.close()


async def test_what_was_answered_before_a_kill_is_read_from_disk(tmp_path: Path) -> None:
    async with batches(tmp_path) as (backend, server):
        await ask(backend, requests(3))
        await backend.settle()
        asked = len(server.asked)
        later = backend_of(server.url, tmp_path)
        assert len(await ask(later, requests(3))) == 3
        assert len(server.asked) == asked
        await later.close()


async def test_results_are_kept_until_all_were_handed_out_and_a_run_later(tmp_path: Path) -> None:
    asked = requests(4)
    async with batches(tmp_path) as (backend, server):
        await ask(backend, asked)
        await backend.settle()
        await ask(backend, asked[:3])
        assert list(jobs(tmp_path)[0].calls) == ids(asked)  # the journal may not have them yet
        await backend.close()
        assert list(jobs(tmp_path)[0].calls) == ids(asked[3:])
        later = backend_of(server.url, tmp_path)
        await ask(later, asked[3:])
        await later.close()
        assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


async def test_two_processes_in_one_folder_submit_no_call_twice(tmp_path: Path) -> None:
    asked = requests(12)
    async with batches(tmp_path, looks=3) as (first, server):
        second = backend_of(server.url, tmp_path)
        one, other = await asyncio.gather(run(first, asked[:8]), run(second, asked[4:]))
        assert all(isinstance(outcome, Completion) for outcome in one + other)
        assert one[4:] == other[:4]
        names = [name for batch in server.submitted for name in batch]
        assert sorted(names) == sorted(ids(asked))
        await second.close()


async def test_a_batch_whose_answers_another_process_took_to_the_journal_makes_a_new_pass(tmp_path: Path) -> None:
    asked = requests(3)
    async with batches(tmp_path, looks=4) as (first, server):
        second = backend_of(server.url, tmp_path, wait_s=(0.2, 0.2))
        await ask(first, asked)
        settling = asyncio.create_task(first.settle())
        while not jobs(tmp_path):
            await asyncio.sleep(0.01)
        await ask(second, asked)
        waiting = asyncio.create_task(second.settle())
        assert await settling
        await ask(first, asked)
        await first.settle()  # forgets the batch
        assert jobs(tmp_path) == []
        assert await asyncio.wait_for(waiting, 100)
        await second.close()


async def test_models_in_one_folder_leave_each_others_batches_alone(tmp_path: Path) -> None:
    async with batches(tmp_path) as (backend, server):
        spec = spec_of("openai", server.url).model_copy(update={"model": "other"})
        api = OpenAIBatches.from_spec(spec, {"KEY": KEY})
        other = BatchBackend(api, tmp_path, identity_of(spec), wait_s=(0.01, 0.02))
        await ask(backend, requests(2))
        await ask(other, requests(2))
        assert all(await asyncio.gather(backend.settle(), other.settle()))
        assert len(server.batches) == 2
        assert {batch.calls[0][1]["model"] for batch in server.batches.values()} == {"gpt-test", "other"}
        await other.close()


# Waiting


async def submitted(backend: BatchBackend, folder: Path) -> None:
    """All that is waiting; then it looks no more."""
    settling = asyncio.create_task(backend.settle())
    async with asyncio.timeout(100):
        while not jobs(folder) or any(job.state != "submitted" for job in jobs(folder)):
            await asyncio.sleep(0.01)
    backend.stop()
    await settling


async def test_it_says_what_it_waits_for_and_stops_at_once(tmp_path: Path) -> None:
    async with batches(tmp_path, looks=10**6, limits={"max_calls": 2}) as (backend, server):
        backend._longest_wait_s = backend._first_wait_s = 600.0
        assert backend.waiting == ""
        await ask(backend, requests(3))
        assert backend.waiting == "3 calls not submitted yet"
        settling = asyncio.create_task(backend.settle())
        while len(jobs(tmp_path)) < 2 or any(job.state == "intended" for job in jobs(tmp_path)):
            await asyncio.sleep(0.01)
        while "not submitted" in backend.waiting:
            await asyncio.sleep(0.01)
        assert backend.waiting == f"2 batches (3 calls) at {server.url}, oldest 0 min"
        began = time.monotonic()
        backend.stop()
        assert await settling is False
        await backend.close()
        assert time.monotonic() - began < 60
        assert len(jobs(tmp_path)) == 2


async def test_a_settle_that_is_cancelled_in_mid_submission_is_taken_up_by_the_next(tmp_path: Path) -> None:
    async with batches(tmp_path) as (backend, server):
        await ask(backend, requests(3))
        first = asyncio.create_task(backend.settle())
        while "POST /v1/files" not in server.asked:
            await asyncio.sleep(0.001)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await backend.settle()
        assert len(await ask(backend, requests(3))) == 3
        assert len(server.batches) == 1


async def test_a_line_that_is_no_reply_is_asked_again(tmp_path: Path) -> None:
    broken: set[int] = set()

    def garbled_once(body: Body) -> Reply:
        if question(body) == 1 and not broken:
            broken.add(1)
            return {"object": "chat.completion", "choices": []}
        return answer(body)

    async with batches(tmp_path, garbled_once) as (backend, server):
        outcomes = await run(backend, requests(3))
        assert all(isinstance(outcome, Completion) for outcome in outcomes)
        assert server.submitted[1:] == [ids(requests(3))[1:2]]


async def test_a_damaged_record_is_named_and_not_overwritten(tmp_path: Path) -> None:
    async with batches(tmp_path, looks=10**6) as (backend, server):
        await ask(backend, requests(1))
        await submitted(backend, tmp_path)
        [path] = tmp_path.glob("*.json")
        path.write_text("{")
        later = backend_of(server.url, tmp_path)
        with pytest.raises(StoreError, match="cannot be read"):
            await later.complete(requests(1)[0])
        assert path.read_text() == "{"
        await later.close()


async def test_the_folder_holds_neither_keys_nor_texts(tmp_path: Path) -> None:
    async with batches(tmp_path, looks=10**6, key=KEY) as (backend, _):
        await ask(backend, requests(2))
        await submitted(backend, tmp_path)
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert KEY.encode() not in kept
        assert b"Question" not in kept
        assert json.loads(next(tmp_path.glob("*.json")).read_text())["state"] == "submitted"


# Whole runs


@asynccontextmanager
async def running(folder: Path, backend: Backend) -> AsyncIterator[tuple[Runner, RunFolder]]:
    run_folder = RunFolder(folder, "run")
    run_folder.create()
    async with Journal(folder / "calls.sqlite") as journal:
        llm = LLM("m", "m@1", journal, one_lane(lambda: backend), traits=Traits(2))
        context = Context({"policy": llm, "judge": llm}, load_constitution("safety"), Templates())
        yield Runner(run_folder, [("sample", Sample(n=2)), ("judge", Judge())], context, window=8), run_folder
        await llm.close()


def prompts(count: int) -> list[Record]:
    turns = [(Message("user", f"Question {i}"),) for i in range(count)]
    return [Record(prompt_id(turn), turn) for turn in turns]


async def test_a_run_in_batches_makes_the_records_of_a_live_run_with_a_batch_for_each_step(tmp_path: Path) -> None:
    async with Server(answer) as live:
        backend = OpenAIBackend.from_spec(spec_of("openai", live.url), {"KEY": KEY})
        async with running(tmp_path / "live", backend) as (runner, folder):
            await runner.run(prompts(20))
            expected = [encode(record) for record in folder.records()]
    async with batches(tmp_path / "batches") as (batch_backend, server):
        async with running(tmp_path / "batch", batch_backend) as (runner, folder):
            await runner.run(prompts(20))
            assert [encode(record) for record in folder.records()] == expected
        assert len(server.batches) == 2
        assert sum(map(len, server.submitted)) == len(live.requests)
        assert jobs(tmp_path / "batches") == []


async def test_a_run_stopped_while_it_waits_is_taken_up_by_the_same_command(tmp_path: Path) -> None:
    async with batches(tmp_path / "batches", looks=10**6) as (first, server):
        async with running(tmp_path, first) as (runner, _):
            going = asyncio.create_task(runner.run(prompts(20)))
            while not first.waiting.startswith("1 batch (40 calls) at "):
                await asyncio.sleep(0.01)
            runner.stop()
            first.stop()
            await asyncio.wait_for(going, 100)
        server.looks = 1
        second = backend_of(server.url, tmp_path / "batches")
        async with running(tmp_path, second) as (runner, folder):
            await runner.run(prompts(20))
            assert len(list(folder.records())) == 20
        names = [name for batch in server.submitted for name in batch]
        assert len(names) == len(set(names)) == 80


async def test_the_command_sends_whole_passes_in_batches_and_a_second_one_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BatchBackend.__init__.__kwdefaults__, "wait_s", (0.01, 0.05))
    (tmp_path / "two.yaml").write_text("name: two\nstages:\n  - sample: {n: 2}\n  - judge\n")
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "Is {i} kind?"}}\n' for i in range(5)))

    async def generate(server: BatchServer) -> rlaif.Result:
        model = f"{{provider: openai, model: m, base_url: '{server.url}'}}"
        return await asyncio.to_thread(
            rlaif.generate,
            str(tmp_path / "two.yaml"),
            prompts=str(tmp_path / "prompts.jsonl"),
            runs_dir=tmp_path,
            run="r",
            set=[f"models.{role}={model}" for role in ("policy", "judge")],
            batch=True,
        )

    async with BatchServer() as server:
        result = await generate(server)
        again = await generate(server)
        assert len(server.batches) == 2  # all samples, then all comparisons
        assert [len(batch.calls) for batch in server.batches.values()] == [10, 10]
    assert result.summary["outcomes"] == {"ok": 5}
    assert (result.summary["calls"]["sent"], again.summary["calls"]["sent"]) == (21, 0)  # the first question goes live
    assert not list((tmp_path / "batches").glob("*.json"))


def test_without_a_model_that_has_a_batch_api_there_is_nothing_to_batch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model of this run has a batch API"):
        rlaif.generate("small", policy="scripted", judge="scripted", runs_dir=tmp_path, batch=True)
