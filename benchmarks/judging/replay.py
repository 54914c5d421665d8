"""The audit's figures on public data, whose answers are known; no model is asked.

    RLAIF_TEST_DATA=FOLDER python benchmarks/judging/replay.py [--no-speed]

XSTest's annotators and automatic labels, and what real judges answered about LLMBar: every judge and strategy, a
cascade, votes until they have said enough, and how long `rlaif judge audit` takes over all of it. Prints tables; the
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlaif.audit.measures import Figure, JudgeFigures, agreement, decided, figures, kappa, mean, winners
from rlaif.audit.panels import krippendorff_alpha
from rlaif.audit.read import read_classes, read_labelled
from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.audit.text import COLUMNS, percent, rows
from rlaif.judges.votes import decided as said_enough

REPLAY = "llmbar_judge_replay_dev.jsonl.gz"
COLUMNS_OF_REPLAY = {"item": "subset+idx", "judge": "judge+strategy", "group": "subset"}
NATURAL = "LLMBar/Natural"
EVERYWHERE = ("Vanilla", "CoT", "Swap", "Swap_CoT", "Metrics_Reference")  # strategies that saw all items
MOST, LEAST, STOP_AT = 12, 4, 0.9
# A dear call costs so many cheap ones: about what GPT-4 cost against ChatGPT when these were asked.
DEARER = 20
ORDERS = 200  # random orders of the votes, over which is averaged


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--no-speed", action="store_true", help="leave out the timing")
    given = arguments.parse_args()
    folder = os.environ.get("RLAIF_TEST_DATA")
    if not folder:
        sys.exit("set RLAIF_TEST_DATA to the folder that holds the public data")
    data = Path(folder)
    items, judges = read_labelled(data / REPLAY, COLUMNS_OF_REPLAY)
    result = {
        "xstest": xstest(data),
        "natural": natural(items, judges),
        "votes": votes(items, judges),
        "cascade": cascade(items, judges),
    }
    if not given.no_speed:
        result["audit_s"] = speed(data / REPLAY)
    print(json.dumps(rounded(result)))


def rounded(found: Any) -> Any:  # Any: as JSON has it
    if isinstance(found, dict):
        return {name: rounded(one) for name, one in found.items()}
    if isinstance(found, list):
        return [rounded(one) for one in found]
    return round(found, 4) if isinstance(found, float) else found


def table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    print(f"\n{title}\n")
    for line in (head, ["-" * width for width in widths], *lines):
        cells = [
            f"{cell:{'<' if i == 0 else '>'}{width}}" for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


# --- XSTest: people and automatic labels in three classes ---


def xstest(data: Path) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for model in ("gpt4", "llama2orig"):
        path = data / f"xstest_{model}_gpteval.csv"
        _, chosen = read_classes(path, ["annotation_1", "annotation_2", "final_label", "gpt4_label"])
        _, matched = read_classes(data / f"xstest_{model}_streval.csv", ["final_label", "strmatch_label"])
        found[model] = {
            "annotators": value(kappa(chosen[0], chosen[1])),
            "annotators_alpha": krippendorff_alpha(chosen[:2]) or 0.0,
            "gpt4_as_labeller": value(kappa(chosen[3], chosen[2])),
            "gpt4_as_labeller, partial is refusal": value(kappa(two(chosen[3]), two(chosen[2]))),
            "string_match": value(kappa(matched[1], matched[0])),
            "string_match, partial is refusal": value(kappa(two(matched[1]), two(matched[0]))),
        }
    head = ["kappa", *found]
    lines = [[what, *(f"{found[model][what]:.3f}" for model in found)] for what in found["gpt4"]]
    table(
        "XSTest, whether a response complies, refuses, or both in part: 450 responses of each of two models",
        head,
        lines,
    )
    return found


def two(classes: FloatArray) -> FloatArray:
    """Compliance against any refusal, of full compliance 0, full refusal 1 and partial refusal 2."""
    return np.minimum(classes, 1.0)


def value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


# --- LLMBar: every judge and strategy ---


def only(group: str, items: Items, judges: Sequence[Judged]) -> tuple[Items, list[Judged]]:
    """The items of one group, and what the judges said of them."""
    at = np.flatnonzero(np.array([name == group for name in items.groups]))
    few = Items(tuple(items.ids[i] for i in at), items.gold[at], items.lengths[at])
    return few, [
        Judged(judged.judge, judged.p_ab[at], judged.p_ba[at], tuple(judged.outcomes[i] for i in at))
        for judged in judges
        if any(judged.outcomes[i] is not None for i in at)
    ]


def natural(items: Items, judges: Sequence[Judged]) -> dict[str, Any]:  # Any: figures by name
    items, judges = only(NATURAL, items, judges)
    found = sorted((figures(items, judged) for judged in judges), key=lambda one: -value(one.accuracy))
    columns = (COLUMNS[0], ("one order", lambda one: percent(one.accuracy_one_order)), *COLUMNS[2:])
    head, lines = rows(found, columns)
    table(f"LLMBar-Natural, {len(items)} items: every judge and strategy", head, lines)
    chatgpt = next(one for one in found if one.judge == "ChatGPT Vanilla")
    return {"judges": len(found), "chatgpt_vanilla": shown(chatgpt)}


def shown(judge: JudgeFigures) -> dict[str, float]:
    return {
        "one_order": value(judge.accuracy_one_order),
        "both_orders": value(judge.accuracy),
        "survive_the_swap": value(judge.consistency),
        "right_of_those": value(judge.accuracy_consistent),
    }


# --- votes until they have said enough ---


def votes(items: Items, judges: Sequence[Judged]) -> dict[str, Any]:  # Any: as above
    """A judge's strategies as its votes, in swap pairs and random order, as a sampling judge would be asked."""
    found = {}
    head = ["judge", "votes", "right by all", "right when stopped", "points", "asked", "share", "alpha of the votes"]
    for name, chosen in {"LLMBar-Natural": only(NATURAL, items, judges), "All": (items, judges)}.items():
        stopped = [line for model in models(chosen[1]) if (line := stopping(model, *chosen)) is not None]
        means = Stopped("mean", *(float(np.mean(column)) for column in list(zip(*stopped, strict=True))[1:]))
        lines = [
            [one.judge, f"{one.votes:.0f}", f"{one.fixed:.1%}", f"{one.stopped:.1%}",
             f"{100 * (one.stopped - one.fixed):+.2f}", f"{one.asked:.1f}", f"{one.asked / one.votes:.0%}",
             f"{one.alpha:.2f}"]
            for one in (*stopped, means)
        ]  # fmt: skip
        how = (
            f"votes in swap pairs, at least {LEAST}, until the posterior is {STOP_AT}; mean of {ORDERS} orders of them"
        )
        table(f"{name}: {how}. A judge's votes are its strategies, so that they are correlated", head, lines)
        found[name] = means._asdict()
    return found


