"""What direct preferences imply: the transitive closure of those that contradict no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations


def implied(
    nodes: Sequence[int], step: Callable[[int, int], float | None], prefers: Callable[[int, int], bool]
) -> Iterator[tuple[tuple[int, ...], float]]:
    """(path, p) for every two nodes that two or more steps lead from one to the other of; p is the steps' product.

    `step` is the probability of a clear preference, None if there is none; `prefers` says of any preference, however
    slight. A step between two nodes that lie on a circle of preferences is none: there the judge contradicts itself.
    So no path runs in a circle, and where one leads from a to c, no preferences lead back. Of several paths the
    likeliest counts, and of equals the first in the order of `nodes`.

    >>> beats = {(1, 2): 0.9, (2, 3): 0.8}
    >>> [*implied([1, 2, 3], lambda a, b: beats.get((a, b)), lambda a, b: (a, b) in beats)]
    [((1, 2, 3), 0.7200000000000001)]
    """
    leads = _reachable(nodes, prefers)
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
    for a, b in permutations(nodes, 2):
        if (b, a) not in leads and (p := step(a, b)) is not None:
            best[a, b] = (p, (a, b))
    if len(best) < 2:
        return
    for via in nodes:  # Floyd and Warshall, with products for sums; there are 26 nodes at most
        for a, c in permutations(nodes, 2):
            if (a, via) in best and (via, c) in best:
                p = best[a, via][0] * best[via, c][0]
                if (a, c) not in best or p > best[a, c][0]:
                    best[a, c] = (p, best[a, via][1] + best[via, c][1][1:])
    for p, path in best.values():
        if len(path) > 2:
            yield path, p


def _reachable(nodes: Sequence[int], prefers: Callable[[int, int], bool]) -> set[tuple[int, int]]:
    leads = {(a, b) for a, b in permutations(nodes, 2) if prefers(a, b)}
    for via in nodes:
        into = [a for a, b in leads if b == via]
        leads.update([(a, c) for b, c in leads if b == via for a in into])
    return leads
