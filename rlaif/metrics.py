"""A run's counts for Prometheus: read from the job when somebody asks, so that the calls pay for none of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rlaif.errors import ConfigError
from rlaif.job import Job
from rlaif.llm import Tally
from rlaif.version import __version__

LOOPBACK = "127.0.0.1"
# Seconds: from a cache hit at a gateway to a reasoning model behind a queue.
BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 600.0)


@contextmanager
def metrics_server(job: Job, port: int, address: str = LOOPBACK) -> Iterator[int]:
    """Answers GET /metrics at `address` while it is open, and gives the port, which is a free one for 0.

    Raises ConfigError where the port cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(JobCollector(job))
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise ConfigError(
            f"--metrics-port {port}: {address} cannot be served there ({error.strerror or error}); "
            "choose another, or 0 for a free one"
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Latency:
    """Seconds of the calls sent, counted by the first of BOUNDS that is not below."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus has them."""
        totals = accumulate(list(self.counts))
        return list(zip((*map(floatToGoString, BOUNDS), "+Inf"), totals, strict=True))


class JobCollector(Collector):
    """What `job` has come to at this moment. Takes the models' latencies from now on."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._latencies = {model.name: Latency() for model in job.asked}
        for model in job.asked:
            model.observe = self._latencies[model.name].observe

    def collect(self) -> Iterable[Metric]:
        """Called from the server's threads; what grows meanwhile is copied first."""
        yield self._run()
        yield from self._calls(sorted(self._job.tallies.items()))
        yield from self._models()
        yield from self._funnel()

    def _run(self) -> Metric:
        run = GaugeMetricFamily("rlaif_run", "The run that is being served.", labels=("run", "version"))
        run.add_metric((self._job.folder.name, __version__), 1)
        return run

    def _calls(self, tallies: list[tuple[tuple[str, str], Tally]]) -> Iterator[Metric]:
        where = ("stage", "model")
        calls = CounterMetricFamily(
            "rlaif_calls",
            "Requests: sent (with those asked again), of them retried, failed for good; answered from the journal.",
            labels=(*where, "outcome"),
        )
        tokens = CounterMetricFamily(
            "rlaif_tokens",
            "Tokens of the calls sent, as providers count them; cached is a share of prompt.",
            labels=(*where, "kind"),
        )
        cost = CounterMetricFamily(
            "rlaif_cost_usd", "US dollars of the calls sent; nothing where the price is not known.", labels=where
        )
        for place, tally in tallies:
            for outcome in ("sent", "failed", "retried", "from_journal"):
                calls.add_metric((*place, outcome), getattr(tally, outcome))
            for kind in ("prompt", "cached", "completion"):
                tokens.add_metric((*place, kind), getattr(tally, f"{kind}_tokens"))
            usd = self._job.cost_usd(place[1], tally)
            if usd is not None:
                cost.add_metric(place, usd)
        yield from (calls, tokens, cost)

    def _models(self) -> Iterator[Metric]:
        latency = HistogramMetricFamily(
            "rlaif_call_seconds",
            "From sending a request to its whole answer, without our own queue.",
            labels=("model",),
        )
        where = ("model", "endpoint")
        in_flight = GaugeMetricFamily("rlaif_calls_in_flight", "Requests at an endpoint now.", labels=where)
        limit = GaugeMetricFamily("rlaif_calls_limit", "Requests that it is given at once, at most.", labels=where)
        limited = CounterMetricFamily("rlaif_rate_limited", "Its replies that said 429.", labels=where)
        broken = GaugeMetricFamily("rlaif_endpoint_broken", "1: left alone until it answers again.", labels=where)
        for model in self._job.asked:
            seen = self._latencies[model.name]
            latency.add_metric((model.name,), seen.buckets(), seen.sum_s)
            for lane in model.lanes.all:
                place = (model.name, lane.name)
                in_flight.add_metric(place, lane.in_flight)
                limit.add_metric(place, int(lane.throttle.limit))
                limited.add_metric(place, lane.refused)
                broken.add_metric(place, lane.broken is not None)
        yield from (latency, in_flight, limit, limited, broken)

    def _funnel(self) -> Iterator[Metric]:
        """Gauges: a pass that is repeated counts its records again, from below."""
        progress = self._job.progress
        ended = GaugeMetricFamily("rlaif_records", "Records that ended in this invocation.", labels=("outcome",))
        for outcome in ("ok", "dropped", "failed"):
            ended.add_metric((outcome,), progress.outcomes[outcome])
        inside = GaugeMetricFamily("rlaif_records_in_stage", "Records in a stage now.", labels=("stage",))
        through = GaugeMetricFamily("rlaif_records_through_stage", "Records that left a stage.", labels=("stage",))
        for stage in sorted(progress.in_stage.copy()):
            inside.add_metric((stage,), progress.in_stage[stage])
            through.add_metric((stage,), progress.through_stage[stage])
        yield from (ended, inside, through)
        yield GaugeMetricFamily("rlaif_records_done", "Records in finished parts from before.", progress.skipped)
        yield GaugeMetricFamily("rlaif_records_pending", "Records that wait for the next pass.", progress.pending)
        yield GaugeMetricFamily("rlaif_passes", "Passes over the prompts so far.", progress.passes)
        if self._job.total is not None:
            yield GaugeMetricFamily("rlaif_records_expected", "Prompts of the run.", self._job.total)
