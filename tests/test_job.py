"""One job from settings to dataset, and again, and changed, and broken."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import msgspec
import pytest
import yaml

import rlaif
from rlaif.api import export
from rlaif.errors import ConfigError, ProviderError
from rlaif.packing import Packing
from rlaif.store import RunFolder, encode
from tests.server import Body, Reply, Server, answer

SCRIPTED: dict[str, Any] = {"policy": "scripted", "judge": "scripted"}


def generate(runs: Path, *, run: str = "r", limit: int = 12, **options: Any) -> rlaif.Result:
    return rlaif.generate("small", runs_dir=runs, run=run, limit=limit, **{**SCRIPTED, **options})


def content(runs: Path, run: str = "r") -> list[bytes]:
    return [encode(record) for record in RunFolder(runs, run).records()]


@contextmanager
def served(server: Server) -> Iterator[Server]:
    """The server in a thread of its own: `generate` brings its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_job_ends_with_a_dataset_that_loads_and_a_summary_that_adds_up(tmp_path: Path) -> None:
    result = generate(tmp_path, limit=40)
    assert result.status == "done"
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary == result.summary
    assert summary["records"] == sum(summary["outcomes"].values()) == 40
    assert summary["outcomes"]["ok"] == summary["dataset"]["pairs"] + sum(summary["dataset"]["no_pair"].values())
    assert summary["calls"]["sent"] == sum(stage["sent"] for stage in summary["stages"])
    assert summary["tokens"]["completion"] > 0
    loaded = datasets.load_dataset(str(result.dataset), "preference")
    rows = [row for split in loaded.values() for row in split]
    assert len(rows) == summary["dataset"]["pairs"] > 20
    assert all(row["chosen"] != row["rejected"] for row in rows)
    assert result.example is not None
    assert result.example.chosen != result.example.rejected


def test_the_same_job_again_sends_nothing_and_a_rebuild_gives_the_same_parts(tmp_path: Path) -> None:
    first = generate(tmp_path)
    before = content(tmp_path)
    assert first.summary["calls"]["sent"] > 100
    again = generate(tmp_path)
    rebuilt = generate(tmp_path, rebuild=True)
    assert (again.summary["calls"]["sent"], again.summary["calls"]["from_journal"]) == (0, 0)
    assert rebuilt.summary["calls"]["sent"] == 0
    assert rebuilt.summary["calls"]["from_journal"] > 100
    assert content(tmp_path) == before


def test_other_settings_need_another_name_and_share_the_journal(tmp_path: Path) -> None:
    generate(tmp_path)
    with pytest.raises(ConfigError, match=r"(?s)run 'r' was made with other settings.*sample.n: 2 -> 3.*another --run"):
        generate(tmp_path, set=["sample.n=3"])
    more = generate(tmp_path, run="r2", set=["sample.n=3"])
    # The two drafts of a prompt, the critique and the revision of the first are the same calls as before.
    assert more.summary["calls"]["from_journal"] >= 4 * 12


def test_a_constitution_without_one_principle_pays_only_for_the_draws_it_held(tmp_path: Path) -> None:
    generate(tmp_path, limit=30)
    text = yaml.safe_load(Path("constitutions/safety.yaml").read_text())
    removed = text["principles"].pop(4)["id"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(text))
    before = list(RunFolder(tmp_path, "r").records())
    touched = sum(
        any(response.principle == removed for response in record.responses)
        + sum(verdict.principle == removed for verdict in record.verdicts)
        for record in before
    )
    changed = generate(tmp_path, run="r2", limit=30, constitution=str(tmp_path / "mine.yaml"))
    assert 0 < touched < 20
    # Each draw held is at most a critique, a revision, and the comparisons of that revision.
    assert changed.summary["calls"]["sent"] <= touched * 6
    after = list(RunFolder(tmp_path, "r2").records())
    same = sum(a == b for a, b in zip(before, after, strict=True))
    assert same >= 30 - touched


def test_two_seeds_give_two_sets_of_samples(tmp_path: Path) -> None:
    generate(tmp_path)
    other = generate(tmp_path, run="other", seed=1)
    assert other.summary["calls"]["from_journal"] == 0
    texts = [
        [r.text for record in RunFolder(tmp_path, name).records() for r in record.responses] for name in ("r", "other")
    ]
    assert not set(texts[0]) & set(texts[1])


def test_a_retry_asks_for_what_failed_and_for_nothing_else(tmp_path: Path) -> None:
    broken = True

    def sometimes(body: Body) -> Reply:
        text = str(body["messages"])
        if broken and "insulin" in text:
            return 400, {"error": {"message": "this request is not liked"}}, {}
        return answer(body)

    with served(Server(sometimes)) as server:
        model = f"{server.url}#m"
        result = generate(tmp_path, policy=model, judge=model)
        assert result.failed == 1
        sent = len(server.requests)
        assert generate(tmp_path, policy=model, judge=model).summary["calls"]["sent"] == 0
        broken = False
        mended = rlaif.retry("r", runs_dir=tmp_path)
        assert mended.failed == 0
        assert mended.summary["calls"]["sent"] == len(server.requests) - sent <= 10
        assert mended.summary["outcomes"] == {"ok": 12}


