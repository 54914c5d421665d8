"""How a dataset is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from rlaif.export.settings import Config
from rlaif.foreign.rankings import Pick
from rlaif.foreign.shapes import Pairing

As = Literal["auto", "hh", "pairs", "ultrafeedback", "nectar", "ranking", "ratings", "thumbs"]
PAIRING: Mapping[As, Pairing | None] = {
    "auto": None,
    "hh": "paired",
    "pairs": "paired",
    "ultrafeedback": "ranked",
    "nectar": "ranked",
    "ranking": "ranked",
    "ratings": "rated",
    "thumbs": "unpaired",
}


class ImportSettings(BaseModel):
    """What `--set` sets.

    `pick`: of a prompt's rated answers the best against the worst, or all pairs; at most `max_pairs_per_prompt` of
    them, the widest. `min_margin`: least margin from 0 to 1; of pairs whose rows say no margin it asks nothing.
    `scale`: lowest and highest rating; None: those that occur, of a column of margins 0 and the greatest if that is
    above 1. Ranks need none.
    `test_fraction`: of prompts, by their hash, where there is one split only and its name is no test's; of several,
    what begins with `train` stays that and all others become `test`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pick: Pick = "best_vs_worst"
    max_pairs_per_prompt: int | None = Field(default=None, ge=1)
    min_margin: float = Field(default=0.0, ge=0.0, le=1.0)
    scale: tuple[FiniteFloat, FiniteFloat] | None = None
    test_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    configs: tuple[Literal["preference", "sft", "kto", "reward"], ...] = Field(
        default=("preference", "sft", "kto", "reward"), min_length=1
    )

    @model_validator(mode="after")
    def _upwards(self) -> Self:
        if self.scale and self.scale[0] >= self.scale[1]:
            raise ValueError("`scale` is the lowest rating and then the highest, like [1, 5]")
        return self

    def writes(self, config: Config) -> bool:
        return config in self.configs
