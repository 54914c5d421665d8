"""`rlaif lint` over synthetic pairs: time and memory, beside a pass over the same file that only counts lengths.

    python benchmarks/lint.py [--rows 100000 1000000] [--processes 2] [--folder FOLDER]

A row has a prompt of about 200 characters and two answers of about 800, as text or as messages. Each pass is a process
of its own, whose children count too. The last line is one JSON object. At full size it takes about ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from rig import HERE, Measured, folder_or_new, measured

TIMEOUT_S = 3600
ROW_GROUP = 1000
# Sounds of a language that nobody speaks.
_STARTS, _ENDS = (
    ("b", "d", "f", "gr", "h", "k", "l", "m", "n", "p", "r", "st", "t", "v", "w"),
    ("a", "en", "i", "or", "u"),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    arguments.add_argument("--form", choices=["text", "messages"], default="messages")
    arguments.add_argument("--folder", type=Path, help="kept afterwards; default: one that is removed")
    arguments.add_argument("--child", choices=["lint", "lengths"], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.child:
        run = lint if given.child == "lint" else lengths
        print(json.dumps(run(given.folder, given.processes)))
        return
    found = []
    with folder_or_new(given.folder) as folder:
        for rows in given.rows:
            path = folder / f"{given.form}-{rows}.parquet"
            if not path.is_file():
                write(path, rows, given.form)
            found.append(compared(path, rows, given.processes))
    if len(found) > 1:
        ratio = found[-1]["peak_mb"] / found[0]["peak_mb"]
        print(f"{found[-1]['rows'] / found[0]['rows']:g} times the rows: {ratio:.2f} times the peak")
    print(json.dumps({"form": given.form, "processes": given.processes, "runs": found}))


def compared(path: Path, rows: int, processes: int) -> dict[str, float]:
    counted = in_child(path, "lengths", 1)
    linted = in_child(path, "lint", processes)
    assert linted.report["rows"] == counted.report["rows"] == rows, (linted.report, counted.report)
    print(
        f"{rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB: lint {linted.wall_s:.1f} s on {processes} cores, "
        f"{1e6 * linted.cpu_s / rows:.0f} us of CPU a row, peak {linted.peak_mb:.0f} MB; lengths alone "
        f"{counted.wall_s:.1f} s, {1e6 * counted.cpu_s / rows:.0f} us, {counted.peak_mb:.0f} MB: "
        f"{linted.wall_s / counted.wall_s:.2f} times the time, {linted.cpu_s / counted.cpu_s:.2f} times the CPU",
        flush=True,
    )
    return {
        "rows": rows,
        "wall_s": round(linted.wall_s, 1),
        "cpu_s": round(linted.cpu_s, 1),
        "peak_mb": round(linted.peak_mb),
        "lengths_wall_s": round(counted.wall_s, 1),
        "lengths_cpu_s": round(counted.cpu_s, 1),
        "lengths_peak_mb": round(counted.peak_mb),
    }


def in_child(path: Path, what: str, processes: int) -> Measured:
    cores = ",".join(map(str, range(os.cpu_count() or 1)))  # `measured` gives one
    command = ["taskset", "-c", cores, sys.executable, str(HERE / "lint.py"), "--folder", str(path), "--child", what]
    run = measured([*command, "--processes", str(processes)], timeout_s=TIMEOUT_S)
    if run.exit_code != 0:
        raise SystemExit(f"{what} ended with {run.exit_code}: {run.errors}")
    return run


def lint(path: Path, processes: int) -> dict[str, object]:
    from rlaif.lint.report import linted

    started = time.perf_counter()
    report = linted(str(path), processes=processes)
    found = {one.rule: one.count for one in report.findings}
    return {"rows": report.rows, "seconds": time.perf_counter() - started, "findings": found}


def lengths(path: Path, processes: int) -> dict[str, object]:
    """What any pass costs: the rows as Python values, and as JSON, whose length is taken."""
    from pyarrow import parquet

    rows = total = 0
    with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        for batch in file.iter_batches(256):
            for row in batch.to_pylist():
                rows += 1
                total += len(json.dumps(row))
    return {"rows": rows, "characters": total}


def write(path: Path, rows: int, form: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    left = made(rows, form)
    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    schema = pa.schema([(name, pa.string() if form == "text" else turns) for name in ("prompt", "chosen", "rejected")])
    partial = path.with_suffix(".partial")
    with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        while group := list(islice(left, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))
    partial.rename(path)


def made(rows: int, form: str) -> Iterator[dict[str, object]]:
    """Sentences drawn from a stock; one row in a hundred is a twin, an empty or identical pair, a refusal, a list."""
    chance = Random("lint")
    words = [start + end + more for start in _STARTS for end in _ENDS for more in ("", "n", "lo", "s", "the")]
    stock = [" ".join(chance.choices(words, k=chance.randint(6, 16))).capitalize() + "." for _ in range(20_000)]
    row: dict[str, str] = {}
    for _ in range(rows):
        odd = chance.randrange(500)
        if odd or not row:
            row = {name: text(chance, stock, size) for name, size in (("prompt", 4), ("chosen", 15), ("rejected", 15))}
        match odd:
            case 1:
                row["rejected"] = row["chosen"]
            case 2:
                row["rejected"] = ""
            case 3:
                row["chosen"] = f"I'm sorry, but I can't help with that. {row['chosen']}"
            case 4:
                row["chosen"] = "\n".join(f"- **{line}**" for line in row["chosen"].split(". "))
        yield (
            row
            if form == "text"
            else {
                name: [{"role": "user" if name == "prompt" else "assistant", "content": said}]
                for name, said in row.items()
            }
        )


def text(chance: Random, stock: list[str], sentences: int) -> str:
    parts = chance.choices(stock, k=sentences + chance.randint(-sentences // 3, sentences // 3))
    return "\n\n".join(" ".join(parts[i : i + 5]) for i in range(0, len(parts), 5))


if __name__ == "__main__":
    main()
