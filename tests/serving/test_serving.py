"""`rlaif serve`: the fitting server, its API, and what it says when something is missing."""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlaif.backends import ModelSpec
from rlaif.backends.openai import OpenAIBackend
from rlaif.cli.serve import serve as command
from rlaif.errors import ConfigError, ProviderError, ProviderErrorKind
from rlaif.serving.app import request_of, serve
from rlaif.serving.choice import Engine, choice
from rlaif.serving.process import Place, Server, Started, free_port, served
from rlaif.serving.vllm_child import command as vllm_command
from rlaif.types import Completion, Message, Request, TokenLogprob, Usage

pytest.importorskip("aiohttp", reason="the server of transformers needs aiohttp")

ANSWER = Completion(
    "four",
    usage=Usage(7, 2),
    logprobs=(TokenLogprob("fo", -0.25, (("fo", -0.25), ("fi", -1.5))), TokenLogprob("ur", -0.125, ())),
)


class Answering:
    """A backend whose answer is a function of the request."""

    def __init__(self, answer: Callable[[Request], Completion]) -> None:
        self.answer = answer
        self.asked: list[Request] = []

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        return self.answer(request)

    async def close(self) -> None:
        return None


def refusing(error: ProviderError) -> Callable[[Request], Completion]:
    def refuse(_: Request) -> Completion:
        raise error

    return refuse


async def asked(
    backend: Answering, request: Request, key: str | None = None, sent: str | None = None, name: str = "smol"
) -> Completion:
    """The request through a server in front of `backend`, by the client that every run uses."""
    async with serve(backend, "smol", "127.0.0.1", 0, key) as port:
        client = OpenAIBackend(f"http://127.0.0.1:{port}/v1", name, api_key=sent)
        try:
            return await client.complete(request)
        finally:
            await client.close()


def question(**fields: Any) -> Request:  # Any: fields of Request
    return Request(model="smol", messages=(Message("system", "Count."), Message("user", "2 + 2?")), **fields)


async def test_an_answer_comes_through_with_its_log_probabilities_and_tokens() -> None:
    backend = Answering(lambda _: ANSWER)
    assert await asked(backend, question(top_logprobs=2)) == ANSWER


async def test_thoughts_come_through_apart_from_the_answer() -> None:
    thought = Completion("four", "length", reasoning="two and two")
    assert await asked(Answering(lambda _: thought), question()) == thought


async def test_every_setting_reaches_the_backend() -> None:
    backend = Answering(lambda _: ANSWER)
    extra = {"body": {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}}}
    given = question(temperature=0.5, top_p=0.9, max_tokens=12, stop=("\n",), top_logprobs=3, extra=extra, seed=4)
    await asked(backend, given)
    got = backend.asked[0]
    for field in ("messages", "temperature", "top_p", "max_tokens", "stop", "top_logprobs", "extra"):
        assert getattr(got, field) == getattr(given, field), field


async def test_the_same_seed_is_the_same_question_and_without_one_each_is_new() -> None:
    backend = Answering(lambda _: ANSWER)
    for given in (question(temperature=1.0, seed=4), question(temperature=1.0, seed=4)):
        await asked(backend, given)
    for _ in range(2):
        await asked(backend, question(temperature=1.0, provider_seed=False))
    keys = [request.key() for request in backend.asked]
    assert keys[0] == keys[1]
    assert len({*keys}) == 3


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [
        ("context_length", None),
        ("unsupported", "response_format"),
        ("bad_request", None),
        ("server", None),
        ("not_found", None),
        ("content_filter", None),
    ],
)
async def test_a_refusal_is_the_same_on_the_other_side(kind: ProviderErrorKind, parameter: str | None) -> None:
    text = {"context_length": "900 prompt tokens exceed the 512 of context_tokens"}.get(kind, f"no: {kind}")
    backend = Answering(refusing(ProviderError(kind, text, parameter=parameter)))
    with pytest.raises(ProviderError) as caught:
        await asked(backend, question())
    assert caught.value.kind == kind
    assert caught.value.parameter == parameter
    assert text in str(caught.value)


