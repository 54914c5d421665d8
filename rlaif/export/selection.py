"""Which of the pairs that were made are exported: what cleaning leaves, and shares and balance of that."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from math import floor as whole
from typing import Literal

from rlaif.errors import ConfigError
from rlaif.export.pairs import Pair
from rlaif.export.ratings import floor_of
from rlaif.export.settings import ExportSettings
from rlaif.export.strategies import NOTHING, Found, found_in
from rlaif.hygiene.clean import Cleaner, Texts
from rlaif.hygiene.refusing import refuses
from rlaif.types import Record

Share = Literal["refusal_share", "off_policy_share", "category_balance"]
Made = tuple[Record, Found]
Why = Sequence[str | None]  # of a record's pairs and then of its ties: why each is left out, None if it stays
Selection = Callable[[Sequence[Made]], Iterable[Why]]
_ROUNDING = 1e-9
_BATCH = 256  # cleaning is faster for some rows at once


def selected(
    records: Callable[[], Iterable[Record]], settings: ExportSettings, policy: str | None
) -> Iterator[tuple[Record, Found, Why]]:
    """All records in their order, with what was found in them, and why each of that is left out.

    `records` is called once, and once more for a run-wide quantile and for shares of all pairs. `policy` is the name of
    the run's policy, which `min_on_policy` is about unless the settings name another model.
    """
    floor = floor_of(records, settings.quality_floor)

    def made() -> Iterator[list[Made]]:
        each = iter(records())
        while some := list(islice(each, _BATCH)):
            yield [(one, found_in(one, settings, floor) if one.outcome == "ok" else NOTHING) for one in some]

    select = selection(made, settings, settings.policy or policy)
    for some in made():
        for (record, found), why in zip(some, select(some), strict=True):
            yield record, found, why


def kept(found: Found, why: Why) -> Found:
    """What is exported of it; a record whose pairs are all left out has none for the reason of its first."""
    if not any(why):
        return found
    n = len(found.pairs)
    pairs = tuple(pair for pair, reason in zip(found.pairs, why, strict=False) if reason is None)
    ties = tuple(tie for tie, reason in zip(found.ties, why[n:], strict=True) if reason is None)
    return Found(pairs, ties, None if pairs else found.reason or why[0])


def selection(made: Callable[[], Iterable[Sequence[Made]]], settings: ExportSettings, policy: str | None) -> Selection:
    """To be asked about all records with what was found in them, in their order and some at a time.

    `made` gives them so too; it is called only where a share can be kept by nobody but who knows all pairs: about 20
    bytes of each are remembered. `policy` is the name of the model that `min_on_policy` is about.
    """
    cleaning = _cleaning(settings)
    if settings.max_refusal_share is settings.min_on_policy is settings.balance is settings.max_per_category is None:
        return cleaning
    shares = _Shares(settings, policy)
    for some in made():
        for (record, found), why in zip(some, cleaning(some), strict=True):
            for i, (pair, reason) in enumerate(zip(_all(found), why, strict=True)):
                shares.add(record, pair, reason, counts=i < len(found.pairs))
    reasons = shares.reasons()
    return lambda some: [[next(reasons) for _ in _all(found)] for _, found in some]


def _cleaning(settings: ExportSettings) -> Selection:
    if settings.clean is None:
        return lambda some: [(None,) * len(_all(found)) for _, found in some]
    cleaner = Cleaner(settings.clean)

    def cleaning(some: Sequence[Made]) -> Iterable[Why]:
        reasons = cleaner.reasons([_texts(record, pair) for record, found in some for pair in _all(found)])
        named = (because and f"cleaned: {because[0]}" for because in reasons)
        return [[next(named) for _ in _all(found)] for _, found in some]

    return cleaning


def _all(found: Found) -> tuple[Pair, ...]:
    return found.pairs + found.ties


def _texts(record: Record, pair: Pair) -> Texts:
    prompt = "\n\n".join([message.content for message in record.prompt])
    return Texts(prompt, record.responses[pair.chosen].text, record.responses[pair.rejected].text)


class _Shares:
    """All pairs of a run, as little of each as it takes: a hash, its category, and what it counts for."""

    def __init__(self, settings: ExportSettings, policy: str | None) -> None:
        if settings.min_on_policy is not None and policy is None:
            raise ConfigError(
                "export.min_on_policy: which model is the policy? This run has none of that role; name it as in "
                "chosen_model: --set export.policy=NAME"
            )
        self._settings, self._policy = settings, policy
        self._names: dict[str | None, int] = {None: 0}  # of the reasons
        self._categories: dict[str | None, int] = {}
        self._reason = array("H")
        self._hash = array("Q")
        self._category = array("L")
        self._counts, self._refuses, self._on_policy = bytearray(), bytearray(), bytearray()

    def add(self, record: Record, pair: Pair, reason: str | None, *, counts: bool) -> None:
        """In order. `counts`: a tie is in no share."""
        chosen, rejected = record.responses[pair.chosen], record.responses[pair.rejected]
        self._reason.append(self._names.setdefault(reason, len(self._names)))
        key = blake2b(f"{record.id}/{chosen.text.strip()}\0{rejected.text.strip()}".encode(), digest_size=8).digest()
        self._hash.append(int.from_bytes(key))
        self._category.append(self._categories.setdefault(record.category, len(self._categories)))
        self._counts.append(counts)
        self._refuses.append(self._settings.max_refusal_share is not None and refuses(chosen))
        self._on_policy.append(self._policy in (chosen.model, rejected.model))

    def reasons(self) -> Iterator[str | None]:
        """Each rule drops what is too much for it; since what one drops may be another's share, until none does."""
        kept = [i for i, reason in enumerate(self._reason) if not reason and self._counts[i]]
        kept.sort(key=self._hash.__getitem__)
        rules: list[tuple[Share, Callable[[list[int]], list[int]]]] = [
            ("refusal_share", self._few_refusals),
            ("off_policy_share", self._enough_on_policy),
            ("category_balance", self._balanced),
        ]
        before = len(kept) + 1
        while len(kept) < before:
            before = len(kept)
            for name, rule in rules:
                left = rule(kept)
                if len(left) < len(kept):
                    code = self._names.setdefault(name, len(self._names))
                    for i in set(kept).difference(left):
                        self._reason[i] = code
                kept = left
        names = list(self._names)
        return (names[reason] for reason in self._reason)

    def _few_refusals(self, kept: list[int]) -> list[int]:
        share = self._settings.max_refusal_share
        if share is None:
            return kept
        others = sum(not self._refuses[i] for i in kept)
        return _at_most(kept, self._refuses, whole(share * others / (1 - share) + _ROUNDING))

    def _enough_on_policy(self, kept: list[int]) -> list[int]:
        share = self._settings.min_on_policy
        if share is None:
            return kept
        on = sum(self._on_policy[i] for i in kept)
        off = bytearray(not one for one in self._on_policy)
        return _at_most(kept, off, whole(on * (1 - share) / share + _ROUNDING))

    def _balanced(self, kept: list[int]) -> list[int]:
        balance, most = self._settings.balance, self._settings.max_per_category
        sizes = Counter(self._category[i] for i in kept)
        room = max(sizes.values(), default=0)
        if balance is not None and sizes:
            room = min(room, whole(balance * min(sizes.values()) + _ROUNDING))
        if most is not None:
            room = min(room, most)
        taken = Counter[int]()
        left = []
        for i in kept:
            taken[self._category[i]] += 1
            if taken[self._category[i]] <= room:
                left.append(i)
        return left


def _at_most(kept: list[int], counted: bytearray, room: int) -> list[int]:
    """All that are not counted, and the first `room` of those that are."""
    left = []
    for i in kept:
        room -= counted[i]
        if not counted[i] or room >= 0:
            left.append(i)
    return left
