"""One principle of sixteen is changed and the run made anew: calls sent, calls reused, and what had to be sent.

    python benchmarks/incremental.py [--prompts 200] [--rounds 4] [--drafts 4] [--chains 1]

The real engine and journal with the scripted backend. What an edit touches is worked out beside it from the two
constitutions and the records alone: a round whose principle is another one or says something else, with all later
rounds of its chain; every verdict on a revision that is new; every other one whose principle changed. Calls sent
beyond that are waste, and the last column must be 0.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlaif import generate
from rlaif.constitution import Constitution, Principle, Purpose, load_constitution
from rlaif.context import Context
from rlaif.stages.judge import Judge
from rlaif.store import RunFolder
from rlaif.templates import Templates
from rlaif.types import Record

PIPELINE = """
name: incremental
models: {{policy: {{provider: scripted}}, judge: {{provider: scripted}}}}
stages:
  - sample: {{n: {drafts}}}
  - revise: {{rounds: {rounds}, drafts: {chains}}}
  - filter
  - judge
"""
Texts = dict[str, Any]  # a principle as YAML has it


class Row(NamedTuple):
    """What one change of the constitution came to, in calls."""

    change: str
    sent: int
    reused: int
    touched: int  # that must be sent


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--prompts", type=int, default=200)
    arguments.add_argument("--rounds", type=int, default=4)
    arguments.add_argument("--drafts", type=int, default=4)
    arguments.add_argument("--chains", type=int, default=1, help="drafts that are revised")
    given = arguments.parse_args()
    print(f"{'change':<24}{'sent':>7}{'reused':>8}{'of a full run':>15}{'touched':>9}{'waste':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for row in measured(Path(folder), **vars(given)):
            share = row.sent / (row.sent + row.reused)
            waste = row.sent - row.touched
            print(f"{row.change:<24}{row.sent:>7,}{row.reused:>8,}{share:>15.1%}{row.touched:>9,}{waste:>7,}")


def measured(
    where: Path, prompts: int, rounds: int, drafts: int, chains: int, changes: Sequence[str] = ()
) -> Iterator[Row]:
    """Each of `changes`, all if there are none, on top of the same run."""
    (where / "pipeline.yaml").write_text(PIPELINE.format(rounds=rounds, drafts=drafts, chains=chains))
    with (where / "prompts.jsonl").open("w") as file:
        for i in range(prompts):
            file.write(json.dumps({"prompt": f"Question {i}: how do I store household chemicals safely?"}) + "\n")
    source = load_constitution("safety").model_dump(mode="json")
    source["principles"] = source["principles"][:16]
    before, templates = written(where, "before", source), Templates()
    made(where, "before", "runs")
    for name in changes or CHANGES:
        changed = json.loads(json.dumps(source))
        CHANGES[name](changed["principles"])
        both = [Context({}, constitution, templates) for constitution in (before, written(where, name, changed))]
        shutil.copytree(where / "runs", where / name)  # no change has the answers of another
        summary = made(where, name, name)
        records = RunFolder(where / name, name).records()
        touched_calls = sum(touched(record, *both, rounds) for record in records)
        yield Row(name, summary["calls"]["sent"], summary["reused"]["answers"], touched_calls)


def written(where: Path, name: str, content: Texts) -> Constitution:
    path = where / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    return load_constitution(path)


def made(where: Path, name: str, runs: str) -> dict[str, Any]:
    return generate(
        str(where / "pipeline.yaml"),
        constitution=str(where / f"{name}.yaml"),
        prompts=str(where / "prompts.jsonl"),
        runs_dir=where / runs,
        run=name,
    ).summary


def edited(*purposes: Purpose) -> Callable[[list[Texts]], None]:
    def edit(principles: list[Texts]) -> None:
        for purpose in purposes:
            principles[5][purpose] += " Say why."

    return edit


def added(principles: list[Texts]) -> None:
    principles.insert(3, {**principles[5], "id": "another"})


def removed(principles: list[Texts]) -> None:
    del principles[5]


def heavier(principles: list[Texts]) -> None:
    principles[5]["weight"] = 2.0


def reordered(principles: list[Texts]) -> None:
    principles.reverse()
    principles[0]["tags"] = ["last"]


CHANGES: dict[str, Callable[[list[Texts]], None]] = {
    "all-texts-edited": edited("critique", "revision", "judge"),
    "critique-edited": edited("critique"),
    "revision-edited": edited("revision"),
    "judge-text-edited": edited("judge"),
    "one-added": added,
    "one-removed": removed,
    "weight-doubled": heavier,
    "order-and-tags": reordered,
}


def touched(record: Record, old: Context, new: Context, rounds: int) -> int:
    """The least calls that the record's new version needs, from the draws alone."""
    calls, revised = 0, set[int]()
    for draft, chain in chains(record).items():
        for step, response in enumerate(chain):
            was, is_now = (drawn(context, record, "revise", f"{draft}/{step}", "critique") for context in (old, new))
            if (was.critique, was.revision) != (is_now.critique, is_now.revision):
                calls += 2 * (rounds - step) - (was.critique == is_now.critique)
                revised.add(chain[-1])
                break
            assert record.responses[response].principle == is_now.id
    for first, second in Judge().pairs(record):
        was, is_now = (drawn(context, record, "judge", f"{first}-{second}", "judge") for context in (old, new))
        calls += 2 * (was.judge != is_now.judge or not revised.isdisjoint((first, second)))
    return calls


def chains(record: Record) -> dict[int, list[int]]:
    """The revisions of each draft, in order."""
    found: dict[int, list[int]] = {}
    for i in revisions(record):
        found.setdefault(record.draft_of(i), []).append(i)
    return found


def revisions(record: Record) -> Iterator[int]:
    return (i for i, response in enumerate(record.responses) if response.revises is not None)


def drawn(context: Context, record: Record, stage: str, step: str, purpose: Purpose) -> Principle:
    return context.constitution.draw(context.at(stage).draw_id(record.id, step), purpose)


if __name__ == "__main__":
    main()