@pytest.mark.parametrize(("sent", "let_in"), [("secret", True), ("wrong", False), (None, False), ("sécret", False)])
async def test_only_who_has_the_key_is_answered(sent: str | None, let_in: bool) -> None:
    backend = Answering(lambda _: ANSWER)
    if let_in:
        assert await asked(backend, question(), "secret", sent) == msgspec.structs.replace(ANSWER)
        return
    with pytest.raises(ProviderError) as caught:
        await asked(backend, question(), "secret", sent)
    assert caught.value.kind == "auth"
    assert backend.asked == []


async def test_another_models_name_is_refused() -> None:
    with pytest.raises(ProviderError, match="no model 'big' here; there is 'smol'") as caught:
        await asked(Answering(lambda _: ANSWER), question(), name="big")
    assert caught.value.kind == "not_found"


@pytest.mark.parametrize(
    ("body", "kind", "parameter"),
    [
        (b"{", "bad_request", None),
        (b"[1]", "bad_request", None),
        (b'{"messages": []}', "bad_request", None),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', "bad_request", None),
        (b'{"messages": [{"role": "user", "content": "x"}], "stream": true}', "unsupported", "stream"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": 2}', "unsupported", "n"),
        (b'{"messages": [{"role": "user", "content": "x"}], "presence_penalty": 1}', "unsupported", "presence_penalty"),
    ],
)
def test_what_cannot_be_asked_is_named(body: bytes, kind: str, parameter: str | None) -> None:
    with pytest.raises(ProviderError) as caught:
        request_of(body, "smol")
    assert (caught.value.kind, caught.value.parameter) == (kind, parameter)


def test_what_other_clients_add_is_understood_or_ignored() -> None:
    parts = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]
    body = {"messages": [{"role": "user", "content": parts}], "user": "me", "n": 1, "stop": "x", "stream": False}
    got = request_of(json.dumps(body | {"max_completion_tokens": 5, "frequency_penalty": 0}).encode(), "smol")
    assert got.messages == (Message("user", "2 + 2?"),)
    assert (got.stop, got.max_tokens, got.extra, got.top_logprobs) == (("x",), 5, None, None)


# --- which server ---


def folder(path: Path, kind: str = "llama") -> str:
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": kind}))
    return str(path)


def lora(path: Path, base: str) -> str:
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    return str(path)


EVERY: tuple[Engine, ...] = ("vllm", "llama", "transformers")


def chosen(
    model: str, engine: Engine = "auto", gpu: bool = False, installed: tuple[Engine, ...] = EVERY
) -> tuple[str, ModelSpec, str]:
    found = choice(model, engine, installed=lambda engine: engine in installed, has_gpu=lambda: gpu)
    return found.engine, found.spec, found.name


@pytest.mark.parametrize(
    ("kind", "gpu", "installed", "engine"),
    [
        ("llama", False, EVERY, "llama"),
        ("llama", True, EVERY, "vllm"),
        ("llama", True, ("llama", "transformers"), "transformers"),
        ("llama", False, ("transformers",), "transformers"),
        ("qwen3", False, EVERY, "transformers"),
        ("qwen3", True, EVERY, "vllm"),
    ],
)
def test_a_folder_gets_what_fits_it_and_the_machine(
    kind: str, gpu: bool, installed: tuple[Engine, ...], engine: str, tmp_path: Path
) -> None:
    assert chosen(folder(tmp_path / "model", kind), "auto", gpu, installed)[0] == engine


def test_a_gguf_file_is_llama_cpps_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and more")
    for gpu in (False, True):
        engine, spec, name = chosen(str(file), "auto", gpu)
        assert (engine, spec.provider, spec.model, name) == ("llama", "local", str(file), "tiny")


