"""Slow answers, many at once: how much of concurrency / latency is reached at 500 ms and 1,000 in flight?

    python benchmarks/latency.py [--in-flight 1000] [--latency-ms 500]

Start and end are in it: rows are a multiple of what is in flight, so that no client could be faster
than rows / in flight rounds of the latency.
"""

from __future__ import annotations

import argparse
import json
import tempfile

from rig import in_python, mock

ROUNDS = 30


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--in-flight", type=int, default=1000)
    arguments.add_argument("--latency-ms", type=float, default=500.0)
    arguments.add_argument("--set", action="append", default=[], help="a setting of our pipeline, KEY=VALUE")
    given = arguments.parse_args()
    rows = ROUNDS * given.in_flight
    with mock(latency_ms=given.latency_ms) as server, tempfile.TemporaryDirectory() as folder:
        run = in_python(
            "ours.py", "--url", server.url, "--rows", rows, "--in-flight", given.in_flight, "--folder", folder,
            *(f"--set={setting}" for setting in given.set), timeout_s=300,
        )  # fmt: skip
        stats = server.stats()
    possible = given.in_flight / (given.latency_ms / 1000)
    result = {
        "share": round(rows / run.report["span_s"] / possible, 3),
        "calls_per_s": round(rows / run.report["span_s"], 1),
        "possible_per_s": possible,
        "max_in_flight": stats["max_in_flight"],
        "core_used": round(run.report["span_cpu_s"] / run.report["span_s"], 3),
        "peak_rss_mb": round(run.report["rss_mb"], 1),
        "lost": run.report["lost"],
    }
    print(f"{result['calls_per_s']:,.0f} calls/s of {possible:,.0f} possible: {result['share']:.1%}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
