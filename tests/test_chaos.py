"""Whole jobs against a server that misbehaves: no record lost, none with another's answer, no answer paid for twice."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif.errors import ConfigError, ProviderError
from rlaif.job import Job, Result
from rlaif.store import RunFolder
from rlaif.types import Record
from tests.cli.command import Done, start
from tests.faults import (
    ANSWER,
    BIG,
    CUTS,
    FORMS,
    LEAKS,
    LIMITS,
    MB,
    REPLIES,
    SERVER,
    SLOW,
    Exchange,
    FaultyServer,
    Plan,
    Wire,
    answer_to,
    at_first,
    chance,
    chat_completion,
    failing,
    iso_later,
    later,
    mixed,
    odds,
    openai_error,
)

pytestmark = pytest.mark.timeout(300)

STANDSTILL_S = 4.5  # a busy machine may stand still for so long; with a shorter timeout a right answer is given up
CALLS = 4  # a record's: two samples, one comparison in both orders
PIPELINE = """
name: chaos
constitution: general
prompts: prompts.jsonl
models: {policy: scripted, judge: scripted}
stages:
  - sample: {n: 1, temperatures: [0.7, 0.8], max_tokens: 64}
  - judge: {comparisons: [all], principles: draw, by: {votes: 2}}
export: {pairs: [best_vs_worst], min_p: 0.5, require_consistent: false}
"""


def arguments(folder: Path, url: str, records: int, **model: object) -> tuple[list[str], dict[str, Any]]:
    """(settings, paths) of a run whose prompts carry their markers."""
    (folder / "chaos.yaml").write_text(PIPELINE)
    prompts = [json.dumps({"prompt": f"What is kind about case [[q{i}]]?"}) for i in range(records)]
    (folder / "prompts.jsonl").write_text("\n".join(prompts))
    fields = {"provider": "openai", "model": "m", "identity": "ours", "base_url": url, "concurrency": 16} | model
    settings = [f"models.{role}={json.dumps(fields)}" for role in ("policy", "judge")]
    return settings, {"prompts": str(folder / "prompts.jsonl"), "run": "chaos", "runs_dir": folder / "runs"}


def generate(
    folder: Path,
    server: FaultyServer | str,
    records: int = 12,
    *,
    environment: Mapping[str, str] | None = None,
    observer: Any = None,  # job.Observer
    **model: object,
) -> Result:
    url = server if isinstance(server, str) else server.url
    settings, paths = arguments(folder, url, records, **model)
    pipeline = str(folder / "chaos.yaml")
    return rlaif.generate(pipeline, set=settings, environment=environment or {}, observer=observer, **paths)


def command(folder: Path, url: str, records: int, *options: str, **model: object) -> list[str]:
    settings, _ = arguments(folder, url, records, **model)
    listed = ["generate", "chaos.yaml", "--prompts", "prompts.jsonl", "--run", "chaos", *options]
    return listed + [word for setting in settings for word in ("--set", setting)]


def finished(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=100)
    assert "Traceback" not in out + err, err
    return Done(process.returncode, out, err)


def records_of(folder: Path) -> list[Record]:
    return list(RunFolder(folder / "runs", "chaos").records())


def marker_of(record: Record) -> int:
    found = re.search(r"\[\[q(\d+)\]\]", record.prompt[-1].content)
    assert found
    return int(found[1])


def check_own_answers(record: Record, *, judged: bool = True) -> None:
    """What the record holds is what the server gives to its questions, letter for letter, number for number."""
    marks = []
    for response in record.responses:
        found = ANSWER.search(response.text)
        assert found, response.text
        assert int(found[1]) == marker_of(record), "another question's answer"
        marks.append(found[2])
    assert len(marks) == 2
    assert len(record.verdicts) == 1
    verdict = record.verdicts[0]
    first, second = marks[verdict.first], marks[verdict.second]
    if judged:
        assert verdict.p_ab == pytest.approx(odds(first, second)), "another comparison's verdict"
        assert verdict.p_ba == pytest.approx(1 - odds(second, first)), "another comparison's verdict"


def check_all_right(folder: Path, server: FaultyServer, records: int) -> None:
    """Nothing lost, wrong, twice in the data, or asked again after its answer."""
    kept = records_of(folder)
    assert Counter(record.outcome for record in kept) == {"ok": records}, [r.detail for r in kept if r.detail]
    assert sorted(map(marker_of, kept)) == list(range(records))
    for record in kept:
        check_own_answers(record)
    check_nothing_paid_twice(server)
    answered = {exchange.raw for exchange in server.log if exchange.answered and exchange.marker is not None}
    assert len(answered) == CALLS * records


def check_nothing_paid_twice(server: FaultyServer) -> None:
    again = server.asked_again()
    assert not again, f"{len(again)} answered calls were sent again, as [[q{again[0].marker}]]"


def given_for(server: FaultyServer, fault: str) -> list[Exchange]:
    return [exchange for exchange in server.log if exchange.fault == fault]


class Watch:
    """An observer that keeps the job."""

    job: Job

    @contextmanager
    def __call__(self, job: Job) -> Iterator[None]:
        self.job = job
        yield


# The property


MIX = {"429": 0.05, "429, fraction": 0.05, "500": 0.05, "malformed": 0.02, "cut mid-body": 0.01}


def test_under_a_mix_of_faults_nothing_is_lost_wrong_doubled_or_paid_twice(tmp_path: Path) -> None:
    with FaultyServer(mixed(MIX)) as server:
        result = generate(tmp_path, server, records=250, concurrency=64, attempts=8)
        check_all_right(tmp_path, server, 250)
        assert server.faults() == sorted(MIX)
    assert (result.status, result.failed) == ("done", 0)


KILLS = 3


def test_under_the_same_mix_a_killed_run_goes_on_and_pays_again_only_for_what_was_in_flight(tmp_path: Path) -> None:
    records, concurrency = 100, 8
    chance_of_kill = random.Random(5)
    unsure: set[bytes] = set()
    most = 0
    faulty = mixed(MIX)  # no life may be the last because its killer is late
    with FaultyServer(lambda e: "hung" if len(server.log) > most else faulty(e), latency_s=lambda _: 0.01) as server:
        words = command(tmp_path, server.url, records, concurrency=concurrency, attempts=8)
        for _ in range(KILLS):
            before = len(server.log)
            most = before + 110
            process = start(tmp_path, words)
            while process.poll() is None and len(server.log) < before + 20:
                time.sleep(0.002)
            time.sleep(chance_of_kill.uniform(0.0, 0.1))
            assert process.poll() is None, "the run ended before it was killed: make it longer"
            process.send_signal(signal.SIGKILL)
            process.communicate()
            time.sleep(0.05)  # what was under way at the server ends
            kept = journaled(tmp_path)
            answered = {exchange.raw for exchange in server.log if exchange.answered and exchange.marker is not None}
            assert len(answered) - kept <= concurrency, "a life loses what was in flight, at most"
            unsure |= {exchange.raw for exchange in server.log[before:] if exchange.answered}
        most = 10**9
        done = finished(start(tmp_path, words))
        assert done.code == 0, done.err
        again = Counter(exchange.raw for exchange in server.asked_again())
        assert len(again) <= KILLS * concurrency
        assert set(again) <= unsure
        assert max(again.values()) <= KILLS
    kept_records = records_of(tmp_path)
    assert sorted(map(marker_of, kept_records)) == list(range(records))
    for record in kept_records:
        check_own_answers(record)


def journaled(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "runs/calls.sqlite")) as connection:
        count: int = connection.execute("SELECT count(*) FROM calls WHERE NOT failed").fetchone()[0]
    return count


def test_every_fault_and_every_form_at_once_loses_nothing(tmp_path: Path) -> None:
    names = [*LIMITS, *SERVER, *REPLIES, *CUTS, *FORMS, "hung", "big"]
    with FaultyServer(at_first(names, share=0.8)) as server:
        generate(tmp_path, server, records=80, concurrency=48, timeout_s=STANDSTILL_S, attempts=8)
        check_all_right(tmp_path, server, 80)
        assert len(server.faults()) > 0.9 * len(set(names) - set(FORMS))


# Each fault by itself


def dealt(names: Sequence[str], marker: int | None) -> str:
    """Each question has its fault."""
    return names[(marker or 0) % len(names)]


@pytest.mark.parametrize("group", [LIMITS, SERVER, REPLIES, CUTS], ids=["limits", "server", "replies", "cuts"])
def test_faults_that_pass_are_asked_again_and_nothing_else_is(tmp_path: Path, group: dict[str, Any]) -> None:
    names, records = list(group), 3 * len(group)

    def plan(exchange: Exchange) -> str | None:
        met = exchange.marker is not None and exchange.nth == 0 and chance(exchange.raw) < 0.75
        return dealt(names, exchange.marker) if met else None

    with FaultyServer(plan) as server:
        generate(tmp_path, server, records)
        check_all_right(tmp_path, server, records)
        for name in names:
            given = given_for(server, name)
            asked = [e for e in server.log if e.marker is not None and dealt(names, e.marker) == name]
            assert len(given) >= 3, f"{name} was planted too seldom"
            assert len(asked) == 3 * CALLS + len(given), f"{name}: one more request for each, no more"


def test_a_connection_that_hangs_is_given_up_at_the_timeout(tmp_path: Path) -> None:
    with FaultyServer(at_first(SLOW, share=0.3)) as server:
        generate(tmp_path, server, timeout_s=STANDSTILL_S)
        check_all_right(tmp_path, server, 12)
        hung = [exchange for exchange in server.log if exchange.fault]
        assert server.faults() == sorted(SLOW)
        for exchange in hung:
            assert 0.95 * STANDSTILL_S < exchange.ended - exchange.at < 60, "the client hangs up"


def test_right_answers_in_odd_forms_are_taken_as_they_are(tmp_path: Path) -> None:
    names, records = [name for name in FORMS if "idle" not in name], 3 * len(FORMS)
    with FaultyServer(lambda e: dealt(names, e.marker) if e.marker is not None else None) as server:
        generate(tmp_path, server, records)
        check_all_right(tmp_path, server, records)
        asked = Counter(dealt(names, e.marker) for e in server.log if e.marker is not None and e.nth)
        assert not asked, "what was right is asked again"


@pytest.mark.parametrize("name", ["closed while idle", "reset while idle"])
def test_connections_that_are_closed_while_idle_are_made_anew(tmp_path: Path, name: str) -> None:
    plan: Plan = lambda e: name if e.marker is not None and e.marker % 3 == 0 else None  # noqa: E731
    with FaultyServer(plan, latency_s=lambda e: 0.15 if e.marker == 1 else 0.0) as server:
        generate(tmp_path, server)
        check_all_right(tmp_path, server, 12)


@pytest.mark.parametrize("name", [*LEAKS])
def test_what_a_server_sends_beyond_a_reply_is_never_the_next_questions_answer(tmp_path: Path, name: str) -> None:
    def late(exchange: Exchange) -> float:
        return 0.1 if exchange.marker is not None and exchange.of_marker == 1 else 0.0

    # The connections of the first answers lie idle until the second ones are there; the judge's calls take them up.
    with FaultyServer(lambda e: name if e.marker is not None and e.of_marker == 0 else None, latency_s=late) as server:
        generate(tmp_path, server, concurrency=32)
    kept = records_of(tmp_path)
    assert Counter(record.outcome for record in kept) == {"ok": 12}
    for record in kept:
        check_own_answers(record)


@pytest.mark.parametrize("name", [*BIG])
def test_a_body_without_measure_is_not_read_to_its_end(tmp_path: Path, name: str) -> None:
    with FaultyServer(at_first([name], share=0.1)) as server:
        generate(tmp_path, server)
        check_all_right(tmp_path, server, 12)
        given = given_for(server, name)
        assert given
        # What lies in the buffers of both ends comes on top of what was read.
        assert name == "bomb" or max(exchange.bytes_sent for exchange in given) < {"big": 50, "endless": 80}[name] * MB


def test_a_body_that_is_always_too_big_fails_its_record_and_costs_no_memory(tmp_path: Path) -> None:
    with FaultyServer(lambda e: "bomb" if e.marker in (3, 4, 5, 6) and not e.judging else None) as server:
        process = start(tmp_path, command(tmp_path, server.url, 12, attempts=1))
        peak = 0
        while process.poll() is None:
            # Not ru_maxrss, which begins with that of the parent.
            peak = max([peak, *map(int, re.findall(r"VmHWM:\s*(\d+) kB", status_of(process.pid)))])
            time.sleep(0.02)
        done = finished(process)
        check_nothing_paid_twice(server)
    assert done.code == 1, done.err
    failed = [record for record in records_of(tmp_path) if record.outcome == "failed"]
    assert sorted(map(marker_of, failed)) == [3, 4, 5, 6]
    assert {record.reason for record in failed} == {"server"}
    assert all(re.search(r"\bMB\b|\bbytes\b|\bMiB\b", record.detail or "") for record in failed), failed[0].detail
    assert peak < 1_000_000, "kB; 512 MB were unpacked, perhaps eight times over"


def status_of(pid: int) -> str:
    """What Linux tells about a process; elsewhere nothing."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


