"""Several judges, or several people, on the same items: how far they agree, who is spare, what they say together.

Krippendorff's alpha, Dawid-Skene and Bradley-Terry are those of krippendorff, crowd-kit and choix, which are loaded
when a figure needs them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np

from rlaif.audit.measures import agreement, decided, winners
from rlaif.audit.table import FloatArray, Items, Judged
from rlaif.figures import Figure, kappa, mean
from rlaif.panel import LEAST_GOLD, log_odds

_FOLDS = 10
# Dawid & Skene's EM gains almost nothing after so many rounds on two or three labels.
_ROUNDS = 50
# Each two generators that met have won so many more times against each other: keeps who won always finite.
_REGULARISED = 0.1


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far raters agree: Krippendorff's alpha (nominal) of all, Cohen's kappa of each two (`kappas[i][j]`)."""

    raters: tuple[str, ...]
    alpha: float | None
    kappas: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Spare:
    """How often the majority has another winner without this judge; a winner that turns into a tie is half of one."""

    judge: str
    changes: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Alike:
    """Two judges and the correlation of their errors; independent ones have 0, copies have 1."""

    judges: tuple[str, str]
    correlation: float
    n: int


@dataclass(frozen=True, slots=True)
class Combination:
    """The accuracy of one way to make one verdict of several.

    Who counts how much in `weighted`, and who is `best`, is chosen by other labels than it is measured on.
    """

    method: str
    accuracy: Figure


@dataclass(frozen=True, slots=True)
class Strengths:
    """Bradley-Terry strengths (log-odds to beat the average one) of generators.

    Each of `components` was compared only within itself: strengths of different ones say nothing about each other.
    """

    source: str
    strengths: Mapping[str, float]
    components: tuple[tuple[str, ...], ...]
    n: int


@dataclass(frozen=True, slots=True)
class PanelFigures:
    """`weights` are by all labels, ready for `export.weights`; None with fewer labelled items than LEAST_GOLD."""

    judges: Agreement | None
    annotators: Agreement | None
    annotators_to_gold: Mapping[str, Figure]
    spare: tuple[Spare, ...]
    alike: tuple[Alike, ...]
    combinations: tuple[Combination, ...]
    weights: Mapping[str, float] | None
    strengths: tuple[Strengths, ...]


def panel_figures(items: Items, judges: Sequence[Judged], seed: int = 0) -> PanelFigures:
    won = won_by(judges, len(items))
    names = tuple(judged.judge for judged in judges)
    gold = decided(items.gold)
    people = tuple(items.annotators)
    labels = np.array([winners(items.annotators[name]) for name in people]).reshape(len(people), len(items))
    panel = len(judges) > 1
    return PanelFigures(
        judges=agreement_of(names, won) if panel else None,
        annotators=agreement_of(people, labels) if len(people) > 1 else None,
        annotators_to_gold={name: kappa(row, winners(items.gold)) for name, row in zip(people, labels, strict=True)},
        spare=spare(names, ballots(judges, len(items))) if len(judges) > 2 else (),
        alike=alike(names, won, gold) if panel else (),
        combinations=combinations(judges, gold, seed) if panel else (),
        weights=gold_weights(names, won, gold) if panel else None,
        strengths=_strengths(items, ballots(judges, len(items))),
    )


def won_by(judges: Sequence[Judged], n: int) -> FloatArray:
    """(judges, n) Each judge's winners."""
    return np.array([winners(judged.p) for judged in judges]).reshape(len(judges), n)


def ballots(judges: Sequence[Judged], n: int) -> FloatArray:
    """(judges, n) What an export counts: 1 for the first response, -1 for the second, 0 for neither or no verdict.

    Each order has half a vote, so that a winner that changes with the order is none.
    """
    orders = [(judged.p_ab, judged.p_ba if judged.both_orders else judged.p_ab) for judged in judges]
    votes = [(winners(ab) + winners(ba)) - 1 for ab, ba in orders]
    return np.nan_to_num(np.array(votes).reshape(len(judges), n))


def agreement_of(raters: tuple[str, ...], labels: FloatArray) -> Agreement:
    """`labels` (raters, n), any numbers, nan where a rater gave none."""
    return Agreement(raters, krippendorff_alpha(labels), kappa_matrix(labels))


def krippendorff_alpha(labels: FloatArray) -> float | None:
    """Nominal; None where no item has two labels, or all labels are the same one."""
    paired = labels[:, np.count_nonzero(~np.isnan(labels), axis=0) > 1]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return None
    from krippendorff import alpha

    return float(alpha(paired, level_of_measurement="nominal"))


