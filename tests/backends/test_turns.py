"""Of several engines one is in memory at a time, and no call is asked twice for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif import backends, generate
from rlaif.backends import gguf, open_backend
from rlaif.backends.local import LocalBackend
from rlaif.backends.scripted import Script, ScriptedBackend
from rlaif.backends.turns import Turns
from rlaif.errors import Pending
from rlaif.types import Completion, Message, Request

HELLO = Request("m", (Message("user", "Hello"),))


class Memory:
    """Opens scripted engines and notes which were loaded, in order, and how many at once."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.held: set[str] = set()
        self.most = 0
        self.asked: Counter[tuple[str, bytes]] = Counter()

    def opens(self, name: str) -> Callable[[], ScriptedBackend]:
        def opened() -> ScriptedBackend:
            self.loads.append(name)
            self.held.add(name)
            self.most = max(self.most, len(self.held))
            backend = ScriptedBackend(answer)
            closed = backend.close

            async def close() -> None:
                self.held.discard(name)
                await closed()

            backend.close = close  # type: ignore[method-assign]
            return backend

        def answer(request: Request) -> Completion:
            self.asked[name, request.key()] += 1
            return Script()(request)

        return opened


async def test_the_first_to_be_asked_holds_the_memory_and_the_others_calls_are_pending() -> None:
    memory, turns = Memory(), Turns()
    one, two = turns.engine(memory.opens("one")), turns.engine(memory.opens("two"))
    await one.complete(HELLO)
    with pytest.raises(Pending):
        await two.complete(HELLO)
    assert memory.loads == ["one"]


async def test_the_turn_passes_on_between_passes_once_and_only_to_an_engine_that_was_asked() -> None:
    memory, turns = Memory(), Turns()
    engines = [turns.engine(memory.opens(name)) for name in ("one", "two", "three", "four")]
    await engines[0].complete(HELLO)
    for engine in engines[1:3]:
        with pytest.raises(Pending):
            await engine.complete(HELLO)
    assert [await engine.settle() for engine in engines] == [False, True, True, False]  # three waits for its turn
    assert (turns.holder, memory.held) == (engines[1], set())
    await engines[1].complete(HELLO)
    assert [await engine.settle() for engine in engines] == [False, False, True, False]
    assert turns.holder is engines[2]
    assert memory.most == 1


async def test_an_engine_that_nobody_asks_in_its_turn_does_not_keep_it() -> None:
    memory, turns = Memory(), Turns()
    one, two, three = (turns.engine(memory.opens(name)) for name in ("one", "two", "three"))
    await one.complete(HELLO)
    for engine in (two, three):
        with pytest.raises(Pending):
            await engine.complete(HELLO)
    assert [await engine.settle() for engine in (one, two, three)] == [False, True, True]
    with pytest.raises(Pending):  # the new pass has nothing for `two`
        await three.complete(HELLO)
    assert [await engine.settle() for engine in (one, two, three)] == [False, False, True]
    await three.complete(HELLO)
    assert not any([await engine.settle() for engine in (one, two, three)])


def test_a_run_on_two_engines_loads_each_for_its_stages_and_repeats_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory()
    monkeypatch.setattr("rlaif.models.ENGINES", frozenset({"scripted"}))
    monkeypatch.setattr("rlaif.models.open_backend", lambda spec, *_: memory.opens(spec.model)())
    models = {"policy": "scripted/writer", "judge": "scripted/reader"}
    again = generate("cai", limit=40, runs_dir=tmp_path, run="turns", **models)  # type: ignore[arg-type]
    assert again.summary["outcomes"]["ok"] > 30
    assert memory.most == 1
    # Both preflights, the one that the run asks first last; then a turn each.
    assert memory.loads == ["reader", "writer", "reader"]
    assert max(memory.asked.values()) == 1
    assert memory.asked.total() == again.summary["calls"]["sent"]
    assert again.summary["calls"]["from_journal"] == 0  # what an earlier pass asked is no saving
    alone = generate(
        "cai", limit=40, runs_dir=tmp_path / "x", run="turns", set=["one_engine_at_a_time=false"], **models
    )  # type: ignore[arg-type]
    assert memory.most == 2
    assert (alone.dataset / "preference").is_dir()
    parts = [result.folder / "parts" / "part-00000.jsonl.zst" for result in (again, alone)]
    assert parts[0].read_bytes() == parts[1].read_bytes()


@pytest.mark.model
@pytest.mark.timeout(600)
def test_two_real_models_take_turns_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    q8_0 = gguf.as_q8_0(gguf.find_weights(""), tmp_path)
    running: list[LocalBackend] = []
    most = 0

    def noted(*arguments: object) -> backends.Backend:
        backend = open_backend(*arguments)  # type: ignore[arg-type]
        assert isinstance(backend, LocalBackend)
        started, stopped = backend._child._start, backend._child.close

        async def start() -> object:
            nonlocal most
            server = await started()
            running.append(backend)
            most = max(most, len(running))
            return server

        async def close() -> None:
            await stopped()
            if backend in running:
                running.remove(backend)

        backend._child._start, backend._child.close = start, close  # type: ignore[method-assign, assignment]
        return backend

    monkeypatch.setattr("rlaif.models.open_backend", noted)
    short = [f"{setting}_tokens=16" for setting in ("sample.max", "revise.max", "revise.critique_max")]
    kept = ["filter.rules=[empty]", "filter.min_candidates=0"]
    result = generate(
        "small", limit=1, policy="local", judge=f"local/{q8_0}", runs_dir=tmp_path, run="two", set=[*short, *kept]
    )
    assert result.summary["funnel"]["verdicts"]
    assert (most, running) == (1, [])
    assert sum(stage["retried"] for stage in result.summary["stages"]) == 0
