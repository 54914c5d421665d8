"""What share of the prompts' tokens does the server find in its prefix cache, and what does our order do to it?

    python benchmarks/prefix.py [--prompts 32] [--slots 4]

The six-call job of `scale.py` on the embedded model in llama.cpp, whose own counters are read: `cached_tokens`
of every reply. Once with the calls that wait served in the order they came, once as rlaif serves them.
Each has a server and a journal of its own. Answers are short: it is the prompts that are measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PIPELINE = {
    "name": "six-calls",
    "stages": [
        {"sample": {"n": 2, "max_tokens": 24}},
        {"revise": {"rounds": 1, "drafts": 1, "critique_max_tokens": 24, "max_tokens": 24}},
        {"judge": {"comparisons": ["revisions"], "principles": "draw"}},
    ],
    "export": {"pairs": ["revision_vs_original"]},
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--prompts", type=int, default=32)
    arguments.add_argument("--slots", type=int, default=4)
    given = arguments.parse_args()
    result = {}
    for order in ("as they come", "ours"):
        with tempfile.TemporaryDirectory() as folder:
            result[order] = one(Path(folder), given.prompts, given.slots, order == "ours")
        print(f"{order:>14}: {result[order]}", flush=True)
    print(json.dumps(result))


def one(folder: Path, prompts: int, slots: int, ordered: bool) -> dict[str, float]:
    from rlaif import generate

    model = {"provider": "local", "slots": slots}
    (folder / "pipeline.yaml").write_text(json.dumps(PIPELINE | {"models": {"policy": model, "judge": model}}))
    with in_order(ordered):
        result = generate(str(folder / "pipeline.yaml"), limit=prompts, runs_dir=folder / "runs", run="r")
    shares = {
        stage["stage"]: round(stage["cached_tokens"] / stage["prompt_tokens"], 3)
        for stage in result.summary["stages"]
        if stage["stage"] != "preflight"
    }
    tokens = result.summary["tokens"]
    return {"calls": result.summary["calls"]["sent"], "cached": round(tokens["cached"] / tokens["prompt"], 3), **shares}


@contextmanager
def in_order(ours: bool) -> Iterator[None]:
    from rlaif.lanes import Lanes

    take = Lanes.take

    async def as_they_come(self: Lanes, rank: int = 0, *arguments: Any) -> Any:  # Any: handed through
        return await take(self, 0, *arguments)

    if not ours:
        Lanes.take = as_they_come  # type: ignore[method-assign,assignment] # for the length of this block
    try:
        yield
    finally:
        Lanes.take = take  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
