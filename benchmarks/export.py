"""An export of 10,000 and of 100,000 records: rows a second, and whether memory grows with the run.

    python benchmarks/export.py [--records 10000 100000] [--set export.min_margin=0.2] [--folder FOLDER]

Each record has four candidates of about 800 characters and a judge's verdicts on all six pairs of them; the parts are
written by the run folder's own writer. Every export is a process of its own, `rlaif.export` as the command calls it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations, islice, product
from pathlib import Path
from random import Random

from raw import rss_mb
from rig import HERE, measured

CANDIDATES, WORDS = 4, 160
_WORDS = ["".join(two) for two in product(("a", "be", "con", "de", "in", "o", "per", "re", "so", "un"), repeat=2)]
PIPELINE = {
    "name": "four-candidates",
    "models": {"policy": {"provider": "scripted"}, "judge": {"provider": "scripted"}},
    "stages": [{"sample": {"n": CANDIDATES}}, {"judge": {"comparisons": ["all"]}}],
    "export": {"pairs": ["best_vs_worst"]},
}
EVERYTHING = (  # what needs a pass of its own, and what looks at every text
    "export.max_refusal_share=0.1",
    "export.balance=2",
    "export.max_length_gap=400",
    "export.ties=soft",
    "export.clean={}",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000])
    arguments.add_argument("--set", action="append", default=[], help="an export setting; default: a few in turn")
    arguments.add_argument("--folder", type=Path, help="kept afterwards; default: one that is removed")
    arguments.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        print(json.dumps(child(Path(given.child[0]), given.child[1], given.set)))
        return
    variants = [given.set] if given.set else [["export.min_margin=0.2"], list(EVERYTHING)]
    if given.folder is not None:
        compared(given.folder, given.records, variants)
        return
    with tempfile.TemporaryDirectory() as folder:
        compared(Path(folder), given.records, variants)


def compared(folder: Path, sizes: list[int], variants: list[list[str]]) -> None:
    for records in sizes:
        make_run(folder, records)
    for variant in variants:
        print(f"--set {' '.join(variant)}")
        peaks = [exported(folder, records, variant) for records in sizes]
        print(f"  peak of the largest over that of the smallest: {peaks[-1] / peaks[0]:.3f}", flush=True)


def exported(folder: Path, records: int, assignments: list[str]) -> float:
    flags = [part for one in assignments for part in ("--set", one)]
    command = [sys.executable, str(HERE / "export.py"), "--child", str(folder), str(records), *flags]
    run = measured(command, timeout_s=1800)
    if run.exit_code != 0:
        sys.exit(f"the export of {records:,} records ended with {run.exit_code}:\n{run.errors}")
    seconds, rows = run.report["wall_s"], run.report["rows"]
    print(
        f"  {records:>9,} records: {seconds:.1f} s ({run.report['cpu_s']:.1f} s of CPU), {run.report['pairs']:,} pairs"
        f", {rows:,} rows, {rows / seconds:,.0f} rows/s, peak {run.report['rss_mb']:.0f} MB",
        flush=True,
    )
    return float(run.report["rss_mb"])


def child(folder: Path, records: str, assignments: list[str]) -> dict[str, float]:
    from raw import cpu_seconds

    from rlaif.api import export

    start = time.perf_counter()
    result = export(f"of-{records}", runs_dir=folder / "runs", set=assignments)
    dataset = result.summary["dataset"]
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": cpu_seconds(),
        "pairs": dataset["pairs"],
        "rows": sum(n for splits in dataset["rows"].values() for n in splits.values()),
        "rss_mb": rss_mb(),
    }


def make_run(folder: Path, records: int) -> None:
    """A real run of one prompt, whose parts are then replaced: its settings are what a run leaves."""
    from rlaif.api import generate
    from rlaif.store import PART_RECORDS, RunFolder, encode

    name = f"of-{records}"
    run = RunFolder(folder / "runs", name)
    if run.size() == records:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.jsonl").write_text('{"prompt": "What is a lock?"}\n')
    (folder / "pipeline.yaml").write_text(json.dumps(PIPELINE | {"prompts": str(folder / "prompts.jsonl")}))
    generate(str(folder / "pipeline.yaml"), runs_dir=folder / "runs", run=name)
    lines = (encode(record) for record in made(records))
    for number in range(-(-records // PART_RECORDS)):
        run.write_part(number, islice(lines, PART_RECORDS))


def made(records: int) -> Iterator[object]:
    from rlaif.types import Message, Record, Response, Verdict, prompt_id

    for number in range(records):
        random = Random(number)
        prompt = (Message("user", f"Question {number}: " + " ".join(random.choices(_WORDS, k=20)) + "?"),)
        texts = [" ".join(random.choices(_WORDS, k=int(WORDS * random.uniform(0.6, 1.4)))) for _ in range(CANDIDATES)]
        if random.random() < 0.25:
            texts[0] = "I'm sorry, but I can't help with that. " + texts[0][: len(texts[0]) // 4]
        quality = [random.gauss(0, 1) for _ in texts]
        verdicts = []
        for a, b in combinations(range(CANDIDATES), 2):
            p_ab, p_ba = (
                min(0.99, max(0.01, 0.5 + 0.3 * (quality[a] - quality[b]) + random.gauss(0, 0.1))) for _ in "12"
            )
            p, same = (p_ab + p_ba) / 2, (p_ab > 0.5) == (p_ba > 0.5)
            verdicts.append(Verdict("judge", "harmless", a, b, p, p_ab, p_ba, same, replies=("A", "B")))
        yield Record(
            id=prompt_id(prompt),
            prompt=prompt,
            category=random.choices("abcde", weights=(1, 1, 2, 4, 8))[0],
            source=f"prompts:{number}",
            responses=tuple(Response(text, "scripted") for text in texts),
            verdicts=tuple(verdicts),
            outcome="ok",
        )


if __name__ == "__main__":
    main()
