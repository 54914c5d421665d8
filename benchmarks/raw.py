"""The reference: the least that a plain aiohttp loop does for the same calls; nothing is kept or tried again.

    python benchmarks/raw.py --url http://127.0.0.1:8100/v1 --rows 10000 --in-flight 256

`--in-flight` workers share one counter. The span begins after the imports and a warm-up of 50 calls.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import Iterator

import aiohttp
import uvloop
import workload


async def drive(url: str, rows: int, in_flight: int) -> dict[str, float]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=600)
    headers = {"Authorization": "Bearer none"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        await _all(session, url, range(min(in_flight, 50)), in_flight)
        cpu_s, start = cpu_seconds(), time.perf_counter()
        wrong = await _all(session, url, range(rows), in_flight)
        span_s, span_cpu_s = time.perf_counter() - start, cpu_seconds() - cpu_s
    return {"rows": rows, "lost": wrong, "wrong": wrong, "span_s": span_s, "span_cpu_s": span_cpu_s, "rss_mb": rss_mb()}


async def _all(session: aiohttp.ClientSession, url: str, rows: range, in_flight: int) -> int:
    """Asks for all `rows`; how many of the replies belong to another row."""
    left = iter(rows)
    return sum(await asyncio.gather(*(_worker(session, f"{url}/chat/completions", left) for _ in range(in_flight))))


async def _worker(session: aiohttp.ClientSession, url: str, rows: Iterator[int]) -> int:
    wrong = 0
    for row in rows:
        async with session.post(url, json=workload.body(row)) as reply:
            content = await reply.json()
        wrong += not content["choices"][0]["message"]["content"].startswith(workload.marker(row))
    return wrong


def cpu_seconds() -> float:
    """Of this process and all its threads, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    given = workload.arguments(__doc__).parse_args()
    print(json.dumps(uvloop.run(drive(given.url, given.rows, given.in_flight))))


if __name__ == "__main__":
    main()
