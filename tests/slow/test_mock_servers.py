"""Whole jobs against other people's mock servers, whose faults and whose opinion of a client are not ours."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.request
import venv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif.errors import ConfigError
from rlaif.job import Result
from rlaif.store import RunFolder
from rlaif.types import Record

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CALLS = 4  # of a record: two samples, one comparison in both orders
PIPELINE = """
name: mocks
constitution: general
prompts: prompts.jsonl
models: {policy: scripted, judge: scripted}
stages:
  - sample: {n: 1, max_tokens: 64}
  - sample: {n: 1, max_tokens: 64, system: Be brief.}
  - judge: {comparisons: [all], principles: draw, by: {votes: 2}}
export: {pairs: [best_vs_worst], min_p: 0.5, require_consistent: false}
"""


def installed(tmp_path_factory: pytest.TempPathFactory, package: str) -> Path:
    """A venv with the package; skips where pip cannot get it."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    done = subprocess.run([python, "-m", "pip", "install", "-q", package], capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"pip cannot install {package}: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture(scope="session")
def llmock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory, "llmock~=0.2.2")


@pytest.fixture(scope="session")
def mock_ai_api(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory, "mock-ai-api~=0.1.1")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def running(command: Callable[[int], Sequence[str | Path]]) -> Iterator[str]:
    """The server's address while it runs."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1000):
            assert process.poll() is None, "the server ended"
            try:
                fetched(f"{url}/health")
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


def fetched(url: str) -> Any:  # Any: what json gives
    with urllib.request.urlopen(url, timeout=60) as reply:
        return json.load(reply)


def llmock_with(folder: Path, *options: str) -> Callable[[int], Sequence[str | Path]]:
    quiet = ("--response-style", "echo", "--log-level", "error", "--host", "127.0.0.1")
    return lambda port: [folder / "bin" / "llmock", "serve", "--port", str(port), *quiet, *options]


def mock_ai_api_as(folder: Path, app: str) -> Callable[[int], Sequence[str | Path]]:
    # Its own command starts this very thing in sessions of their own, which outlive a command that is killed.
    words = ["-m", "uvicorn", f"app.{app}_app:app", "--host", "127.0.0.1", "--log-level", "error", "--port"]
    return lambda port: [folder / "bin" / "python", *words, str(port)]


def generate(folder: Path, base_url: str, records: int = 20, **model: object) -> Result:
    (folder / "mocks.yaml").write_text(PIPELINE)
    prompts = [json.dumps({"prompt": f"[[q{i}]] What is kind about it?"}) for i in range(records)]
    (folder / "prompts.jsonl").write_text("\n".join(prompts))
    fields = {"provider": "openai", "model": "m", "base_url": base_url, "concurrency": 16} | model
    return rlaif.generate(
        str(folder / "mocks.yaml"),
        prompts=str(folder / "prompts.jsonl"),
        run="mocks",
        runs_dir=folder / "runs",
        set=[f"models.{role}={json.dumps(fields)}" for role in ("policy", "judge")],
        environment={},
    )


def records_of(folder: Path) -> list[Record]:
    return list(RunFolder(folder / "runs", "mocks").records())


def check_own_echoes(records: Sequence[Record], count: int) -> None:
    assert len({record.id for record in records}) == len(records) == count
    assert Counter(record.outcome for record in records) == {"ok": count}, [r.detail for r in records if r.detail]
    for record in records:
        (marker,) = re.findall(r"\[\[q\d+\]\]", record.prompt[-1].content)
        assert record.responses
        assert all(marker in response.text for response in record.responses)


def check_nothing_paid_twice(requests: Sequence[dict[str, Any]]) -> None:
    """By the server's own log: no body comes again after it was answered in full."""
    in_order = sorted(requests, key=lambda request: int(request["seq"]))
    # The first is the question of the start, which a server that was left alone must answer again.
    small = next(request["fingerprint"] for request in in_order if request["status"] == 200)
    answered: set[str] = set()
    for request in in_order:
        assert request["fingerprint"] not in answered
        if request["fingerprint"] != small and request["status"] == 200 and request["completed"]:
            answered.add(request["fingerprint"])


FAULTY = ["--error-rate", "429=0.10", "--error-rate", "500=0.05", "--error-rate", "503=0.03", "--latency-ms", "5"]


