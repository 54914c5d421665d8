"""Reward models held against labelled pairs, one after the other, and together as an ensemble."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rlaif.backends import ModelSpec, identity_of
from rlaif.constitution import load_constitution
from rlaif.context import Context
from rlaif.errors import CallFailed, ConfigError
from rlaif.evaluate.reward_figures import Evaluation, RewardFigures, Scores, reward_figures, uncertainty
from rlaif.evaluate.reward_pairs import Group, Labelled
from rlaif.journal import Journal
from rlaif.judges.ensemble import Combine, combined
from rlaif.judges.reward import reward_model, score_in, scored
from rlaif.models import display_name, open_models
from rlaif.process import run_in_loop
from rlaif.templates import Templates
from rlaif.types import Messages

_SLOTS = 16  # texts scored together
_AT_ONCE = 256  # texts that are asked for at once

Progress = Callable[[str, int, int], None]  # model, texts scored, of how many


def evaluate_rewards(
    models: Sequence[str],
    labelled: Labelled,
    *,
    folder: Path,
    environment: Mapping[str, str],
    combine: Combine = "mean",
    penalty: float = 1.0,
    progress: Progress = lambda model, done, of: None,
) -> Evaluation:
    """Scores what the journal does not know yet; the journal is the one beside the run's `folder`."""
    specs = [reward_model(text) for text in models]
    names = _names(models, specs)
    found: list[list[Scores]] = []
    figures: list[RewardFigures] = []
    for name, spec in zip(names, specs, strict=True):  # one at a time in memory
        scores, failures = run_in_loop(_scores(name, spec, labelled.groups, folder, dict(environment), progress))
        found.append(scores)
        figures.append(reward_figures(name, labelled.groups, scores, identity_of(spec), failures))
    spread = None
    if len(found) > 1:
        together = [_together(scores, combine, penalty) for scores in zip(*found, strict=True)]
        spread = uncertainty(names, combine, labelled.groups, found, together)
        figures.append(reward_figures(f"ensemble ({combine})", labelled.groups, together))
    dropped = dict(labelled.dropped.most_common())
    return Evaluation(labelled.address, labelled.shape, labelled.splits, dropped, tuple(figures), spread)


async def _scores(
    name: str,
    spec: ModelSpec,
    groups: Sequence[Group],
    folder: Path,
    environment: dict[str, str],
    progress: Progress,
) -> tuple[list[Scores], Counter[str]]:
    texts = [(group.prompt, answer) for group in groups for answer in group.answers]
    faster = spec.model_copy(update={"slots": _SLOTS})
    failures: Counter[str] = Counter()
    async with Journal(folder.parent / "calls.sqlite") as journal:
        models = open_models({name: faster}, journal, environment, folder)
        # A context has a constitution; a reward model is asked by none.
        context = Context(models, load_constitution("safety"), Templates(), stage="evaluation")

        async def one(prompt: Messages, answer: Messages) -> float | None:
            try:
                reply = await scored(name, (*prompt, *answer[:-1]), answer[-1].content, context)
            except CallFailed as failure:
                failures[str(failure.reason)] += 1
                return None
            score = score_in(reply)
            if score is None:
                failures["no_score"] += 1
            return score

        found: list[float | None] = []
        try:
            for start in range(0, len(texts), _AT_ONCE):
                progress(name, start, len(texts))
                found += await asyncio.gather(*(one(*text) for text in texts[start : start + _AT_ONCE]))
            progress(name, len(texts), len(texts))
        finally:
            for llm in models.values():
                await llm.close()
    if not any(score is not None for score in found):
        why = ", ".join(f"{reason} {n:,}" for reason, n in failures.most_common())
        raise ConfigError(f"{name} scored none of {len(texts):,} texts ({why})")
    values = iter(found)
    return [tuple(next(values) for _ in group.answers) for group in groups], failures


def _names(models: Sequence[str], specs: Sequence[ModelSpec]) -> list[str]:
    """As elsewhere; with where they lie, those that share a name."""
    if twice := next((text for i, text in enumerate(models) if text in models[:i]), None):
        raise ConfigError(f"{twice} is named twice; name each model once")
    names = [Path(spec.lora).name if spec.lora else display_name(spec) for spec in specs]
    return [text if names.count(name) > 1 else name for text, name in zip(models, names, strict=True)]


def _together(members: Sequence[Scores], combine: Combine, penalty: float) -> Scores:
    """An ensemble's scores of a group; without an answer that one of them has no score for."""
    answers = list(zip(*members, strict=True))
    known = [i for i, answer in enumerate(answers) if None not in answer]
    scores = combined([[score for score in answers[i] if score is not None] for i in known], combine, penalty)
    by_place = dict(zip(known, scores, strict=True))
    return tuple(by_place.get(i) for i in range(len(answers)))