class Stopped(NamedTuple):
    """Accuracy by all `votes`, and by those that were `asked` on average; `alpha` is the votes' agreement."""

    judge: str
    votes: float
    fixed: float
    stopped: float
    asked: float
    alpha: float


def models(judges: Sequence[Judged]) -> list[str]:
    return list(dict.fromkeys(judged.judge.rpartition(" ")[0] for judged in judges))


def stopping(model: str, items: Items, judges: Sequence[Judged]) -> Stopped | None:
    mine = [judged for judged in judges if judged.judge.rpartition(" ")[0] == model]
    everywhere = [judged for judged in mine if all(outcome is not None for outcome in judged.outcomes)]
    pairs = min(MOST // 2, len(everywhere))
    if 2 * pairs <= LEAST:
        return None
    said = np.array([[judged.p_ab, judged.p_ba] for judged in everywhere]).transpose(2, 0, 1)  # (n, strategies, 2)
    n = len(said)
    gold = decided(items.gold)
    enough = np.array([[v >= w and said_enough(w, v, STOP_AT) for v in range(MOST + 1)] for w in range(MOST + 1)])
    fixed, stopped, asked = np.zeros(n), np.zeros(n), 0.0
    generator = np.random.default_rng(0)
    for _ in range(ORDERS):
        order = generator.permuted(np.tile(np.arange(len(everywhere)), (n, 1)), axis=1)[:, :pairs]
        drawn = said[np.arange(n)[:, None], order]
        wins = np.cumsum(np.nansum(drawn, axis=2), axis=1).astype(int)
        usable = np.cumsum(np.count_nonzero(~np.isnan(drawn), axis=2), axis=1)
        stops = enough[wins, usable]
        stops[:, : LEAST // 2 - 1] = False
        stops[:, -1] = True
        last = np.argmax(stops, axis=1)
        fixed += agreement(majority(wins[:, -1], usable[:, -1]), gold)
        stopped += agreement(majority(wins[np.arange(n), last], usable[np.arange(n), last]), gold)
        asked += 2 * float(np.mean(last + 1))
    right = float(np.mean(fixed)) / ORDERS, float(np.mean(stopped)) / ORDERS
    alpha = krippendorff_alpha(said.reshape(n, -1).T) or 0.0
    return Stopped(model, 2.0 * pairs, *right, asked / ORDERS, alpha)


def majority(wins: FloatArray, usable: FloatArray) -> FloatArray:
    """An item without a usable vote is undecided."""
    return winners(np.where(usable > 0, wins / np.maximum(usable, 1), 0.5))


# --- a cascade: cheap first ---


class Asked(NamedTuple):
    """A cascade that takes the cheap judge's word from a confidence on: what it costs, in dear calls, and is worth."""

    first: str
    sure_from: float
    escalated: float
    cost: float
    right: Figure
    by_chance: float  # accuracy if as many items were escalated at random


def cascade(items: Items, judges: Sequence[Judged]) -> dict[str, list[dict[str, Any]]]:  # Any: as above
    found = {}
    head = ["first judge", "sure from", "escalated", "cost", "right", "as many escalated by chance"]
    for name, (few, said) in {"LLMBar-Natural": only(NATURAL, items, judges), "All": (items, judges)}.items():
        p_of = {judged.judge: judged.p for judged in said}
        gold, dear = decided(few.gold), p_of["GPT-4 Vanilla"]
        asked = curve("none", 0, np.full(len(few), 0.5), (1.0,), dear, gold)
        for cheap in ("ChatGPT Vanilla", "ChatGPT-0301 Vanilla", "PaLM2 Vanilla"):
            asked += curve(cheap, 2, p_of[cheap], (0.5, 1.0), dear, gold)
        ten = np.nanmean([p_of[f"ChatGPT {strategy}"] for strategy in EVERYWHERE], axis=0)
        asked += curve("ChatGPT, 10 votes", 10, ten, (0.5, 0.6, 0.7, 0.8, 0.9, 1.0), dear, gold)
        lines = [
            [one.first, f"{one.sure_from:.1f}", f"{one.escalated:.0%}", f"{one.cost:.2f}", percent(one.right),
             f"{one.by_chance:.1%}"]
            for one in asked
        ]  # fmt: skip
        how = (
            "a cheap judge first, GPT-4 Vanilla where it is less sure. Sure from 1.0: both orders, or all votes, agree"
        )
        table(f"{name}: {how}. Cost of a label in calls of GPT-4; one of another costs 1/{DEARER}", head, lines)
        found[name] = [one._asdict() | {"right": value(one.right)} for one in asked]
    return found


def curve(
    name: str, calls: int, cheap: FloatArray, confidences: Sequence[float], dear: FloatArray, gold: FloatArray
) -> list[Asked]:
    """For each confidence from which the cheap judge's word counts. What is no answer is undecided."""
    cheap, dear = np.nan_to_num(cheap, nan=0.5), np.nan_to_num(dear, nan=0.5)
    right_by = [float(np.mean(agreement(winners(p), gold))) for p in (cheap, dear)]
    found = []
    for least in confidences:
        escalate = np.maximum(cheap, 1 - cheap) < least - 1e-9
        share = float(np.mean(escalate))
        right = mean(agreement(winners(np.where(escalate, dear, cheap)), gold))
        by_chance = right_by[0] + share * (right_by[1] - right_by[0])
        found.append(Asked(name, least, share, calls / DEARER + 2 * share, right, by_chance))
    return found


# --- how long an audit takes ---


def speed(path: Path) -> dict[str, float]:
    """Wall time of the command, imports and plots included: median and least of five; and the processor's time."""
    mapping = ",".join(f"{role}={columns}" for role, columns in COLUMNS_OF_REPLAY.items())
    taken = []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rlaif", "judge", "audit", str(path), "--columns", mapping, "--out", folder]
        for _ in range(5):
            begun = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - begun)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / len(taken)
    median, least = sorted(taken)[2], min(taken)
    print(f"\nrlaif judge audit of all: {median:.2f} s (median of 5; least {least:.2f}), {cpu:.2f} s of a processor")
    return {"median": median, "least": least, "cpu": cpu}


if __name__ == "__main__":
    main()
