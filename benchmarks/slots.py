"""Is a server that computes few requests together kept full, when latencies have a long tail?

    python benchmarks/slots.py [--slots 64,1000]

Latencies are log-normal, median 50 ms, capped at 5 s; each record makes 6 calls, each after the one
before. No client can be faster than max(all latencies / slots, the longest chain of one record): the
figure is the wall time over that bound, wall time being from the first prompt read to the last part written. With
1,000 slots the server answers more calls a second than one core can make; then the client's CPU
is the limit, and the share of it that was used says so.
"""

from __future__ import annotations

import argparse
import json
import tempfile

from rig import in_python, mock

MEDIAN_MS, CAP_MS, SIGMA = 50.0, 5000.0, 1.5
CALLS = 6
# The server must never wait for us: some requests more than slots, so that its queue is not empty.
SPARE = 1.25
# About how long one measurement takes at the bound. Some of the very last calls take seconds, which nobody can
# foresee: 3-4 s of idle slots at the end must weigh little.
SECONDS = 180
MEAN_S = 0.15  # of these latencies


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--slots", default="64,1000")
    arguments.add_argument("--seconds", type=float, default=SECONDS, help="of work at the bound: sets the records")
    arguments.add_argument("--set", action="append", default=[], help="a setting of our pipeline, KEY=VALUE")
    given = arguments.parse_args()
    result = {str(slots): one(slots, given.seconds, given.set) for slots in map(int, given.slots.split(","))}
    print(json.dumps(result))


def one(slots: int, seconds: float, settings: list[str]) -> dict[str, float]:
    rows = int(seconds * slots / MEAN_S / CALLS)
    with (
        mock(median_ms=MEDIAN_MS, cap_ms=CAP_MS, sigma=SIGMA, slots=slots) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        run = in_python(
            "ours.py", "--url", server.url, "--rows", rows, "--in-flight", int(slots * SPARE), "--folder", folder,
            "--revisions", CALLS - 1, *(f"--set={setting}" for setting in settings), timeout_s=10 * seconds + 60,
        )  # fmt: skip
        stats = server.stats()
    bound_s = max(stats["work_s"] / slots, stats["longest_chain_s"])
    wall_s = run.report["span_s"]
    print(
        f"{slots:>5} slots, {rows:,} records: {wall_s:.1f} s, bound {bound_s:.1f} s "
        f"(work {stats['work_s'] / slots:.1f} s, longest chain {stats['longest_chain_s']:.1f} s), "
        f"{wall_s / bound_s:.3f} of it; {run.report['span_cpu_s'] / wall_s:.0%} of our core",
        flush=True,
    )
    return {
        "wall_over_bound": round(wall_s / bound_s, 3),
        "bound_s": round(bound_s, 2),
        "wall_s": round(wall_s, 2),
        "calls_per_s": round(stats["requests"] / wall_s, 1),
        "core_used": round(run.report["span_cpu_s"] / wall_s, 3),
        "lost": run.report["lost"],
    }


if __name__ == "__main__":
    main()
