"""`make bench-quick`: our engine beside a raw aiohttp loop, one core each, within a minute.

    python benchmarks/quick.py [--pairs 3] [--rows 10000] [--in-flight 256]

The mock, on the other core, answers at once. Both ask the same questions, one after the other, in pairs:
these machines are noisy, so read the ratio, which is the median of the pairs'. The raw loop's span is its
calls; ours is from the first prompt read to the last part written, journal on (`raw.py` and `ours.py`
say it exactly). Every reply must carry the marker of its own prompt; if one does not, this exits 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from statistics import median

from rig import Measured, MockServer, in_python, middle, mock


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--pairs", type=int, default=3)
    arguments.add_argument("--rows", type=int, default=10_000)
    arguments.add_argument("--in-flight", type=int, default=256)
    arguments.add_argument("--set", action="append", default=[], help="a setting of our pipeline, KEY=VALUE")
    given = arguments.parse_args()
    pairs = []
    with mock() as server:
        for number in range(given.pairs):
            # Whoever comes second meets a warmer or a hotter machine: they take turns.
            ours_first = number % 2 == 1
            first = one(server, "ours.py" if ours_first else "raw.py", given)
            second = one(server, "raw.py" if ours_first else "ours.py", given)
            raw, ours = (second, first) if ours_first else (first, second)
            pairs.append((raw, ours))
            print(f"pair {number + 1}: raw {line(raw)}   ours {line(ours)}", flush=True)
    result = summary(pairs)
    ratios = [rate(ours) / rate(raw) for raw, ours in pairs]
    print(f"ours / raw, calls a second: {middle(ratios)}")
    print(json.dumps(result))
    mixed_up = sum(run.report["lost"] + run.report["wrong"] for pair in pairs for run in pair)
    if mixed_up:
        sys.exit(f"{mixed_up} replies are missing or belong to another prompt")


def one(server: MockServer, script: str, given: argparse.Namespace) -> Measured:
    server.reset()
    settings = [f"--set={setting}" for setting in given.set] if script == "ours.py" else []
    with tempfile.TemporaryDirectory() as folder:
        run = in_python(
            script, "--url", server.url, "--rows", given.rows, "--in-flight", given.in_flight, "--folder", folder,
            *settings, timeout_s=120,
        )  # fmt: skip
    if server.stats()["ended"].get("good", 0) < given.rows:
        sys.exit(f"{script} reports {given.rows} rows; the mock answered fewer")
    return run


def rate(run: Measured) -> float:
    calls_per_s: float = run.report["rows"] / run.report["span_s"]
    return calls_per_s


def cpu_per_1000(run: Measured) -> float:
    cpu_s: float = 1000 * run.report["span_cpu_s"] / run.report["rows"]
    return cpu_s


def line(run: Measured) -> str:
    return f"{rate(run):>6,.0f} calls/s, {cpu_per_1000(run):.3f} CPU-s per 1,000"


def summary(pairs: Sequence[tuple[Measured, Measured]]) -> dict[str, float]:
    """Medians. CPU and memory are ours: of the span, and of the whole process."""
    return {
        "calls_per_s": round(median(rate(ours) for _, ours in pairs), 1),
        "raw_calls_per_s": round(median(rate(raw) for raw, _ in pairs), 1),
        "ratio": round(median(rate(ours) / rate(raw) for raw, ours in pairs), 3),
        "cpu_s_per_1000": round(median(cpu_per_1000(ours) for _, ours in pairs), 3),
        "peak_rss_mb": round(median(ours.report["rss_mb"] for _, ours in pairs), 1),
    }


if __name__ == "__main__":
    main()