def kappa_matrix(labels: FloatArray) -> tuple[tuple[float | None, ...], ...]:
    """Cohen's kappa of each two raters on the items that both labelled; None where it is undefined."""
    kinds = np.unique(labels[~np.isnan(labels)])
    one_hot = (labels[None] == kinds[:, None, None]).astype(float)  # (kinds, raters, n)
    there = (~np.isnan(labels)).astype(float)
    n = there @ there.T
    observed = (one_hot @ one_hot.transpose(0, 2, 1)).sum(axis=0)
    # What each says on the items that the other labelled too.
    counts = one_hot @ there.T
    expected = (counts * counts.transpose(0, 2, 1)).sum(axis=0)
    # Times n^2, so that counts stay whole and one label alone is exactly undefined.
    by_chance = n**2 - expected
    with np.errstate(divide="ignore", invalid="ignore"):
        kappas = np.where(by_chance > 0, (n * observed - expected) / by_chance, np.nan)
    return tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in kappas)


def spare(names: Sequence[str], votes: FloatArray) -> tuple[Spare, ...]:
    """Of each judge, the most dispensable first. Items are those where the judge has a winner and another one too."""
    total = votes.sum(axis=0)
    found = []
    for name, vote in zip(names, votes, strict=True):
        counted = (vote != 0) & (np.abs(votes).sum(axis=0) > 1)
        n = int(counted.sum())
        changed = np.abs(np.sign(total) - np.sign(total - vote))[counted] / 2
        found.append(Spare(name, float(changed.mean()) if n else None, n))
    return tuple(sorted(found, key=lambda one: (one.changes is None, one.changes)))


def alike(names: Sequence[str], won: FloatArray, gold: FloatArray, most: int = 10) -> tuple[Alike, ...]:
    """The pairs whose errors are most correlated, on the items that both judged; constant ones have none."""
    error = 1 - agreement(won, gold)
    there = (~np.isnan(error)).astype(float)
    error = np.nan_to_num(error)
    n = there @ there.T
    # Sums over the items that both judged: of i's errors, of their squares, of the products.
    sums, squares, products = error @ there.T, error**2 @ there.T, error @ error.T
    spread = n * squares - sums**2
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = (n * products - sums * sums.T) / np.sqrt(spread * spread.T)
    first, second = np.triu_indices(len(names), 1)
    values = np.where((spread * spread.T)[first, second] > 1e-9, correlation[first, second], -np.inf)
    top = np.argsort(-values, kind="stable")[:most]
    return tuple(
        Alike((names[first[k]], names[second[k]]), float(values[k]), int(n[first[k], second[k]]))
        for k in top
        if np.isfinite(values[k])
    )


def combinations(judges: Sequence[Judged], gold: FloatArray, seed: int = 0) -> tuple[Combination, ...]:
    """Accuracy of each way to combine these judges, on the labelled items that at least one of them judged."""
    n = len(gold)
    won = won_by(judges, n)
    labelled = np.flatnonzero(~np.isnan(gold) & ~np.isnan(won).all(axis=0))
    if not len(labelled):
        return ()
    by_agreement = dawid_skene(won)[labelled]
    won, votes, gold = won[:, labelled], ballots(judges, n)[:, labelled], gold[labelled]
    p = np.array([judged.p for judged in judges])[:, labelled]
    found = {"mean": winners(np.nanmean(p, axis=0)), "majority": majority(votes)}
    if len(labelled) >= LEAST_GOLD:
        found |= _by_gold(won, votes, gold, seed)
    found["dawid_skene"] = by_agreement
    return tuple(Combination(method, mean(agreement(verdicts, gold))) for method, verdicts in found.items())


def majority(votes: FloatArray) -> FloatArray:
    """(n,) The winner of most of the judges' ballots (judges, n); 0.5 where as many prefer one as the other."""
    return weighted(votes, np.ones(len(votes)))


def weighted(votes: FloatArray, weights: FloatArray) -> FloatArray:
    """(n,) The winner by the judges' weights.

    It is the one that rlaif.panel.combined gives an export: of the log-odds of both orders the sum decides.
    """
    total = weights @ votes
    # Weights that cancel out leave rounding errors, which are no winner.
    return np.where(np.abs(total) < 1e-9, 0.5, np.sign(total) / 2 + 0.5)