def test_an_adapter_is_served_with_its_base_under_its_own_name(tmp_path: Path) -> None:
    base = folder(tmp_path / "base")
    engine, spec, name = chosen(lora(tmp_path / "tuned", base))
    assert (engine, spec.provider, spec.model, name) == ("llama", "transformers", base, "tuned")
    assert spec.lora == str(tmp_path / "tuned")
    (tmp_path / "tuned" / "training.json").write_text(json.dumps({"base": {"model": "local", "identity": "x"}}))
    assert chosen(str(tmp_path / "tuned"))[1].model == ""


def test_the_engine_may_be_named_as_models_are_elsewhere(tmp_path: Path) -> None:
    path = folder(tmp_path / "model")
    assert chosen(f"transformers/{path}")[0] == "transformers"
    assert chosen(f"vllm/{path}")[0] == "vllm"
    assert chosen(path, "transformers")[0] == "transformers"


def test_the_options_that_are_told_survive_a_shell(tmp_path: Path) -> None:
    served_by = choice(folder(tmp_path / "my $model"), has_gpu=lambda: False, installed=lambda _: True)
    server = Server("http://127.0.0.1:8000/v1", served_by, None, tmp_path)  # type: ignore[arg-type]
    words = shlex.split(server.options("MY_KEY"))
    assert words[:4] == ["--policy", "openai/my $model", "--set", "models.policy.base_url=http://127.0.0.1:8000/v1"]
    assert words[-1] == "models.policy.api_key_env=MY_KEY"


@pytest.mark.parametrize("model", ["./nowhere", "/no/such/folder", "models/round-1/policy"])
def test_a_model_that_is_nowhere_is_one_clear_error(model: str) -> None:
    with pytest.raises(ConfigError, match=f"no model '{model}'; known: local, FILE.gguf"):
        chosen(model)


def test_a_folder_without_a_model_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no model: neither config"):
        chosen(str(tmp_path))


def test_a_missing_server_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"by vllm takes vllm: pip install 'rlaif-kit\[vllm\]'"):
        chosen(folder(tmp_path / "model"), "vllm", installed=())
    with pytest.raises(ConfigError, match=r"takes torch, transformers, aiohttp: pip install 'rlaif-kit\[train\]'"):
        chosen(str(tmp_path / "model"), installed=())


def test_vllm_gets_no_key_in_its_arguments_and_the_adapter_by_its_name(tmp_path: Path) -> None:
    told = Started("/base", None, "smol", "127.0.0.1", 8000, "secret", 2048, 4, "logs")
    line = " ".join(vllm_command(told))
    assert "secret" not in line
    assert "--model /base --host 127.0.0.1 --port 8000 --max-model-len 2048 --served-model-name smol" in line
    path = lora(tmp_path / "tuned", "x")
    (tmp_path / "tuned" / "adapter_config.json").write_text(json.dumps({"r": 12}))
    line = " ".join(vllm_command(msgspec.structs.replace(told, lora=path)))
    assert f"--enable-lora --lora-modules smol={path} --max-lora-rank 16" in line


# --- its address ---


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} cannot be listened at .*--port, or 0"):
            free_port(Place(port=port))


def test_any_free_port_is_found_for_0() -> None:
    assert free_port(Place(port=0)) > 0


def test_a_key_that_is_not_set_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="names NO_SUCH_KEY, which is not set"):
        command("local", api_key_env="NO_SUCH_KEY")


def test_a_place_that_all_reach_without_a_key_is_known_as_such() -> None:
    assert Place("0.0.0.0").open_to_all
    assert not Place("0.0.0.0", api_key="k").open_to_all
    assert not Place().open_to_all


def test_a_file_that_no_server_can_load_ends_with_what_it_said(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs the [local] extra")
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + b"\3\0\0\0" + b"\xff" * 64)
    with (
        pytest.raises(ConfigError, match=r"llama cannot serve broken: .*; its log: .*serve\.log"),
        served(choice(str(file)), Place(port=0), tmp_path / "log"),
    ):
        pytest.fail("it cannot be loaded")