def test_a_key_is_written_nowhere(tmp_path: Path) -> None:
    key, header = "sk-very-secret-0123456789", "another-secret-987654321"

    def echo(body: Body) -> Reply:
        if "insulin" in str(body["messages"]):
            return 400, {"error": {"message": f"Bearer {key} may not ask this"}}, {}
        return answer(body)

    with served(Server(echo)) as server:
        secrets = "api_key_env: MY_KEY, headers: {X-Token: $OTHER}"
        model = f"{{provider: openai, model: m, base_url: '{server.url}', {secrets}}}"
        result = generate(
            tmp_path,
            policy=None,
            judge=None,
            set=[f"models.policy={model}", f"models.judge={model}"],
            environment={"MY_KEY": key, "OTHER": header},
        )
        assert {request["Authorization"] for request in server.headers} == {f"Bearer {key}"}
        assert {request["X-Token"] for request in server.headers} == {header}
    assert result.failed == 1
    with sqlite3.connect(tmp_path / "calls.sqlite") as journal:
        journal.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        bodies = [msgspec.json.encode(Packing().unpack(row[0])) for row in journal.execute("SELECT body FROM calls")]
    journal.close()
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for text in [*bodies, *files, *content(tmp_path)]:
        assert key.encode() not in text
        assert header.encode() not in text
    assert any(b"[the key] may not ask this" in body for body in bodies)


def test_a_server_that_goes_away_stops_the_run_and_what_it_answered_is_kept(tmp_path: Path) -> None:
    count = 0

    def dying(body: Body) -> Reply:
        nonlocal count
        count += 1
        return (401, {"error": {"message": "key revoked"}}, {}) if count > 50 else answer(body)

    with served(Server(dying)) as server:
        model = f"{server.url}#m"
        with pytest.raises(ProviderError, match="key revoked"):
            generate(tmp_path, policy=model, judge=model)
        answered = {json.dumps(body, sort_keys=True) for body in server.requests[1:50]}
        count = -10_000
        before = len(server.requests)
        assert generate(tmp_path, policy=model, judge=model).status == "done"
        assert not answered & {json.dumps(body, sort_keys=True) for body in server.requests[before:]}


@contextmanager
def child_server(log: Path, most: int = 10**9) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    command = [sys.executable, "-m", "tests.server", str(log), str(most)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        yield server, server.stdout.readline().decode().strip()
        server.kill()


def test_a_server_that_dies_is_named_and_a_new_one_answers_the_rest_only(tmp_path: Path) -> None:
    def on(url: str) -> rlaif.Result:
        model = f"{{provider: openai, model: m, identity: ours, base_url: '{url}', outage_s: 2, concurrency: 4}}"
        return generate(tmp_path, limit=40, policy=None, judge=None, set=[f"models.{r}={model}" for r in SCRIPTED])

    def keys(log: Path, event: str) -> list[str]:
        return [line.split()[2] for line in log.read_text().splitlines() if line.split()[1] == event]

    first, second = tmp_path / "first", tmp_path / "second"
    with child_server(first, most=100) as (server, url), ThreadPoolExecutor(1) as thread:
        job = thread.submit(on, url)
        while len(keys(first, "answered")) < 60 and not job.done():
            time.sleep(0.005)
        server.kill()
        with pytest.raises(ProviderError, match=r"127\.0\.0\.1:\d+/v1/.* cannot be reached"):
            job.result(timeout=200)
    with sqlite3.connect(tmp_path / "calls.sqlite") as journal:
        kept: int = journal.execute("SELECT count(*) FROM calls").fetchone()[0]
    journal.close()
    with child_server(second) as (_, url):
        assert on(url).summary["records"] == 40
    asked_before, asked_after = set(keys(first, "asked")[1:]), keys(second, "asked")  # without the preflight
    assert len(asked_after) == len(set(asked_after))
    assert len(asked_before - set(asked_after)) == kept >= 50


def test_an_export_changes_pairs_in_place_and_keeps_what_was_paid_in_the_summary(tmp_path: Path) -> None:
    first = generate(tmp_path, limit=40)
    strict = export("r", runs_dir=tmp_path, set=["export.min_p=0.95"])
    assert strict.summary["dataset"]["pairs"] < first.summary["dataset"]["pairs"]
    assert strict.summary["calls"] == first.summary["calls"]
    with pytest.raises(ConfigError, match=r"sample\.n: an export changes export\.\* only"):
        export("r", runs_dir=tmp_path, set=["sample.n=3"])


def test_a_dry_run_writes_no_run_and_finds_what_a_real_one_would(tmp_path: Path) -> None:
    dry = generate(tmp_path, dry_run=True)
    assert dry.status == "dry_run"
    assert not (tmp_path / "r").exists()
    generate(tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        generate(tmp_path, dry_run=True, seed=5)


def test_a_smaller_limit_loses_no_record_not_even_through_a_retry(tmp_path: Path) -> None:
    generate(tmp_path, limit=30, set=["models.policy.script.error_rate=0.02"])
    generate(tmp_path, limit=5, set=["models.policy.script.error_rate=0.02"])
    rlaif.retry("r", runs_dir=tmp_path)
    assert len(content(tmp_path)) == 30


def test_duplicate_prompts_are_dropped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "question {i % 3}"}}\n' for i in range(9)))
    result = generate(tmp_path, limit=None, prompts=str(tmp_path / "p.jsonl"))
    assert (result.summary["records"], result.summary["duplicate_prompts"]) == (3, 6)


