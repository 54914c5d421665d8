"""The job as `rlaif.generate` does it: a one-stage pipeline, journal on; run again, it resumes.

    python benchmarks/ours.py --url http://127.0.0.1:8100/v1 --rows 10000 --in-flight 256 --folder work

The span is `Runner.run`: prompts read, every call made and journaled, every part written. Outside
of it are imports, settings, the first question to the model, and the dataset's export; whoever wants all
of it takes the process's own time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import workload
from raw import cpu_seconds, rss_mb

RUN = "bench"


@dataclass(slots=True)
class Span:
    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def timed_runs() -> Iterator[Span]:
    """Within it, what `rlaif.generate` spends on records alone is measured."""
    from rlaif.runner import Runner

    span, run = Span(), Runner.run

    async def timed(self: Runner, *arguments: object, **options: object) -> object:
        cpu_s, start = cpu_seconds(), time.perf_counter()
        try:
            return await run(self, *arguments, **options)  # type: ignore[arg-type,func-returns-value] # handed through
        finally:
            span.wall_s, span.cpu_s = time.perf_counter() - start, cpu_seconds() - cpu_s

    Runner.run = timed  # type: ignore[method-assign,assignment] # for the length of this block
    try:
        yield span
    finally:
        Runner.run = run  # type: ignore[method-assign]


def pipeline(url: str, prompts: Path, in_flight: int, revisions: int = 0) -> dict[str, object]:
    """One call a record, and `revisions` more that each depend on the one before. JSON is YAML."""
    sample = {
        "n": 1,
        "system": workload.SYSTEM,
        "temperatures": [workload.TEMPERATURE],
        "max_tokens": workload.MAX_TOKENS,
    }
    revise = {"rounds": revisions, "critique": False, "few_shot": False, "max_tokens": workload.MAX_TOKENS}
    policy = {"provider": "openai", "base_url": url, "model": workload.MODEL, "concurrency": in_flight}
    return {
        "name": "one-call",
        "prompts": str(prompts),
        "models": {"policy": policy},
        "stages": [{"sample": sample}, *([{"revise": revise}] if revisions else [])],
        "export": {"pairs": []},
    }


def job(
    url: str, rows: int, in_flight: int, folder: Path, revisions: int = 0, assignments: list[str] | None = None
) -> dict[str, float]:
    from rlaif import generate
    from rlaif.store import RunFolder

    folder.mkdir(parents=True, exist_ok=True)
    prompts, settings = folder / "prompts.jsonl", folder / "pipeline.yaml"
    if not settings.exists():
        workload.write_prompts(prompts, rows)
        settings.write_text(json.dumps(pipeline(url, prompts, in_flight, revisions)))
    with timed_runs() as span:
        result = generate(str(settings), runs_dir=folder / "runs", run=RUN, set=assignments or [])
    peak_mb = rss_mb()
    records = RunFolder(folder / "runs", RUN).records()
    texts = ((r.prompt[-1].content, next((a.text for a in r.responses), None)) for r in records)
    return workload.checked(texts, rows) | {
        "calls": result.summary["calls"]["sent"],
        "failed": result.failed,
        "span_s": span.wall_s,
        "span_cpu_s": span.cpu_s,
        "rss_mb": peak_mb,
    }


def main() -> None:
    arguments = workload.arguments(__doc__)
    arguments.add_argument("--revisions", type=int, default=0, help="calls a record, each after the other, less one")
    arguments.add_argument("--set", action="append", default=[], help="a setting of the pipeline, KEY=VALUE")
    given = arguments.parse_args()
    print(json.dumps(job(given.url, given.rows, given.in_flight, given.folder, given.revisions, given.set)))


if __name__ == "__main__":
    main()
