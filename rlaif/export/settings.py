"""The `export:` block of a pipeline: outside the run's fingerprint, changed and applied in seconds."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from rlaif.hygiene.clean import Clean
from rlaif.panel import Panel

Strategy = Literal[
    "best_vs_worst",
    "best_vs_random",
    "mean_minus_2sd",
    "above_margin",
    "closure",
    "revision_vs_original",
    "strong_vs_weak",
]
Config = Literal["preference", "preference_soft", "sft", "kto", "reward", "scores", "prompts"]
SftKind = Literal["revisions", "chosen", "drafts"]
# The settings that choose among the pairs that were made.
CHOICE = ("max_length_gap", "ties", "clean", "max_refusal_share", "min_on_policy", "balance", "max_per_category")


class ExportSettings(BaseModel):
    """How pairs are made and which datasets are written; a dataset without rows is not.

    `pairs`: with several strategies each prompt has its own order of trying them, drawn from its id,
    so that the mix is even where all of them succeed; `()` writes no pairs (a run without a judge).
    `min_p`: least probability that chosen beats rejected, averaged over both orders, judges and principles.
    `require_consistent`: chosen must win in both orders; a revision must in any case. Neither applies to
    pairs by score or by side, nor to strong_vs_weak: there a judge must only not prefer the weak one.
    `min_margin`: least margin, from 0 to 1; applies to all pairs but those that nobody judged.
    `quality_floor`: a run-wide quantile (0.25 = the 25th percentile) that the rejected response's mean
    pointwise score must reach, so that chosen is not merely better than junk. None unless the run has
    pointwise scores: a win rate is relative to its own prompt, the worst of four always has one near 0,
    and a run-wide quantile of win rates would only throw away the clearest pairs.
    `max_length_gap`: most characters that one of the two may be longer than the other. Characters, since an export has
    no tokenizer and not every language has words between blanks; OLMo 3 caps at 100 tokens, about 400 characters of
    English.
    `ties`: `soft` keeps two responses that the judge found about as good, p from 0.45 to 0.55, as rows of
    `preference_soft`, beside all pairs with a p. A loss that reads no p would learn them as sure, so they are in no
    other dataset and no recipe reads them.
    `panel`: what several judges of a pair say together: the `mean` of their probabilities, the `majority`, or
    `weighted` by `weights`, each judge's log-odds to be right. `rlaif judge audit` makes these from labelled items.
    `clean`: what is left out of the pairs, one by one in the order of the records: of duplicates the first stays.
    `max_refusal_share`: at most this share of the pairs has a refusal as chosen. `min_on_policy`: at least this share
    has a response of the model `policy` (default: the run's model of that role); a tenth to a fifth lifts a lot.
    `balance`: no category has more than so many times the pairs of the smallest; `max_per_category`: nor more than
    these. What is too much goes by the hash of the pair, the same whatever the order, until all of these hold.
    `test_fraction`: of prompts, by their hash: a prompt stays on its side when the run grows.
    `sft`: a record gives the responses of the first kind that it has. `revisions` are those of all steps;
    a record that was revised has them even if all were filtered out, and then gives nothing. `drafts` are
    the live responses of records that were never revised, such as helpful prompts (section 3 of Bai et al. 2022),
    but for those of a weak side. One that was cut off is marked `truncated`; the filter's rule leaves it out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: tuple[Strategy, ...] = ("best_vs_worst",)
    min_p: float = Field(default=0.65, ge=0.5, le=1.0)
    require_consistent: bool = True
    min_margin: float = Field(default=0.0, ge=0.0, le=1.0)
    quality_floor: float | None = Field(default=None, gt=0.0, lt=1.0)
    max_length_gap: int | None = Field(default=None, ge=0)
    ties: Literal["drop", "soft"] = "drop"
    max_pairs_per_prompt: int = Field(default=1, ge=1)  # unique prompts beat more pairs a prompt (Tulu 3)
    panel: Panel = "mean"
    weights: dict[str, FiniteFloat] = Field(default_factory=dict)
    clean: Clean | None = None
    max_refusal_share: float | None = Field(default=None, ge=0.0, lt=1.0)
    min_on_policy: float | None = Field(default=None, gt=0.0, le=1.0)
    policy: str | None = None
    balance: float | None = Field(default=None, ge=1.0, allow_inf_nan=False)
    max_per_category: int | None = Field(default=None, ge=1)
    test_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    sft: tuple[SftKind, ...] = Field(default=("revisions", "chosen"), min_length=1)
    configs: tuple[Config, ...] = Field(
        default=("preference", "preference_soft", "sft", "kto", "reward", "scores", "prompts"), min_length=1
    )

    @field_validator("pairs", "sft", "configs")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("names something twice")
        return names

    @model_validator(mode="after")
    def _weighted_by(self) -> Self:
        if (self.panel == "weighted") != bool(self.weights):
            raise ValueError("`panel: weighted` and `weights` come together; `rlaif judge audit` writes both")
        return self
