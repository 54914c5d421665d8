"""Limits that hold, runs that go on after them, and what is said of the cost before, in and after a run."""

from __future__ import annotations

import itertools
import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import rlaif as package
from rlaif.budget import Budget
from rlaif.store import RunFolder, encode
from tests.cli.command import Command, Done, start, start_signalled
from tests.server import Body, Reply, Server, answer
from tests.test_job import served

POLICY = "{provider: scripted, model: big-policy, price: {input: 3, cached: 0.3, output: 15}"
JUDGE = "{provider: scripted, model: small-judge, price: {input: 0.2, output: 0.8}"
ROLES = ("policy", "judge")
OPTIONS = ["generate", "--set", "revise.rounds=1"]


def priced(script: str = "{}", *more: str) -> list[str]:
    models = [f"models.policy={POLICY}, script: {script}}}", f"models.judge={JUDGE}, script: {script}}}"]
    return [*OPTIONS, *(part for model in models for part in ("--set", model)), *more]


def answers(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "runs/calls.sqlite")) as kept:
        count: int = kept.execute("SELECT count(*) FROM calls").fetchone()[0]
    return count


def parts(runs: Path) -> list[bytes]:
    return [encode(record) for record in RunFolder(runs, "r").records()]


def run(rlaif: Command, *more: str, name: str = "r", limit: int = 20) -> Done:
    return rlaif(*priced(), "--limit", str(limit), "--run", name, *more)


def test_a_limit_on_cost_stops_the_run_below_it_and_a_higher_one_finishes_it(rlaif: Command) -> None:
    spent = []
    for limit in (0.03, 0.05, 0.07):
        stopped = run(rlaif, "--max-cost", str(limit), "--json")
        assert stopped.code == 3
        assert stopped.json["status"] == "stopped"
        assert stopped.json["stopped_by"].startswith("--max-cost")
        spent.append(stopped.json["ledger"]["cost_usd"])
        assert limit - 0.02 < spent[-1] <= limit  # the next call might have cost 0.02 USD
    assert spent == sorted(spent)
    done = run(rlaif, "--max-cost", "50", "--json")
    assert (done.code, done.json["status"], done.json["stopped_by"]) == (0, "done", None)
    assert done.json["ledger"]["sent"] == answers(rlaif.folder) + 2  # the models were met once; nothing was sent twice
    run(rlaif, "--runs-dir", "undisturbed")
    assert parts(rlaif.folder / "runs") == parts(rlaif.folder / "undisturbed")


def test_the_ending_says_which_limit_what_was_spent_and_how_to_go_on(rlaif: Command) -> None:
    done = run(rlaif, "--max-cost", "0.02", limit=40)
    assert done.code == 3
    assert "stopped: --max-cost 0.02 reached: 0.0" in done.out
    assert "calls sent in this run so far" in done.out
    assert "the same command with a higher limit goes on" in done.out
    assert " of 0.02 USD spent" in done.err


@pytest.mark.parametrize("most", [1, 2, 17, 60])
def test_a_limit_on_calls_is_reached_exactly_and_never_exceeded(rlaif: Command, most: int) -> None:
    done = run(rlaif, "--max-calls", str(most), "--json")
    assert done.code == 3
    assert done.json["ledger"]["sent"] == done.json["calls"]["sent"] == most
    assert answers(rlaif.folder) == max(0, most - 2)
    again = run(rlaif, "--max-calls", str(most), "--json")
    assert (again.code, again.json["calls"]["sent"]) == (3, 0)


