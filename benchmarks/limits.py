"""Rate limits: how much of a token bucket's rate is reached, for each way a 429 tells its wait?

    python benchmarks/limits.py [--rate 200] [--seconds 30]

The bucket lets `rate` requests a second through and `burst` at once; the client may have far more in
flight and has to find out. The share is of the good replies, less the burst, per second from the first
request to the last: finding out is in it. `refused` are the 429s on the way.
"""

from __future__ import annotations

import argparse
import json
import tempfile

from rig import in_python, mock

LATENCY_MS = 50.0
HINTS = ("none", "exact", "rounded", "headers")


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--rate", type=float, default=200.0, help="requests a second")
    arguments.add_argument("--burst", type=float, default=20.0)
    arguments.add_argument("--seconds", type=float, default=30.0, help="of work at the bucket's rate")
    arguments.add_argument("--in-flight", type=int, default=256)
    arguments.add_argument("--hints", default=",".join(HINTS))
    arguments.add_argument("--set", action="append", default=[], help="a setting of our pipeline, KEY=VALUE")
    given = arguments.parse_args()
    print(json.dumps({hint: one(hint, given) for hint in given.hints.split(",")}))


def one(hint: str, given: argparse.Namespace) -> dict[str, float]:
    rows = int(given.rate * given.seconds)
    with (
        mock(latency_ms=LATENCY_MS, rate=given.rate, burst=given.burst, hint=hint) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        run = in_python(
            "ours.py", "--url", server.url, "--rows", rows, "--in-flight", given.in_flight, "--folder", folder,
            *(f"--set={setting}" for setting in given.set), timeout_s=10 * given.seconds + 60,
        )  # fmt: skip
        stats = server.stats()
    took_s = stats["last_at"] - stats["first_at"]
    good, refused = stats["ended"].get("good", 0), stats["ended"].get("429", 0)
    result = {
        "share": round((good - given.burst) / took_s / given.rate, 3),
        "good_per_s": round(good / took_s, 1),
        "refused": refused,
        "lost": run.report["lost"],
    }
    print(
        f"429 with {hint:<8} {result['good_per_s']:>6,.0f} good replies/s of {given.rate:,.0f}: "
        f"{result['share']:.1%}, {refused:,} refused, {result['lost']} rows lost",
        flush=True,
    )
    return result


if __name__ == "__main__":
    main()
