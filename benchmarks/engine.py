"""What the engine itself costs: calls a second on one core, memory as runs grow, time to the first request.

    python benchmarks/engine.py [--records 5000] [--growth 10]

Every run is a process of its own, held to one core. The scripted backend answers at once, so what is
measured is ours: templates, keys, journal, records, parts. Four calls a record, journal on. The
reference is the same number of hash + zstd + SQLite inserts in a plain loop, in the same process:
these machines are noisy, so read the ratio.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from hashlib import blake2b
from pathlib import Path

from ours import timed_runs
from raw import rss_mb

PIPELINE = """
name: four-calls
models:
  policy: {provider: scripted, script: {words: 100}}
  judge: {provider: scripted}
stages:
  - sample: {n: 2}
  - judge
export: {pairs: [best_vs_worst]}
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--records", type=int, default=5000)
    arguments.add_argument("--growth", type=int, default=10, help="how many times larger the second run is")
    arguments.add_argument("--child", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        print(json.dumps(one_run(Path(given.child), given.records)))
        return
    small, large = (in_child(records) for records in (given.records, given.records * given.growth))
    for run in (small, large):
        print(
            f"{run['records']:>9,} records  {run['calls']:>9,} calls  {run['calls_per_s']:>7,.0f} calls/s"
            f"  {run['ratio']:.2f} of the reference  peak {run['rss_mb']:.0f} MB"
            f"  journal {run['journal_bytes']:.0f} bytes a call"
        )
    print(f"memory: {given.growth} times the records, {large['rss_mb'] / small['rss_mb']:.2f} times the peak")
    helps = [seconds([sys.executable, "-m", "rlaif", "--help"]) for _ in range(5)]
    print(f"rlaif --help: {sorted(helps)[2]:.2f} s (median of 5)")
    firsts = [first_request() for _ in range(5)]
    print(f"process start to first request: {sorted(firsts)[2]:.2f} s (median of 5)")


def in_child(records: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", folder, "--records", str(records)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def one_run(folder: Path, records: int) -> dict[str, float]:
    """One generate job on one core; calls/s counts the time between the first and the last record."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    (folder / "pipeline.yaml").write_text(PIPELINE)
    with (folder / "prompts.jsonl").open("w") as file:
        for i in range(records):
            file.write(json.dumps({"prompt": f"Question {i}: how do I store household chemicals safely?"}) + "\n")
    from rlaif import generate

    with timed_runs() as span:
        result = generate(
            str(folder / "pipeline.yaml"), prompts=str(folder / "prompts.jsonl"), runs_dir=folder / "runs", run="bench"
        )
    peak_mb = rss_mb()
    calls = result.summary["calls"]["sent"]
    reference_s = reference(folder / "reference.sqlite", calls)
    return {
        "records": records,
        "calls": calls,
        "calls_per_s": calls / span.wall_s,
        "ratio": reference_s / span.wall_s,
        "rss_mb": peak_mb,
        "journal_bytes": (folder / "runs" / "calls.sqlite").stat().st_size / calls,
    }


def reference(path: Path, calls: int) -> float:
    """Seconds for the least any journaled call costs: a hash, a compression and an insert."""
    import zstandard

    compress = zstandard.ZstdCompressor(level=3).compress
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, key BLOB UNIQUE, body BLOB)")
    start = time.perf_counter()
    for i in range(calls):
        text = f'{{"text":"answer {i} {"word " * 100}"}}'.encode()
        row = (blake2b(text, digest_size=16).digest(), compress(text))
        connection.execute("INSERT INTO calls (key, body) VALUES (?, ?)", row)
        if i % 64 == 63:
            connection.commit()
    connection.commit()
    return time.perf_counter() - start


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def first_request() -> float:
    """Seconds from starting the command until its first request reaches a server of ours."""
    arrived = threading.Event()

    class Server(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.set()
            self.send_error(400, "enough")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server, tempfile.TemporaryDirectory() as folder:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1#m"
        command = [sys.executable, "-m", "rlaif", "generate", "--policy", url, "--judge", url, "--runs-dir", folder]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        arrived.wait(60)
        took = time.perf_counter() - start
        process.wait()
        server.shutdown()
    return took


if __name__ == "__main__":
    main()
