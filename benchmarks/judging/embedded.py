"""The embedded model as a judge, asked for real about 100 pairs that people labelled, and audited.

    RLAIF_TEST_DATA=FOLDER python benchmarks/judging/embedded.py [--judge local] [--constitution general]

LLMBar-Natural: which of two outputs follows the instruction. A few minutes on two cores. Prints the audit's section for
a dataset card; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from rlaif.api import audit
from rlaif.audit.report import as_markdown, audited

COLUMNS = {"prompt": "input", "a": "output_1", "b": "output_2", "label": "label"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--judge", default="local", help="any model, as PROVIDER/MODEL")
    arguments.add_argument("--constitution", default="general")
    arguments.add_argument("--limit", type=int, help="only the first items")
    arguments.add_argument("--runs-dir", type=Path, help="keep the run there, to go on with it")
    given = arguments.parse_args()
    data = os.environ.get("RLAIF_TEST_DATA")
    if not data:
        sys.exit("set RLAIF_TEST_DATA to the folder that holds the public data")
    with tempfile.TemporaryDirectory() as scratch:
        labelled = Path(scratch) / "llmbar-natural.jsonl"
        items = json.loads((Path(data) / "llmbar_natural.json").read_bytes())[: given.limit]
        labelled.write_text("".join(json.dumps(item) + "\n" for item in items))
        result, answers = audit(
            labelled,
            columns=COLUMNS,
            judge=given.judge,
            constitution=given.constitution,
            run="embedded",
            runs_dir=given.runs_dir or scratch,
        )
    if result.status != "done" or result.failed:
        sys.exit(f"{result.status}, {result.failed} items failed: {result.summary['failures'][:3]}")
    found = audited(labelled.name, answers.items, answers.judges)
    print(as_markdown(found))
    (judge,) = found.judges
    shown = ("usable", "accuracy", "kappa", "accuracy_one_order", "consistency", "accuracy_consistent", "position_bias",
             "prefers_longer", "people_prefer_longer", "longer_is_better", "brier", "overconfidence")  # fmt: skip
    figures = {name: getattr(judge, name) for name in shown}
    content = {name: [figure.value, figure.low, figure.high, figure.n] for name, figure in figures.items()}
    print(json.dumps({"judge": judge.judge, "wall_s": result.summary["wall_s"], "ece": judge.ece, **content}))


if __name__ == "__main__":
    main()
