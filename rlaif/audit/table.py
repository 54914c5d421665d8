"""What an audit looks at: items that people labelled, and what judges said of them, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rlaif.types import VerdictOutcome

FloatArray = npt.NDArray[np.float64]
CASCADE = "cascade"  # the name of what the judges of one say together


@dataclass(frozen=True, slots=True)
class Items:
    """Of n items, each a prompt and two responses, what is known without asking a judge.

    `gold` (n,) is P(the first response is the better one) by people: 1, 0, a tie 0.5, not labelled nan.
    `lengths` (n, 2) are the responses' characters, nan where not known. `generators` say who wrote them, `groups` of
    which kind an item is; both are () where nobody knows. `annotators` are the labels of several people, each (n,)
    like `gold`.
    """

    ids: tuple[str, ...]
    gold: FloatArray
    lengths: FloatArray
    generators: tuple[tuple[str | None, str | None], ...] = ()
    annotators: Mapping[str, FloatArray] = field(default_factory=dict)
    groups: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Judged:
    """One judge's answers to the n items.

    `p_ab` (n,) is its P(the first response is better) when that was shown first, `p_ba` when it was shown second; nan
    where there is no usable answer. A judge asked in one order only has `both_orders` False and a `p_ba` of nan.
    `outcomes` are per item, None where it was not asked.
    """

    judge: str
    p_ab: FloatArray
    p_ba: FloatArray
    outcomes: tuple[VerdictOutcome | None, ...]
    principles: tuple[str | None, ...] = ()
    both_orders: bool = True
    calls: int | None = None
    cost_usd: float | None = None

    @property
    def p(self) -> FloatArray:
        """(n,) The mean of both orders, nan unless both are there; of one order where no other was asked."""
        return (self.p_ab + self.p_ba) / 2 if self.both_orders else self.p_ab