def test_a_limit_on_time_lets_the_calls_in_flight_end_and_the_same_command_goes_on(
    rlaif: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = priced("{latency_ms: 20}", "--limit", "30", "--run", "r", "--set", "window=4", "--max-time", "1h", "--json")
    looks = itertools.count()
    with monkeypatch.context() as patched:  # an hour is over at the so-manieth look at the clock
        patched.setitem(Budget.__init__.__kwdefaults__, "clock", lambda: 0.0 if next(looks) < 50 else 3600.0)
        done = rlaif(*slow)
    assert (done.code, done.json["stopped_by"]) == (3, "--max-time reached: 3600 s")
    assert 20 < done.json["calls"]["sent"] == answers(rlaif.folder) + 2 < 60
    finished = rlaif(*slow)
    assert finished.code == 0
    assert finished.json["calls"]["from_journal"] == done.json["calls"]["sent"] - 2


@pytest.mark.timeout(300)
def test_a_killed_run_remembers_what_it_spent(tmp_path: Path) -> None:
    slow = priced("{latency_ms: 10}", "--limit", "60", "--run", "r", "--max-calls", "150", "--json")
    slow += ["--set", "window=4"]
    process = start_signalled(tmp_path, slow, signal.SIGKILL, at=80)
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
    before = answers(tmp_path)
    assert 0 < before < 148
    again = start(tmp_path, slow)
    out, err = again.communicate(timeout=100)
    assert again.returncode == 3, err
    stopped = json.loads(out)
    assert stopped["ledger"]["sent"] == 150
    assert stopped["calls"]["sent"] == 150 - before - 2
    assert answers(tmp_path) == 148


def test_answers_that_were_lost_count_as_spent_then_and_later(rlaif: Command) -> None:
    lossy = priced("{transient_error_rate: 0.3}", "--limit", "20", "--run", "r", "--json", "--max-cost")
    answered_usd = 0.0
    for limit in (0.05, 0.1):
        done = rlaif(*lossy, str(limit))
        assert done.code == 3
        assert done.json["ledger"]["cost_usd"] <= limit
        answered_usd += done.json["cost_usd"]
    assert done.json["ledger"]["cost_usd"] > 1.5 * answered_usd
    assert sum(line["failed"] for line in done.json["ledger"]["lines"]) > 10


def test_answers_that_were_lost_before_there_was_a_limit_count_under_it(rlaif: Command) -> None:
    lossy = priced("{transient_error_rate: 0.3}", "--limit", "20", "--run", "r", "--json")
    first = rlaif(*lossy, "--max-calls", "60")
    assert first.json["ledger"]["cost_usd"] > 1.5 * first.json["cost_usd"]
    spent = first.json["ledger"]["cost_usd"]
    then = rlaif(*lossy, "--max-cost", f"{spent / 2:.6f}")
    assert (then.code, then.json["ledger"]["sent"]) == (3, 60)


def test_an_unknown_price_is_refused_before_anything_is_sent(rlaif: Command) -> None:
    options = ["--policy", "http://127.0.0.1:9/v1#mine", "--judge", "scripted", "--run", "r", "--max-cost", "5"]
    for more in ([], ["--dry-run"]):
        done = rlaif("generate", *options, *more)
        assert done.code == 2
        assert "the price of mine is not known" in done.err
        assert "price: {input:" in done.err
    assert not (rlaif.folder / "runs/r/run.yaml").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-cost", "nan"], "--max-cost nan: give US dollars"),
        (["--max-cost", "-1"], "--max-cost -1: give US dollars"),
        (["--max-cost", "inf"], "--max-cost inf: give US dollars"),
        (["--max-cost", "five"], "'--max-cost': Input should be a valid number"),
        (["--max-calls", "0"], "--max-calls 0: give 1 or more"),
        (["--max-calls", "-3"], "--max-calls -3"),
        (["--max-time", "2 hours"], "--max-time '2 hours' is no time; write it like 2h"),
        (["--max-time", ""], "--max-time '' is no time"),
        (["--max-time", "-5s"], "--max-time '-5s' is no time"),
        (["--max-time", "0s"], "--max-time 0 s: give more than nothing"),
        (["--estimate", "0"], "--estimate 0"),
        (["--estimate", "3", "--dry-run"], "no --dry-run"),
        (["--set", "prices=nowhere.yaml"], "nowhere.yaml"),
        (["--set", "models.policy.price.input=-1"], "price"),
    ],
)
def test_nonsense_is_refused_with_one_clear_error(rlaif: Command, options: list[str], said: str) -> None:
    done = run(rlaif, *options)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) <= 4
    assert not (rlaif.folder / "runs").exists()


