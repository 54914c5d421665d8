"""What a scan counts, once more, slowly and in plain sight; for text pairs with a prompt column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Pair = tuple[str, str, str]  # prompt, chosen, rejected


def same(text: str) -> str:
    return " ".join(text.casefold().split())


def twins(splits: Sequence[tuple[str, Sequence[Pair]]]) -> dict[str, int]:
    rows = [(split, tuple(map(same, row))) for split, pairs in splits for row in pairs]
    found: Counter[str] = Counter()
    for i, (split, (prompt, chosen, rejected)) in enumerate(rows):
        before = rows[:i]
        prompts = [(where, row[0]) for where, row in before]
        # A row whose prompt is empty has none to share.
        if prompt and any(other == prompt for _, other in prompts):
            found["prompts"] += 1
            first = next(where for where, other in prompts if other == prompt)
            found["shared"] += first != split
        found["pairs"] += any(row == (prompt, chosen, rejected) for _, row in before)
        found["conflicts"] += chosen != rejected and any(row == (prompt, rejected, chosen) for _, row in rows)
    return {kind: found[kind] for kind in ("prompts", "pairs", "conflicts", "shared")}


def longer(pairs: Sequence[tuple[str, str]]) -> float:
    """How often the chosen one is, ties half."""
    return sum((len(chosen) > len(rejected)) + (len(chosen) == len(rejected)) / 2 for chosen, rejected in pairs) / len(
        pairs
    )


def auc(pairs: Sequence[tuple[str, str]]) -> float:
    """Every chosen text against every rejected one."""
    return longer([(chosen, rejected) for chosen, _ in pairs for _, rejected in pairs])
