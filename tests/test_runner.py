"""Records through stages: bounded, in parts, in passes, the same whatever the order."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaif import store
from rlaif.backends.scripted import ScriptedBackend
from rlaif.constitution import load_constitution
from rlaif.context import Context
from rlaif.errors import ConfigError, Pending, ProviderError
from rlaif.journal import Journal, Traits
from rlaif.llm import LLM
from rlaif.runner import OPEN_PARTS, Runner
from rlaif.stages.judge import Judge
from rlaif.stages.sample import Sample
from rlaif.store import PART_RECORDS, RunFolder
from rlaif.templates import Templates
from rlaif.types import Completion, Message, Record, Request, TokenLogprob, prompt_id
from tests.lab import one_lane

STAGES = [("sample", Sample(n=2)), ("judge", Judge())]


def prompts(n: int) -> list[Record]:
    turns = [(Message("user", f"question {i}"),) for i in range(n)]
    return [Record(prompt_id(turn), turn) for turn in turns]


def answer(request: Request) -> Completion:
    if request.top_logprobs:
        a = request.key()[0] / 256
        return Completion("A", logprobs=(TokenLogprob("A", -a, (("A", -a), ("B", a - 1.0))),))
    return Completion(f"answer {request.key().hex()}")


class Bench:
    """A run folder, a journal and one scripted model in both roles."""

    def __init__(self, tmp_path: Path, backend: object = None, name: str = "run") -> None:
        self.folder = RunFolder(tmp_path / name, "run")
        self.folder.create()
        self.journal = Journal(tmp_path / name / "calls.sqlite")
        self.backend = backend or ScriptedBackend(answer)
        self.calls: Counter[bytes] = Counter()

    def runner(self, **settings: object) -> Runner:
        llm = LLM("m", "m@1", self.journal, one_lane(lambda: self), traits=Traits(20))
        models = {"policy": llm, "judge": llm}
        context = Context(models, load_constitution("safety"), Templates())
        return Runner(self.folder, STAGES, context, **settings)  # type: ignore[arg-type] # any of its options

    async def complete(self, request: Request) -> Completion:
        self.calls[request.key()] += 1
        return await self.backend.complete(request)  # type: ignore[attr-defined,no-any-return]

    async def settle(self) -> bool:
        return await self.backend.settle() if isinstance(self.backend, Queue) else False

    async def close(self) -> None: ...

    def content(self) -> list[bytes]:
        return [store.encode(record) for record in self.folder.records()]


async def run(bench: Bench, n: int, **settings: object) -> Runner:
    runner = bench.runner(**settings)
    await runner.run(prompts(n))
    return runner


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_windows_and_latencies_change_no_byte_of_the_parts(tmp_path: Path) -> None:
    rng = random.Random(1)

    async def late(request: Request) -> Completion:
        await asyncio.sleep(rng.random() / 200)
        return answer(request)

    quick, slow = Bench(tmp_path, name="quick"), Bench(tmp_path, ScriptedBackend(late), "slow")
    await run(quick, 60, window=256)
    await run(slow, 60, window=7)
    assert len(quick.content()) == 60
    assert quick.content() == slow.content()
    assert set(quick.calls.values()) == {1}
    for made in (quick, slow):
        await made.journal.close()


async def test_a_part_is_written_when_all_of_its_records_have_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(bench, PART_RECORDS + 5)
    assert bench.folder.part_numbers() == [0, 1]
    assert (bench.folder.part_size(0), bench.folder.part_size(1)) == (PART_RECORDS, 5)
    assert [record.id for record in bench.folder.records()] == [record.id for record in prompts(PART_RECORDS + 5)]
    await bench.journal.close()


async def test_a_finished_run_asks_nothing_a_larger_one_only_what_is_new_a_smaller_one_loses_nothing(
    bench: Bench,
) -> None:
    await run(bench, 10)
    before, paid = bench.content(), bench.calls.total()
    again = await run(bench, 10)
    assert (again.progress.skipped, again.progress.records, bench.calls.total()) == (10, 0, paid)
    await run(bench, 15)
    assert bench.content()[:10] == before
    assert bench.calls.total() == paid / 10 * 15
    assert set(bench.calls.values()) == {1}
    await run(bench, 3, rebuild=True)
    assert len(bench.content()) == 15
    await bench.journal.close()


async def test_a_rebuild_comes_from_the_journal_and_is_identical(bench: Bench) -> None:
    await run(bench, 20)
    before, paid = bench.content(), bench.calls.total()
    bench.folder.part_path(0).unlink()
    await run(bench, 20)
    assert bench.content() == before
    await run(bench, 20, rebuild=True)
    assert bench.content() == before
    assert bench.calls.total() == paid
    await bench.journal.close()


class Queue:
    """Takes questions, and answers them only when it is settled: a provider's batch API."""

    def __init__(self) -> None:
        self.waiting: list[Request] = []
        self.answered: set[bytes] = set()

    async def complete(self, request: Request) -> Completion:
        if request.key() in self.answered:
            return answer(request)
        self.waiting.append(request)
        raise Pending

    async def settle(self) -> bool:
        self.answered |= {request.key() for request in self.waiting}
        self.waiting, some = [], bool(self.waiting)
        return some


