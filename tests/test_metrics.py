"""A run's counts as Prometheus sees them, and the dashboard that shows them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

import rlaif
from rlaif.backends.scripted import ScriptedBackend
from rlaif.errors import ConfigError, ProviderError
from rlaif.job import Job
from rlaif.lanes import Lane, Lanes
from rlaif.llm import Tally
from rlaif.metrics import BOUNDS, JobCollector, Latency, metrics_server

DASHBOARD = Path(__file__).parents[1] / "docs" / "grafana.json"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
        text = reply.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def total(samples: Samples, name: str, **labels: str) -> float:
    return sum(v for (other, places), v in samples.items() if other == name and places >= frozenset(labels.items()))


class Watch:
    """An observer that scrapes a job at its end, as the last thing before the server goes."""

    def __init__(self) -> None:
        self.port = 0
        self.samples: Samples = {}

    @contextmanager
    def __call__(self, job: Job) -> Iterator[None]:
        with metrics_server(job, 0) as self.port:
            yield
            self.samples = scrape(self.port)


def run(tmp_path: Path, observer: Watch, **options: object) -> rlaif.Result:
    model = "{provider: scripted, script: {transient_error_rate: 0.1, refusal_rate: 0.02}}"
    return rlaif.generate(
        "small",
        runs_dir=tmp_path,
        run="r",
        limit=20,
        set=[f"models.policy={model}", f"models.judge={model}"],
        observer=observer,
        **options,  # type: ignore[arg-type] # any of its options
    )


def test_what_is_scraped_at_the_end_is_what_the_summary_says(tmp_path: Path) -> None:
    watch = Watch()
    summary = run(tmp_path, watch).summary
    samples = watch.samples
    assert summary["calls"]["sent"] > 100
    for stage in summary["stages"]:
        where = {"stage": stage["stage"], "model": stage["model"]}
        for outcome in ("sent", "failed", "retried", "from_journal"):
            assert value(samples, "rlaif_calls_total", **where, outcome=outcome) == stage[outcome]
        for kind in ("prompt", "cached", "completion"):
            assert value(samples, "rlaif_tokens_total", **where, kind=kind) == stage[f"{kind}_tokens"]
    assert total(samples, "rlaif_calls_total", outcome="retried") > 0
    for outcome in ("ok", "dropped", "failed"):
        assert value(samples, "rlaif_records", outcome=outcome) == summary["outcomes"].get(outcome, 0)
    assert value(samples, "rlaif_records_expected") == 20
    assert value(samples, "rlaif_records_through_stage", stage="sample") == 20
    assert total(samples, "rlaif_records_in_stage") == total(samples, "rlaif_calls_in_flight") == 0
    assert value(samples, "rlaif_run", run="r", version=rlaif.__version__) == 1


def test_every_answered_request_is_in_the_latency_histogram_once(tmp_path: Path) -> None:
    watch = Watch()
    summary = run(tmp_path, watch).summary
    answered = sum(s["sent"] - s["retried"] - s["failed"] for s in summary["stages"])
    assert total(watch.samples, "rlaif_call_seconds_count") == answered
    assert total(watch.samples, "rlaif_call_seconds_bucket", le="+Inf") == answered


def test_answers_from_the_journal_count_as_such_and_have_no_latency(tmp_path: Path) -> None:
    first = run(tmp_path, Watch()).summary
    watch = Watch()
    run(tmp_path, watch, rebuild=True)
    assert total(watch.samples, "rlaif_calls_total", outcome="sent") == 0
    journaled = sum(s["sent"] - s["retried"] for s in first["stages"] if s["stage"] != "preflight")
    assert total(watch.samples, "rlaif_calls_total", outcome="from_journal") == journaled
    assert total(watch.samples, "rlaif_call_seconds_count") == 0


def test_a_price_that_is_not_known_gives_no_cost_rather_than_none(tmp_path: Path) -> None:
    tallies = {("sample", "dear"): Tally(sent=1), ("sample", "new"): Tally(sent=1)}
    price = {"dear": 2.5}
    job = SimpleNamespace(tallies=tallies, asked=(), cost_usd=lambda model, _: price.get(model))
    collector = JobCollector(job)  # type: ignore[arg-type]
    cost = next(family for family in collector._calls(sorted(job.tallies.items())) if family.name == "rlaif_cost_usd")
    assert [(sample.labels["model"], sample.value) for sample in cost.samples] == [("dear", 2.5)]


def test_an_endpoint_shows_its_limit_its_429s_and_whether_it_is_left_alone() -> None:
    lane = Lane("host:8000/v1", lambda: ScriptedBackend(lambda _: "text"), most=64, in_flight=7)
    lane.slowed(ProviderError("rate_limit", "slower"), sent_at=1.0, now=2.0)
    lane.throttle.limit = 6.4
    lane.broken = ProviderError("server", "gone")
    model = SimpleNamespace(name="m", lanes=Lanes([lane], print), observe=None)
    collector = JobCollector(SimpleNamespace(asked=[model]))  # type: ignore[arg-type]
    shown = {family.name: [s.value for s in family.samples] for family in collector._models()}
    assert shown["rlaif_calls_in_flight"] == [7]
    assert shown["rlaif_calls_limit"] == [6]
    assert shown["rlaif_rate_limited"] == [1]
    assert shown["rlaif_endpoint_broken"] == [1]


def test_a_latency_is_counted_in_every_bucket_that_is_not_below_it() -> None:
    latency = Latency()
    for seconds in (0.01, 0.011, 30.0, 10_000.0):
        latency.observe(seconds)
    buckets = dict(latency.buckets())
    assert [buckets[le] for le in ("0.01", "0.025", "25.0", "50.0", "600.0", "+Inf")] == [1, 2, 2, 3, 3, 4]
    assert len(buckets) == len(BOUNDS) + 1
    assert latency.sum_s == pytest.approx(10_030.021)


def test_the_server_and_its_thread_go_with_the_run(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    watch = Watch()
    run(tmp_path, watch)
    assert not set(threading.enumerate()) - before
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", watch.port), timeout=5):
        pass


def test_it_is_served_on_the_loopback_only(tmp_path: Path) -> None:
    job = SimpleNamespace(tallies={}, asked=())
    with metrics_server(job, 0) as port, socket.socket() as other:  # type: ignore[arg-type]
        # Who listens on all addresses holds the port on every one of them.
        other.bind(("127.0.0.2", port))
        other.listen()


def test_a_port_that_is_taken_is_an_error_that_names_it(tmp_path: Path) -> None:
    job = SimpleNamespace(tallies={}, asked=())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = metrics_server(job, port)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=rf"--metrics-port {port}: .*choose another, or 0"):
            server.__enter__()


def test_the_command_says_where_the_metrics_are(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlaif", "generate", "small", "--policy", "scripted", "--judge", "scripted"]
    command += ["--limit", "4", "--runs-dir", str(tmp_path), "--metrics-port", "0"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert re.search(r"^metrics at http://127\.0\.0\.1:\d+/metrics$", done.stderr, re.MULTILINE)


def test_the_dashboard_asks_only_for_metrics_that_a_run_serves(tmp_path: Path) -> None:
    watch = Watch()
    run(tmp_path, watch)
    served = {name for name, _ in watch.samples}
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    queries += [variable["query"]["query"] for variable in board["templating"]["list"] if variable["type"] == "query"]
    named = {name for query in queries for name in re.findall(r"\b(?:rlaif|process)_\w+", query)}
    assert named <= served
    # The other way round: a metric that no panel shows is one that nobody looks at.
    assert {name for name in served if name.startswith("rlaif_")} - named <= {
        "rlaif_call_seconds_sum",
        "rlaif_call_seconds_count",
    }


def test_the_panels_of_the_dashboard_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 8
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(0 <= x < 24 for x, _ in cells)
        taken |= cells
