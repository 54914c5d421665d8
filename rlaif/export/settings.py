"""The `export:` block of a pipeline: outside the run's fingerprint, changed and applied in seconds."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Strategy = Literal["best_vs_worst", "revision_vs_original"]
Config = Literal["preference", "sft", "kto"]


class ExportSettings(BaseModel):
    """How pairs are made from verdicts and which datasets are written.

    `pairs`: with several strategies each prompt has its own order of trying them, drawn from its id,
    so that the mix is even where all of them succeed; `()` writes no pairs (a run without a judge).
    `min_p`: least probability that chosen beats rejected, averaged over both orders, judges and principles.
    `require_consistent`: chosen must win in both orders; a revision must in any case.
    `quality_floor`: a run-wide quantile (0.25 = the 25th percentile) that the rejected response's mean
    pointwise score must reach, so that chosen is not merely better than junk. None unless the run has
    pointwise scores: a win rate is relative to its own prompt, the worst of four always has one near 0,
    and a run-wide quantile of win rates would only throw away the clearest pairs.
    `test_fraction`: of prompts, by their hash: a prompt stays on its side when the run grows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: tuple[Strategy, ...] = ("best_vs_worst",)
    min_p: float = Field(default=0.65, ge=0.5, le=1.0)
    require_consistent: bool = True
    quality_floor: float | None = Field(default=None, gt=0.0, lt=1.0)
    max_pairs_per_prompt: int = Field(default=1, ge=1)  # unique prompts beat more pairs a prompt (Tulu 3)
    test_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    configs: tuple[Config, ...] = Field(default=("preference", "sft", "kto"), min_length=1)

    @field_validator("pairs", "configs")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("names something twice")
        return names