@pytest.mark.parametrize(("provider", "path"), [("openai", "/v1"), ("anthropic", "/anthropic")])
def test_llmock_finds_no_fault_with_us_under_its_own(llmock: Path, tmp_path: Path, provider: str, path: str) -> None:
    with running(llmock_with(llmock, *FAULTY)) as url:
        for _ in range(3):  # two faults in a row at the first question end the start: once in 150 times
            with suppress(ConfigError):
                generate(tmp_path, url + path, records=40, provider=provider, attempts=8)
                break
        verdict = fetched(f"{url}/_llmock/verdict")
        requests = fetched(f"{url}/_llmock/requests")["requests"]
    check_own_echoes(records_of(tmp_path), 40)
    assert verdict["faults_injected"] > 5
    assert (verdict["passed"], verdict["findings"]) == (True, [])
    check_nothing_paid_twice(requests)


@pytest.mark.parametrize("quota", ["rpm", "tpm"])
def test_a_quota_of_llmock_is_lived_with(llmock: Path, tmp_path: Path, quota: str) -> None:
    """Its bucket is full at the start and refills all the time; what is over is refused with the real wait."""
    limit, records = {"rpm": ("240", 70), "tpm": ("60000", 50)}[quota]
    with running(llmock_with(llmock, f"--{quota}", limit)) as url:
        generate(tmp_path, f"{url}/v1", records, concurrency=32)
        verdict = fetched(f"{url}/_llmock/verdict")
        requests = fetched(f"{url}/_llmock/requests")["requests"]
    check_own_echoes(records_of(tmp_path), records)
    assert {request["status"] for request in requests} == {200, 429}
    assert verdict["errors"] == 0, verdict["findings"]
    check_nothing_paid_twice(requests)


def test_llmock_without_log_probabilities_is_a_judge_that_votes(llmock: Path, tmp_path: Path) -> None:
    with running(llmock_with(llmock)) as url:
        result = generate(tmp_path, f"{url}/v1", records=8)
    check_own_echoes(records_of(tmp_path), 8)
    assert result.failed == 0
    methods = {verdict.method for record in records_of(tmp_path) for verdict in record.verdicts}
    assert methods <= {"votes"}


OPENAI, ANTHROPIC = ("openai", "gpt-4.1"), ("anthropic", "claude-sonnet-4-20250514")


@pytest.mark.parametrize(("app", "model"), [OPENAI, ANTHROPIC])
def test_fixed_answers_of_mock_ai_api_make_a_run_that_ends(
    mock_ai_api: Path, tmp_path: Path, app: str, model: str
) -> None:
    with running(mock_ai_api_as(mock_ai_api, app)) as url:
        result = generate(tmp_path, f"{url}/v1", provider=app, model=f"{model}:mock-text")
    assert (result.status, result.failed) == ("done", 0)
    kept = records_of(tmp_path)
    assert len(kept) == 20
    assert all(record.responses[0].text for record in kept)


@pytest.mark.parametrize("status", [400, 401, 500, 503])
@pytest.mark.parametrize(("app", "model"), [OPENAI, ANTHROPIC])
def test_a_model_of_mock_ai_api_that_always_fails_is_named_before_the_run(
    mock_ai_api: Path, tmp_path: Path, app: str, model: str, status: int
) -> None:
    with (
        running(mock_ai_api_as(mock_ai_api, app)) as url,
        pytest.raises(ConfigError, match=rf"'{re.escape(model)}:mock-{status}' cannot be used: .* answered {status}"),
    ):
        generate(tmp_path, f"{url}/v1", provider=app, model=f"{model}:mock-{status}")
    assert not (tmp_path / "runs/mocks/settings.yaml").exists()


@pytest.mark.parametrize(
    ("app", "model"), [("openai", "gpt-4.1:mock-tool-call"), (ANTHROPIC[0], f"{ANTHROPIC[1]}:mock-tool-use")]
)
def test_a_model_that_calls_a_tool_instead_of_answering_makes_up_no_text(
    mock_ai_api: Path, tmp_path: Path, app: str, model: str
) -> None:
    with running(mock_ai_api_as(mock_ai_api, app)) as url:
        generate(tmp_path, f"{url}/v1", records=4, provider=app, model=model)
    for record in records_of(tmp_path):
        assert {response.text for response in record.responses} <= {""}
        assert not record.verdicts