def test_pairs_that_no_stage_leaves_evidence_for_are_refused_before_any_call(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'best_vs_worst' needs verdicts: .*comparisons: \[all\]"):
        generate(tmp_path, set=["judge.comparisons=[revisions]"])
    with pytest.raises(ConfigError, match="add a 'rate' stage"):
        generate(tmp_path, set=["export.quality_floor=0.25"])
    assert not (tmp_path / "r").exists()


def test_it_runs_where_a_loop_is_running_already_as_in_a_notebook(tmp_path: Path) -> None:
    async def cell() -> rlaif.Result:
        return generate(tmp_path)

    assert asyncio.run(cell()).status == "done"


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b"])
def test_a_run_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a run's name"):
        generate(tmp_path, run=name)


def test_an_unknown_run_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    generate(tmp_path)
    with pytest.raises(ConfigError, match=r"no run 'rr' in .*; there are: r$"):
        rlaif.retry("rr", runs_dir=tmp_path)


def test_two_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    settings = ["models.judge={provider: scripted, model: twin, script: {seed: 1}}", "filter.min_candidates=0"]
    result = generate(tmp_path, policy="scripted/twin", judge=None, set=settings)
    names = {(stage["stage"], stage["model"]) for stage in result.summary["stages"]}
    assert {("sample", "twin"), ("judge", "twin (judge)")} <= names


def test_a_run_goes_on_after_its_prompts_were_renamed_or_moved(tmp_path: Path) -> None:
    first, moved = tmp_path / "questions.jsonl", tmp_path / "elsewhere" / "asked.jsonl"
    moved.parent.mkdir()
    first.write_text('{"prompt": "Why?"}\n{"prompt": "How?"}\n')
    generate(tmp_path, prompts=str(first))
    first.rename(moved)
    again = generate(tmp_path, prompts=str(moved))
    assert again.summary["calls"]["sent"] == 0
    moved.write_text('{"prompt": "Who?"}\n')
    with pytest.raises(ConfigError, match=r"other settings:\n  prompts\.hash: "):
        generate(tmp_path, prompts=str(moved))


@pytest.mark.parametrize(
    ("pipeline", "role"), [("self-reward", "judge"), ("delta", "policy"), ("rlcd", "judge"), ("sl-cai", "judge")]
)
def test_a_model_that_no_stage_would_ask_is_refused(pipeline: str, role: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"for the role '{role}', and no stage of '{pipeline}' asks it; asked are"):
        rlaif.generate(pipeline, runs_dir=tmp_path, **{role: "scripted"})


def test_a_model_of_two_roles_is_one_door_however_fast_each_is_to_be(tmp_path: Path) -> None:
    result = generate(tmp_path, set=["models.judge.concurrency=2", "models.judge.timeout_s=9"])
    assert {stage["model"] for stage in result.summary["stages"]} == {"scripted"}


def test_a_model_that_refuses_whatever_it_is_asked_ends_the_run(tmp_path: Path) -> None:
    def refuses(body: Body) -> Reply:
        if body["max_tokens"] <= 16:  # the first call of all is answered
            return answer(body)
        return 400, {"error": {"message": "stop is too long", "param": "stop"}}, {}

    with served(Server(refuses)) as server:
        with pytest.raises(ProviderError, match="stop is too long"):
            generate(tmp_path, policy=f"{server.url}#m", judge="scripted", limit=200)
        assert len(server.requests) < 200  # of 400: those in flight, and no more


def test_an_export_that_the_stages_cannot_give_names_the_stage(tmp_path: Path) -> None:
    generate(tmp_path)
    with pytest.raises(ConfigError, match="'strong_vs_weak' needs two sides: add a 'contrast' stage"):
        export("r", runs_dir=tmp_path, set=["export.pairs=[strong_vs_weak]"])


def test_two_roles_of_one_model_draw_different_samples(tmp_path: Path) -> None:
    both = ["models.strong=scripted", "models.weak=scripted"]
    result = rlaif.generate("delta", limit=8, runs_dir=tmp_path, run="same", set=both)
    assert result.summary["dataset"]["pairs"] == 8
    assert result.summary["calls"]["sent"] == 2 * 8 + 1
    pool = [f"models.{role}=scripted" for role in ("one", "two", "three", "four", "judge")]
    result = rlaif.generate("ultrafeedback", limit=4, runs_dir=tmp_path, run="pool", set=pool)
    assert result.summary["funnel"]["responses_dropped"] == {}
