"""Two runs over the same prompts: whose pairs changed, and which principles are behind it."""

from __future__ import annotations

from rlaif.rundiff.found import Example, Fate, RunDiff, Side, What
from rlaif.rundiff.runs import diff

__all__ = ["Example", "Fate", "RunDiff", "Side", "What", "diff"]