def test_a_dry_run_shows_calls_tokens_and_cost_by_stage_and_model_and_sends_nothing(rlaif: Command) -> None:
    done = run(rlaif, "--dry-run", limit=8)
    assert done.code == 0
    assert not (rlaif.folder / "runs/r").exists()
    rows = {line.split()[0]: line.split() for line in done.out.splitlines() if line.strip()}
    assert rows["sample"][1:3] == ["big-policy", "16"]
    assert rows["judge"][1] == "small-judge"
    assert int(rows["all"][1]) == sum(int(rows[stage][2]) for stage in ("sample", "revise", "judge"))
    assert "USD" in done.out
    estimate = run(rlaif, "--dry-run", "--json", limit=8).json["estimate"]
    assert 0 < estimate["cost_usd"]["low"] < estimate["cost_usd"]["high"]
    true = run(rlaif, "--json", limit=8).json["cost_usd"]
    assert true < estimate["cost_usd"]["high"]


def test_what_is_not_known_is_called_unknown_and_not_zero(rlaif: Command) -> None:
    options = ["--policy", "http://127.0.0.1:9/v1#mine", "--judge", "scripted", "--limit", "4", "--run", "r"]
    done = rlaif("generate", *options, "--dry-run")
    assert done.code == 0
    assert [line.split()[-1] for line in done.out.splitlines() if "mine " in line] == ["unknown", "unknown"]
    assert "unknown: the price of mine" in done.out
    assert rlaif("generate", *options, "--dry-run", "--json").json["estimate"]["cost_usd"] is None


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal_with_every_number_whole(rlaif: Command, columns: int) -> None:
    long = POLICY.replace("big-policy", "meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo") + "}"
    models = ["--set", f"models.policy={long}", "--judge", "scripted"]
    done = rlaif("generate", *models, "--run", "r", "--dry-run", columns=columns)
    assert max(map(len, done.out.splitlines())) <= columns
    assert "Meta-" in done.out
    (total,) = (line for line in done.out.splitlines() if line.strip().startswith("all"))
    assert "…" not in total
    assert total.count(" - ") == 3


def test_a_sample_runs_for_real_and_is_free_afterwards(rlaif: Command) -> None:
    first = run(rlaif, "--estimate", "5", "--json", limit=40)
    assert first.code == 0
    assert (first.json["records"], first.json["estimate"]["records"]) == (5, 35)
    said = first.json["estimate"]["cost_usd"]
    rest = run(rlaif, "--json", limit=40)
    assert rest.json["records"] == 40
    assert said["low"] < rest.json["cost_usd"] < said["high"]
    assert rest.json["ledger"]["sent"] == answers(rlaif.folder) + 2
    assert rest.json["ledger"]["cost_usd"] == pytest.approx(first.json["cost_usd"] + rest.json["cost_usd"])
    expected = sum(stage["calls"] for stage in first.json["estimate"]["stages"])
    assert expected == pytest.approx(rest.json["calls"]["sent"], rel=0.15)


def test_a_sample_of_a_run_that_is_further_says_what_is_left_of_it(rlaif: Command) -> None:
    def left(*options: str) -> int:
        done = run(rlaif, *options, "--estimate", "5", "--json", limit=40).json
        return sum(stage["calls"] for stage in done["estimate"]["stages"])

    everything = run(rlaif, "--json", "--dry-run", limit=40).json["estimate"]["stages"]
    run(rlaif, "--max-calls", "122", limit=40)
    assert left() == pytest.approx(sum(stage["calls"] for stage in everything) - 120, rel=0.15)
    run(rlaif, limit=40)
    assert left() == 0


def test_the_same_sample_again_sends_nothing_and_says_the_same(rlaif: Command) -> None:
    first = run(rlaif, "--estimate", "5", "--json", limit=40).json
    again = run(rlaif, "--estimate", "5", "--json", limit=40).json
    assert again["calls"]["sent"] == 0
    assert again["estimate"]["cost_usd"] == pytest.approx(first["estimate"]["cost_usd"])
    shown = run(rlaif, "--estimate", "5", limit=40)
    assert "what 35 other records will take" in shown.out
    assert "to go on: the same command without --estimate" in shown.out