async def test_a_queueing_backend_gets_every_record_done_in_as_many_passes_as_there_are_steps(tmp_path: Path) -> None:
    queued, direct = Bench(tmp_path, Queue(), "queued"), Bench(tmp_path, name="direct")
    runner = await run(queued, 30)
    await run(direct, 30)
    assert runner.progress.passes == 3  # sampled, judged, collected
    assert runner.progress.pending == 0
    assert queued.content() == direct.content()
    assert max(queued.calls.values()) == 2  # put into the queue, and collected
    for made in (queued, direct):
        await made.journal.close()


async def test_a_straggler_holds_back_its_part_but_not_all_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.runner.PART_RECORDS", 10)
    released = asyncio.Event()
    begun: set[str] = set()

    async def answered(request: Request) -> Completion:
        begun.add(request.messages[-1].content)
        if request.messages[-1].content == "question 0":
            await released.wait()
        return answer(request)

    bench.backend = ScriptedBackend(answered)
    task = asyncio.create_task(run(bench, 200))
    while len(bench.folder.part_numbers()) < OPEN_PARTS * 4:
        await asyncio.sleep(0.01)
        if len(begun) >= 190:
            break
    assert 0 not in bench.folder.part_numbers()
    released.set()
    await task
    assert len(bench.content()) == 200
    await bench.journal.close()


@pytest.mark.parametrize("window", [1, 3, 64])
async def test_a_fatal_error_ends_the_run_in_order_and_keeps_what_is_finished(tmp_path: Path, window: int) -> None:
    bench = Bench(tmp_path)

    def answered(request: Request) -> Completion:
        if bench.calls.total() > 40:
            raise ProviderError("auth", "the key expired")
        return answer(request)

    bench.backend = ScriptedBackend(answered)
    with pytest.raises(ProviderError, match="the key expired"):
        await asyncio.wait_for(run(bench, 2 * PART_RECORDS, window=window), 60)
    paid = {key for key in bench.calls if bench.journal.get(key) is not None}
    assert len(paid) == 40
    bench.backend = ScriptedBackend(answer)
    bench.calls.clear()
    await run(bench, 30, window=window)
    assert not paid & set(bench.calls)
    await bench.journal.close()


async def test_a_stopped_run_returns_and_goes_on_when_it_is_run_again(bench: Bench) -> None:
    bench.backend = ScriptedBackend(answer, latency_s=0.002)
    runner = bench.runner(window=4)
    task = asyncio.create_task(runner.run(prompts(50)))
    while bench.calls.total() < 20:
        await asyncio.sleep(0.001)
    runner.stop()
    await asyncio.wait_for(task, 60)
    assert bench.folder.part_numbers() == []
    await run(bench, 50)
    assert len(bench.content()) == 50
    assert set(bench.calls.values()) == {1}
    await bench.journal.close()


async def test_a_call_that_fails_for_good_fails_its_record_alone_and_says_why(bench: Bench) -> None:
    def answered(request: Request) -> Completion:
        if request.messages[-1].content == "question 3":
            raise ProviderError("context_length", "9,000 tokens are too many")
        return answer(request)

    bench.backend = ScriptedBackend(answered)
    runner = await run(bench, 5)
    assert runner.progress.outcomes == {"ok": 4, "failed": 1}
    failed = list(bench.folder.records())[3]
    assert (failed.outcome, failed.reason, failed.stage) == ("failed", "context_length", "sample")
    assert failed.detail == "9,000 tokens are too many"
    await bench.journal.close()


async def test_a_bug_in_a_stage_is_raised_and_not_swallowed(bench: Bench) -> None:
    def broken(request: Request) -> Completion:
        raise ZeroDivisionError

    bench.backend = ScriptedBackend(broken)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(run(bench, 50), 60)
    await bench.journal.close()


async def test_a_bad_row_deep_in_the_file_ends_the_run_after_what_is_in_flight(bench: Bench) -> None:
    def rows() -> Iterator[Record]:
        yield from prompts(PART_RECORDS)
        raise ConfigError("prompts.jsonl:1001: not one JSON object a line")

    bench.backend = ScriptedBackend(answer, latency_s=0.01)
    with pytest.raises(ConfigError, match="1001"):
        await asyncio.wait_for(bench.runner(window=300).run(rows()), 60)
    assert bench.calls.total() > 0
    assert all(bench.journal.get(key) is not None for key in bench.calls)
    await run(bench, PART_RECORDS)
    assert set(bench.calls.values()) == {1}
    assert len(bench.content()) == PART_RECORDS
    await bench.journal.close()


async def test_a_stage_for_some_prompts_only_lets_the_others_pass(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    runner = bench.runner()
    name, judge = runner._stages[1]
    runner._stages[1] = (name, judge.model_copy(update={"only": ("red",)}))
    records = [record.having(source=f"{'red' if i % 2 else 'calm'}:{i}") for i, record in enumerate(prompts(4))]
    await runner.run(records)
    done = list(bench.folder.records())
    assert [bool(record.verdicts) for record in done] == [False, True, False, True]
    assert {record.outcome for record in done} == {"ok"}
    assert runner.progress.through_stage["judge"] == 2
    await bench.journal.close()
