"""Models that are served for real: by llama.cpp and by transformers, to the client that runs use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import rlaif
from rlaif.backends.openai import OpenAIBackend
from rlaif.errors import ProviderError
from rlaif.serving.choice import Engine, choice
from rlaif.serving.process import Place, Server, served
from rlaif.types import Message, Request
from tests.llama import needs_model

pytestmark = [pytest.mark.model, needs_model, pytest.mark.timeout(900)]

KEY = "sk-serve-test-1234567890"
PROMPTS = [
    "Name three colours of the rainbow and say where each is seen.",
    "Tell me about the city of Paris.",
    "Write a short poem about the sea.",
    "Explain in two sentences why the sky is blue.",
    "Write a Python function that adds two numbers.",
]
COMMAND = "import typer; from rlaif.cli.serve import serve; typer.run(serve)"


@contextmanager
def command(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rlaif serve` with these arguments, and the line that it says when it is ready."""
    with (folder / "err").open("wb") as messages:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", COMMAND, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SERVE_KEY": KEY, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            cwd=folder,
        )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def options(line: str) -> dict[str, str]:
    """What the line says to ask it with, as settings of a model."""
    _, _, told = line.strip().partition("--policy openai/")
    name, *settings = told.split(" --set models.policy.")
    return {"model": name, **dict(one.split("=", 1) for one in settings)}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_asks_what_is_served_by_the_options_that_it_names(how: signal.Signals, tmp_path: Path) -> None:
    with command(tmp_path, "local", "--port", "0", "--api-key-env", "SERVE_KEY") as (process, line):
        told = options(line)
        assert told["api_key_env"] == "SERVE_KEY"
        assert told["identity"].startswith("local:SmolLM2")
        os.environ["SERVE_KEY"] = KEY
        try:
            result = rlaif.generate(
                "rlaif",
                prompts="helpful",
                limit=2,
                judge="scripted",
                run="served",
                runs_dir=tmp_path / "runs",
                policy=f"openai/{told['model']}",
                set=[
                    *(f"models.policy.{field}={value}" for field, value in told.items() if field != "model"),
                    "sample.n=2",
                    "sample.max_tokens=8",
                ],
            )
        finally:
            del os.environ["SERVE_KEY"]
        assert result.summary["records"] == 2
        assert not result.failed
        children = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        assert children
        process.send_signal(how)
        assert process.wait(60) == 0
        for child in children:
            with pytest.raises(ProcessLookupError):
                os.kill(int(child), 0)
    assert (tmp_path / "err").read_text().endswith("stopped\n")
    assert not list(tmp_path.glob("rlaif-serve-*"))


async def test_a_child_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    with command(tmp_path, "local", "--port", "0") as (process, line):
        told = options(line)
        process.kill()
        process.wait()
        client = OpenAIBackend(told["base_url"], told["model"], timeout_s=5)
        try:
            for _ in range(100):
                with pytest.raises(ProviderError) as caught:
                    await client.complete(Request(model="x", messages=(Message("user", "Hi"),), max_tokens=500))
                if caught.value.kind == "connection":
                    break
            assert caught.value.kind == "connection"
        finally:
            await client.close()


@asynccontextmanager
async def asking(model: str, engine: Engine, folder: Path) -> AsyncIterator[tuple[OpenAIBackend, Server]]:
    with served(choice(model, engine), Place(port=0, api_key=KEY, context_tokens=512), folder) as server:
        client = OpenAIBackend(server.url, server.choice.name, api_key=KEY)
        try:
            yield client, server
        finally:
            await client.close()


def question(text: str, max_tokens: int = 8, **fields: object) -> Request:
    extra = {"body": {"cache_prompt": False}} if fields.pop("uncached", False) else None
    return Request(model="x", messages=(Message("user", text),), max_tokens=max_tokens, extra=extra, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundled model in Hugging Face's layout, with weights that no quantisation has made round."""
    np = pytest.importorskip("numpy")
    from rlaif.backends.gguf import find_weights
    from rlaif.backends.to_hf import convert

    path = convert(find_weights(""), tmp_path_factory.mktemp("hf") / "changed")
    weights = path / "model.safetensors"
    size = int.from_bytes(weights.open("rb").read(8), "little")
    header = json.loads(weights.open("rb").read(8 + size)[8:])
    numbers = np.memmap(weights, "<f4", "r+", offset=8 + size)
    chance = np.random.default_rng(0)
    for name, about in header.items():
        if name != "__metadata__" and len(about["shape"]) == 2:
            one = numbers[slice(*(at // 4 for at in about["data_offsets"]))]
            one += 0.05 * one.std() * chance.standard_normal(len(one), np.float32)
    numbers.flush()
    return str(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
async def test_transformers_is_served_with_all_that_a_judge_asks_for(folder: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the [train] extra")
    async with asking(folder, "transformers", tmp_path) as (client, server):
        assert server.choice.identity.startswith("transformers:")
        completion = await client.complete(question("What is the capital of France?", top_logprobs=3, temperature=0.0))
        assert completion.logprobs is not None
        assert len(completion.logprobs) == completion.usage.completion_tokens
        assert all(len(token.top) == 3 and token.top[0][1] >= token.logprob for token in completion.logprobs)
        again = [await client.complete(question("Tell me a story.", temperature=1.0, seed=7)) for _ in range(2)]
        assert again[0].text == again[1].text
        with pytest.raises(ProviderError) as caught:
            await client.complete(question("word " * 600))
        assert caught.value.kind == "context_length"
        with pytest.raises(ProviderError) as caught:
            await client.complete(question("Hi", response_format={"type": "json_object"}))
        assert (caught.value.kind, caught.value.parameter) == ("unsupported", "response_format")
    assert (tmp_path / "transformers.log").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
async def test_a_folder_answers_from_llama_cpp_as_it_does_from_transformers(folder: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the [train] extra")
    answers = {}
    engines: tuple[Engine, ...] = ("llama", "transformers")
    for engine in engines:
        async with asking(folder, engine, tmp_path / engine) as (client, _):
            answers[engine] = [
                await client.complete(question(prompt, 40, temperature=0.0, uncached=engine == "llama"))
                for prompt in PROMPTS
            ]
    for one, other in zip(answers["llama"], answers["transformers"], strict=True):
        assert one.text == other.text
        assert one.usage.prompt_tokens == other.usage.prompt_tokens