def test_the_summary_has_the_cost_by_stage_the_ledger_and_the_prices(rlaif: Command) -> None:
    done = run(rlaif, "--json", limit=6).json
    stages = {stage["stage"]: stage for stage in done["stages"] if stage["stage"] != "preflight"}
    sample, judge = stages["sample"], stages["judge"]
    assert sample["cost_usd"] == pytest.approx(3e-6 * sample["prompt_tokens"] + 15e-6 * sample["completion_tokens"])
    assert judge["cost_usd"] == pytest.approx(0.2e-6 * judge["prompt_tokens"] + 0.8e-6 * judge["completion_tokens"])
    assert done["cost_usd"] == pytest.approx(sum(stage["cost_usd"] for stage in done["stages"]))
    assert done["ledger"]["cost_usd"] == pytest.approx(done["cost_usd"])
    assert {line["stage"] for line in done["ledger"]["lines"]} == {"preflight", *stages}
    assert done["prices"]["usd_per_million"]["big-policy"]["output"] == 15
    assert "2026-" in done["prices"]["updated"]
    again = run(rlaif, "--json", limit=6).json
    assert (again["cost_usd"], again["ledger"]) == (0.0, done["ledger"])


def test_a_file_of_prices_is_read_and_neither_it_nor_a_price_makes_another_run(rlaif: Command) -> None:
    file = "hosts: {'127.0.0.1:9': {models: {mine: {input: 1, output: 2}}}}"
    rlaif.write("mine.yaml", file)
    options = ["--policy", "http://127.0.0.1:9/v1#mine", "--judge", "scripted", "--limit", "4", "--run", "q"]
    known = rlaif("generate", *options, "--dry-run", "--json", "--set", "prices=mine.yaml").json
    assert known["estimate"]["cost_usd"]["high"] > 0
    assert known["prices"]["file"] == "mine.yaml"
    assert run(rlaif, limit=4).code == 0
    dearer = run(rlaif, "--set", "models.policy.price.input=30", "--set", "prices=mine.yaml", "--json", limit=4)
    assert (dearer.code, dearer.json["calls"]["sent"]) == (0, 0)


def test_models_that_cost_nothing_have_no_line_about_it(rlaif: Command) -> None:
    done = rlaif.generate()
    assert "USD" not in done.out + done.err
    assert "cost" not in done.out


def test_the_function_takes_the_same_limits(tmp_path: Path) -> None:
    options: dict[str, Any] = {"policy": "scripted", "judge": "scripted", "limit": 10, "runs_dir": tmp_path, "run": "r"}
    stopped = package.generate("small", max_calls=9, max_time="1h", max_cost=1.0, **options)
    assert (stopped.status, stopped.summary["ledger"]["sent"]) == ("stopped", 9)
    sampled = package.generate("small", estimate=3, **options)
    assert sampled.estimate is not None
    assert sampled.estimate.records == 7
    assert package.generate("small", dry_run=True, **options).estimate is not None


def test_a_retry_keeps_to_the_limits_of_the_run_too(rlaif: Command) -> None:
    failing = priced("{error_rate: 0.3}", "--limit", "12", "--run", "r", "--json")
    before = rlaif(*failing)
    assert before.code == 1
    sent = before.json["ledger"]["sent"]
    stopped = rlaif("retry", "r", "--max-calls", str(sent + 2), "--json")
    assert (stopped.code, stopped.json["calls"]["sent"]) == (3, 2)
    assert stopped.json["ledger"]["sent"] == sent + 2
    assert rlaif("retry", "r", "--max-time", "soon").code == 2


def test_what_a_server_counted_is_what_the_run_says_it_spent(tmp_path: Path) -> None:
    failed = 0

    def sometimes(body: Body) -> Reply:
        nonlocal failed
        if len(server.requests) % 7 == 0:
            failed += 1
            return 500, "busy", {"retry-after": "0"}
        return answer(body)

    with served(Server(sometimes)) as server:
        price = "{input: 3, cached: 0.3, output: 15}"
        model = f"{{provider: openai, model: m, base_url: '{server.url}', price: {price}}}"
        result = package.generate(
            "small",
            limit=30,
            runs_dir=tmp_path,
            run="r",
            set=[f"models.{role}={model}" for role in ROLES],
            max_cost=0.015,
        )
    assert result.status == "stopped"
    ledger = result.summary["ledger"]
    assert ledger["sent"] == len(server.requests)
    # 7 tokens in, of them 2 cached, and 3 out.
    bill = (len(server.requests) - failed) * (5 * 3 + 2 * 0.3 + 3 * 15) / 1e6
    assert ledger["cost_usd"] == pytest.approx(bill)
    assert 0.003 < bill <= 0.015