def gold_weights(names: Sequence[str], won: FloatArray, gold: FloatArray) -> dict[str, float] | None:
    """Each judge's log-odds to be right (rlaif.panel.log_odds), by all labels; None if there are too few."""
    right = agreement(won, gold)
    if np.count_nonzero(~np.isnan(right).all(axis=0)) < LEAST_GOLD:
        return None
    return log_odds(
        {
            name: (float(np.nansum(row)), int(np.count_nonzero(~np.isnan(row))))
            for name, row in zip(names, right, strict=True)
        }
    )


def dawid_skene(won: FloatArray) -> FloatArray:
    """(n,) The winner by Dawid & Skene 1979: no labels are needed, the judges' agreement tells who is good.

    It takes errors for independent: where judges share a bias it believes the bias.
    """
    import pandas as pd

    with _without_the_rest_of("crowdkit.aggregation", "crowdkit.aggregation.classification"):
        from crowdkit.aggregation.classification.dawid_skene import DawidSkene

    worker, task = np.nonzero(~np.isnan(won))
    verdicts = np.full(won.shape[1], np.nan)
    if len(task):
        said = pd.DataFrame({"task": task, "worker": worker, "label": (2 * won[worker, task]).astype(int)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls pandas in ways that pandas 3 deprecates
            found = DawidSkene(n_iter=_ROUNDS).fit_predict(said)
        verdicts[found.index.to_numpy()] = found.to_numpy() / 2
    return verdicts


@contextmanager
def _without_the_rest_of(*packages: str) -> Iterator[None]:
    """A module of theirs is imported alone: their own imports, nltk and all of scipy.stats, take 2 s more."""
    absent = [name for name in packages if name not in sys.modules]
    for name in absent:
        module = ModuleType(name)
        top, *inner = name.split(".")
        module.__path__ = [str(Path(path, *inner)) for path in import_module(top).__path__]
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def bradley_terry(pairs: Sequence[tuple[str, str]], won: FloatArray, source: str = "") -> Strengths | None:
    """Strengths of who wrote the responses; `won` is 1 where the first one won, a tie is half a win for each."""
    games = [(a, b, w) for (a, b), w in zip(pairs, won.tolist(), strict=True) if a != b and w == w]
    if not games:
        return None
    from choix import ilsr_pairwise_dense
    from scipy.sparse.csgraph import connected_components

    names = sorted({name for a, b, _ in games for name in (a, b)})
    number = {name: i for i, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    for a, b, w in games:
        wins[number[a], number[b]] += w
        wins[number[b], number[a]] += 1 - w
    met = wins + wins.T > 0
    count, component = connected_components(met, directed=False)
    strengths: dict[str, float] = {}
    for i in range(count):
        (inside,) = np.nonzero(component == i)
        among = np.ix_(inside, inside)
        found = ilsr_pairwise_dense(wins[among] + _REGULARISED * met[among], max_iter=10_000)
        strengths |= {names[j]: float(strength) for j, strength in zip(inside, found, strict=True)}
    components = tuple(tuple(name for name in names if component[number[name]] == i) for i in range(count))
    return Strengths(source, strengths, components, len(games))


def _by_gold(won: FloatArray, votes: FloatArray, gold: FloatArray, seed: int) -> dict[str, FloatArray]:
    """Verdicts on each fold by weights, and by the best judge, of the other folds."""
    n = len(gold)
    right = agreement(won, gold)
    names = [str(i) for i in range(len(won))]
    fold = np.random.default_rng(seed).permutation(n) % _FOLDS
    by_weight, by_best = np.full(n, np.nan), np.full(n, np.nan)
    for held_out in range(_FOLDS):
        test = fold == held_out
        known = ~np.isnan(right[:, ~test])
        hits, of = np.nansum(right[:, ~test], axis=1), known.sum(axis=1)
        weights = log_odds({name: (float(hits[i]), int(of[i])) for i, name in enumerate(names)})
        by_weight[test] = weighted(votes[:, test], np.array([weights[name] for name in names]))
        # As in Laplace's rule: one right answer of one is no better than 90 of 100.
        by_best[test] = won[np.argmax((hits + 1) / (of + 2)), test]
    return {"weighted": by_weight, "best": by_best}


def _strengths(items: Items, votes: FloatArray) -> tuple[Strengths, ...]:
    known = [i for i, pair in enumerate(items.generators) if pair[0] is not None and pair[1] is not None]
    pairs = [(a, b) for a, b in items.generators if a is not None and b is not None]
    by = {"people": winners(items.gold[known])}
    if len(votes):
        by["judges"] = np.where((votes == 0).all(axis=0), np.nan, majority(votes))[known]
    found = (bradley_terry(pairs, verdicts, source) for source, verdicts in by.items())
    return tuple(one for one in found if one is not None)