# Waits


async def _anthropic_wait(wire: Wire) -> None:
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "planted"}}
    names = {"anthropic_ratelimit_requests_remaining": "0", "anthropic_ratelimit_requests_reset": iso_later(1.0)}
    await failing(429, error, **names)(wire)


WAITS: dict[str, Callable[[Wire], Any]] = {
    "seconds": failing(429, Retry_After="1"),
    "fraction": failing(429, Retry_After="1.0"),
    "milliseconds": failing(429, retry_after_ms="1000"),
    "milliseconds before seconds": failing(429, retry_after_ms="1000", Retry_After="600"),
    "date": lambda wire: failing(429, Retry_After=later(1.0))(wire),
    "of 503": failing(503, Retry_After="1"),
    "openai requests": failing(429, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="1s"),
    "openai tokens": failing(
        429,
        x_ratelimit_remaining_requests="99",
        x_ratelimit_reset_requests="10m0s",
        x_ratelimit_remaining_tokens="0",
        x_ratelimit_reset_tokens="1000ms",
    ),
    "anthropic": _anthropic_wait,
}


@pytest.fixture(scope="module")
def waited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Form of the wish -> how long the client waited: all at once, each a run of its own."""

    def one(form: str) -> float:
        def plan(exchange: Exchange) -> str | None:
            return "wait" if exchange.marker is not None and exchange.of_marker == 0 else None

        folder = tmp_path_factory.mktemp("wait")
        with FaultyServer(plan, faults={"wait": WAITS[form]}) as server:
            generate(folder, server, records=1, concurrency=1)
            check_all_right(folder, server, 1)
            (limited,) = given_for(server, "wait")
            again = next(e for e in server.log if e.raw == limited.raw and e.nth == 1)
        return again.at - limited.at

    with ThreadPoolExecutor(len(WAITS)) as threads:
        return dict(zip(WAITS, threads.map(one, WAITS), strict=True))


@pytest.mark.parametrize("form", [*WAITS])
def test_the_wait_a_server_asks_for_is_kept(waited: dict[str, float], form: str) -> None:
    assert 0.95 <= waited[form] < 40


def test_a_limit_uses_up_none_of_a_calls_attempts(tmp_path: Path) -> None:
    plan: Plan = lambda e: "429, fraction" if e.marker is not None and e.nth < 3 else None  # noqa: E731
    with FaultyServer(plan) as server:
        generate(tmp_path, server, records=4, attempts=1)
        check_all_right(tmp_path, server, 4)


def test_a_limit_before_the_run_is_waited_for_too(tmp_path: Path) -> None:
    with FaultyServer(lambda e: "429, fraction" if e.marker is None and e.nth < 4 else None) as server:
        generate(tmp_path, server, records=2)
        check_all_right(tmp_path, server, 2)


@pytest.mark.parametrize("header", ["86400", "99999999999999999999"])
def test_a_run_that_is_told_to_wait_for_a_day_can_be_interrupted(tmp_path: Path, header: str) -> None:
    day = failing(429, Retry_After=header)
    with FaultyServer(lambda e: "day" if e.marker is not None else None, faults={"day": day}) as server:
        process = start(tmp_path, command(tmp_path, server.url, 4))
        deadline = time.monotonic() + 45
        while time.monotonic() < deadline and not given_for(server, "day"):
            time.sleep(0.02)
        time.sleep(0.7)  # long enough for a wait that is not kept
        process.send_signal(signal.SIGINT)
        done = finished(process)
        assert done.code == 130, done.err
        assert len(given_for(server, "day")) <= 4 * 2, "nobody is asked again within the day"


def test_waiting_in_our_own_queue_is_no_timeout(tmp_path: Path) -> None:
    with FaultyServer(latency_s=lambda _: 0.3) as server:
        generate(tmp_path, server, records=20, concurrency=2, timeout_s=STANDSTILL_S)  # 6 s in the queue, twice
        check_all_right(tmp_path, server, 20)
        assert len([e for e in server.log if e.marker is not None]) == 20 * CALLS
        assert server.most_in_flight <= 2


# The server goes and comes


def down_at(number: int, seconds: float) -> tuple[Plan, Callable[[FaultyServer], None]]:
    """A plan that takes the server down at its so-manieth request, once; and how the plan gets to know it."""
    servers: list[FaultyServer] = []

    def plan(_: Exchange) -> str | None:
        if servers and len(servers[0].log) >= number:
            servers.pop().down_for(seconds)
        return None

    return plan, servers.append


@pytest.mark.parametrize("seconds", [0.0, 2.5], ids=["restarted", "down for a while"])
def test_a_server_that_goes_down_and_comes_back_costs_no_record(tmp_path: Path, seconds: float) -> None:
    plan, know = down_at(60, seconds)
    with FaultyServer(plan, latency_s=lambda _: 0.01) as server:
        know(server)
        generate(tmp_path, server, records=60)
        check_all_right(tmp_path, server, 60)


def test_an_outage_longer_than_a_calls_attempts_pauses_the_run_and_says_so(tmp_path: Path) -> None:
    plan, know = down_at(60, 2.0)
    watch = Watch()
    with FaultyServer(plan, latency_s=lambda _: 0.01) as server:
        know(server)
        generate(tmp_path, server, records=60, attempts=2, observer=watch)
        check_all_right(tmp_path, server, 60)
        assert any(f"127.0.0.1:{server.port}" in notice for notice in watch.job.notices), watch.job.notices


# Of what hangs, a call that was sent before the endpoint is paused may be sent once more in these 8 s, not twice.
@pytest.mark.parametrize(("fault", "seconds", "attempts"), [("503, bare", 0.9, 2), ("hung", 8.0, 3), ("page", 0.9, 2)])
def test_a_server_that_is_there_but_answers_nobody_for_a_while_burns_no_record(
    tmp_path: Path, fault: str, seconds: float, attempts: int
) -> None:
    sick_until: list[float] = []

    def plan(exchange: Exchange) -> str | None:
        if len(server.log) >= 60 and not sick_until:
            sick_until.append(time.monotonic() + seconds)
        return fault if sick_until and time.monotonic() < sick_until[0] else None

    watch = Watch()
    with FaultyServer(plan, latency_s=lambda _: 0.01, faults={"503, bare": failing(503)}) as server:
        generate(tmp_path, server, records=60, attempts=attempts, timeout_s=STANDSTILL_S, observer=watch)
        check_all_right(tmp_path, server, 60)
        assert len(given_for(server, fault)) < 100, "a paused endpoint is probed now and then"
        assert any(f"127.0.0.1:{server.port}" in notice for notice in watch.job.notices), watch.job.notices


def test_a_host_that_nobody_knows_is_named_in_one_line(tmp_path: Path) -> None:
    words = command(tmp_path, "http://no-such-host.invalid:8000/v1", 3)
    done = finished(start_with(tmp_path, words, RES_OPTIONS="timeout:1 attempts:1"))
    assert done.code in (1, 2)
    (said,) = [line for line in done.err.splitlines() if line.startswith("rlaif: ")]
    assert "no-such-host.invalid" in said
    assert "cannot be reached" in said
    assert not (tmp_path / "runs/chaos/settings.yaml").exists(), "a start that fails does not use up the name"


def start_with(folder: Path, words: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rlaif", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "100"} | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# Keys


OLD, NEW = "sk-old-0123456789", "sk-new-0123456789"


def test_a_key_that_expires_stops_the_run_once_and_a_new_one_goes_on_without_asking_twice(tmp_path: Path) -> None:
    def plan(_: Exchange) -> str | None:
        if len(server.log) >= 100:
            server.keys = {NEW}
        return None

    with FaultyServer(plan, keys={OLD}, latency_s=lambda _: 0.01) as server:
        with pytest.raises(ProviderError, match="the key in CHAOS_KEY was refused") as stopped:
            generate(tmp_path, server, records=60, environment={"CHAOS_KEY": OLD}, api_key_env="CHAOS_KEY")
        assert stopped.value.kind == "auth"
        assert OLD not in str(stopped.value)
        assert len(given_for(server, "401")) <= 2 * 16, "those in flight and on their way, no more"
        generate(tmp_path, server, records=60, environment={"CHAOS_KEY": NEW}, api_key_env="CHAOS_KEY")
        check_all_right(tmp_path, server, 60)


def test_on_the_command_line_an_expired_key_is_one_line_and_the_way_on(tmp_path: Path) -> None:
    def plan(_: Exchange) -> str | None:
        if len(server.log) >= 40:
            server.keys = {NEW}
        return None

    with FaultyServer(plan, keys={OLD}, latency_s=lambda _: 0.01) as server:
        words = command(tmp_path, server.url, 30, api_key_env="CHAOS_KEY")
        done = finished(start_with(tmp_path, words, CHAOS_KEY=OLD))
    assert done.code == 1
    assert done.err.count("was refused") == 1
    assert "run the same command again to go on" in done.err
    assert OLD not in done.err + done.out


# What fails for good


def test_rows_that_fail_for_good_are_listed_and_retry_asks_only_for_those(tmp_path: Path) -> None:
    records = 100
    sick = {marker for marker in range(records) if chance("sick", marker) < 0.05}
    assert 3 <= len(sick) <= 8
    healed: list[bool] = []
    with FaultyServer(lambda e: "500" if e.marker in sick and not healed else None) as server:
        words = command(tmp_path, server.url, records, attempts=2)
        done = finished(start(tmp_path, words))
        assert done.code == 1
        kept = {marker_of(record): record for record in records_of(tmp_path)}
        assert sorted(kept) == list(range(records)), "none is dropped without a word"
        assert {marker for marker, record in kept.items() if record.outcome == "failed"} == sick
        for marker, record in kept.items():
            if marker in sick:
                assert (record.reason, record.stage) == ("server", "sample")
                assert "planted 500" in (record.detail or "")
                assert record.id in done.out, "each failed record is listed"
            else:
                check_own_answers(record)
        assert done.out.count("planted 500") >= 1, "with its reason"
        assert "rlaif retry chaos" in done.out
        assert len(given_for(server, "500")) == len(sick) * 2 * 2, "two samples, two attempts each"

        before = len(server.log)
        again = finished(start(tmp_path, ["retry", "chaos"]))
        assert again.code == 1
        assert {e.marker for e in server.log[before:]} - {None} == sick

        healed.append(True)
        before = len(server.log)
        mended = finished(start(tmp_path, ["retry", "chaos"]))
        assert mended.code == 0, mended.err
        assert {e.marker for e in server.log[before:]} - {None} == sick
        check_all_right(tmp_path, server, records)


def test_a_request_that_will_never_be_taken_is_asked_once(tmp_path: Path) -> None:
    filtered = failing(400, openai_error("The response was filtered", "content_filter"))
    with FaultyServer(lambda e: "filtered" if e.marker in (2, 9) else None, faults={"filtered": filtered}) as server:
        result = generate(tmp_path, server)
        assert result.failed == 2
        assert len(given_for(server, "filtered")) == 2 * 2
        check_nothing_paid_twice(server)
    failed = [record for record in records_of(tmp_path) if record.outcome == "failed"]
    assert {(marker_of(record), record.reason) for record in failed} == {(2, "content_filter"), (9, "content_filter")}


# Replies that are well-formed and lack something


def _lacks_logprobs(form: str) -> Callable[[Wire], Any]:
    async def reply(wire: Wire) -> None:
        body = json.loads(wire.exchange.right_answer())
        choice = body["choices"][0]
        top: list[Any] = []
        choice["logprobs"] = {"null": None, "empty": {"content": []}, "no top": choice["logprobs"]}[form]
        if form == "no top":
            choice["logprobs"]["content"][0]["top_logprobs"] = top
        await wire.reply(200, body)

    return reply


@pytest.mark.parametrize("form", ["null", "empty", "no top"])
def test_log_probabilities_that_are_missing_now_and_then_make_no_verdict_up(tmp_path: Path, form: str) -> None:
    def plan(exchange: Exchange) -> str | None:
        return "lacking" if exchange.judging and exchange.marker in lacking else None

    lacking = {1, 5, 6}
    with FaultyServer(plan, faults={"lacking": _lacks_logprobs(form)}) as server:
        generate(tmp_path, server)
        asked = Counter(exchange.raw for exchange in server.log if exchange.fault == "lacking")
        assert len(asked) == 6
        assert len(server.log) < 100
    kept = records_of(tmp_path)
    assert Counter(record.outcome for record in kept) == {"ok": 12}
    for record in kept:
        lost = marker_of(record) in lacking
        check_own_answers(record, judged=not lost)
        verdict = record.verdicts[0]
        assert not lost or verdict.p_first is None, "one letter without its odds is no probability"
        assert not lost or verdict.outcome != "ok"


@pytest.mark.parametrize("content", ["null", "absent", "empty"])
def test_an_answer_without_content_is_never_a_text(tmp_path: Path, content: str) -> None:
    async def empty(wire: Wire) -> None:
        body = chat_completion(None if content == "null" else "")
        if content == "absent":
            del body["choices"][0]["message"]["content"]
        await wire.reply(200, body)

    nothing = {4, 7}
    plan: Plan = lambda e: "empty" if e.marker in nothing and not e.judging else None  # noqa: E731
    with FaultyServer(plan, faults={"empty": empty}) as server:
        generate(tmp_path, server)
    kept = records_of(tmp_path)
    assert sorted(map(marker_of, kept)) == list(range(12))
    for record in kept:
        if marker_of(record) not in nothing:
            check_own_answers(record)
            continue
        assert {response.text for response in record.responses} <= {""}
        assert not record.verdicts, "there is nothing to compare"


# Anthropic's API


@pytest.mark.parametrize("name", ["429, anthropic", "529", "cut mid-body", "page as JSON", "bad UTF-8"])
def test_the_other_api_loses_nothing_either(tmp_path: Path, name: str) -> None:
    with FaultyServer(at_first([name], share=0.5)) as server:
        generate(tmp_path, server, provider="anthropic")
        assert len(given_for(server, name)) > 3
        check_nothing_paid_twice(server)
        given = {answer_to(e.marker, e.raw) for e in server.log if e.answered and e.marker is not None}
    kept = records_of(tmp_path)
    assert Counter(record.outcome for record in kept) == {"ok": 12}
    for record in kept:
        assert record.responses
        for response in record.responses:
            assert response.text in given
            assert f"[[q{marker_of(record)}:" in response.text


def test_no_start_is_tried_where_the_first_call_meets_a_page(tmp_path: Path) -> None:
    with (
        FaultyServer(lambda _: "page") as server,
        pytest.raises(ConfigError, match=r"the reply is not what this API promises .*Sign in"),
    ):
        generate(tmp_path, server)
    assert math.isclose(len(server.log), 2, abs_tol=1), "somebody waits: a few attempts"
