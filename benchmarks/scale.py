"""A million prompts with six calls each: memory, the journal's size, and how long a replay takes.

    python benchmarks/scale.py [--prompts 1000000] [--folder FOLDER]

The scripted backend answers at once, so this is the engine alone: two drafts, a critique and a revision of
one, and a judge in both orders. Then `--rebuild` makes every part again from the journal, without
a call. Each is a process of its own on one core. At full size it takes about half an hour and writes a few GB.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import workload
from ours import RUN, timed_runs
from raw import rss_mb
from rig import HERE, folder_or_new, measured

CALLS = 6
PIPELINE = {
    "name": "six-calls",
    "models": {"policy": {"provider": "scripted", "script": {"words": 100}}, "judge": {"provider": "scripted"}},
    "stages": [
        {"sample": {"n": 2}},
        {"revise": {"rounds": 1, "drafts": 1}},
        {"judge": {"comparisons": ["revisions"], "principles": "draw"}},
    ],
    "export": {"pairs": ["revision_vs_original"]},
}
TIMEOUT_S = 4 * 3600


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--prompts", type=int, default=1_000_000)
    arguments.add_argument("--folder", type=Path, help="kept afterwards; default: one that is removed")
    arguments.add_argument("--child", choices=["first", "again"], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        print(json.dumps(child(given.folder, rebuild=given.child == "again")))
        return
    with folder_or_new(given.folder) as folder:
        print(json.dumps(both(folder, given.prompts)))


def both(folder: Path, prompts: int) -> dict[str, float]:
    workload.write_prompts(folder / "prompts.jsonl", prompts)
    (folder / "pipeline.yaml").write_text(json.dumps(PIPELINE | {"prompts": str(folder / "prompts.jsonl")}))
    first = in_child(folder, "first")
    journal = folder / "runs" / "calls.sqlite"
    text = text_bytes(journal)
    over_text = (journal.stat().st_size - text) / first["sent"]
    print(
        f"first run: {first['sent']:,.0f} calls in {first['span_s']:,.0f} s, peak {first['rss_mb']:.0f} MB; journal "
        f"{text / first['sent']:.0f} bytes of zstd text a call and {over_text:.0f} over it",
        flush=True,
    )
    again = in_child(folder, "again")
    print(f"--rebuild: {again['span_s']:,.0f} s, {again['sent']:.0f} calls sent, peak {again['rss_mb']:.0f} MB")
    return {
        "prompts": prompts,
        "calls": first["sent"],
        "calls_per_record": round(first["sent"] / prompts, 3),
        "run_s": round(first["span_s"], 1),
        "peak_rss_mb": round(max(first["rss_mb"], again["rss_mb"]), 1),
        "rebuild_s": round(again["span_s"], 1),
        "rebuild_calls_sent": again["sent"],
        "journal_text_bytes": round(text / first["sent"], 1),
        "journal_bytes_over_text": round(over_text, 1),
        "failed": first["failed"] + again["failed"],
    }


def in_child(folder: Path, which: str) -> dict[str, float]:
    command = [sys.executable, str(HERE / "scale.py"), "--child", which, "--folder", str(folder)]
    run = measured(command, timeout_s=TIMEOUT_S)
    if run.exit_code != 0:
        sys.exit(f"the {which} run ended with {run.exit_code}:\n{run.errors}")
    return run.report


def child(folder: Path, *, rebuild: bool) -> dict[str, float]:
    """The peak is that of the whole process, the export included."""
    from rlaif import generate

    with timed_runs() as span:
        result = generate(str(folder / "pipeline.yaml"), runs_dir=folder / "runs", run=RUN, rebuild=rebuild)
    return {
        "sent": result.summary["calls"]["sent"],
        "failed": result.failed,
        "span_s": span.wall_s,
        "rss_mb": rss_mb(),
    }


def text_bytes(journal: Path) -> int:
    """What the answers' compressed texts take, which is the least that any journal keeps."""
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as connection:
        total: int = connection.execute("SELECT sum(length(body)) FROM calls").fetchone()[0]
    return total


if __name__ == "__main__":
    main()
