"""Before a run: can these stages do what is asked of them, and how many calls will it take at most?"""

from __future__ import annotations

from collections.abc import Sequence, Set

from rlaif.constitution import Constitution
from rlaif.errors import ConfigError
from rlaif.export.settings import ExportSettings, Strategy
from rlaif.stages import Evidence, Stage

# Strategy -> what it can be made from, and how to come by it.
_NEEDS: dict[Strategy, tuple[set[Evidence], str]] = {
    "best_vs_worst": ({"all", "scores"}, "verdicts: add a 'judge' stage with comparisons: [all], or a 'rate' stage"),
    "best_vs_random": ({"all", "scores"}, "verdicts: add a 'judge' stage with comparisons: [all], or a 'rate' stage"),
    "revision_vs_original": ({"revisions"}, "verdicts: add a 'judge' stage with comparisons: [revisions]"),
    "strong_vs_weak": ({"sides"}, "sides: add a 'contrast' stage, or 'sample' stages with side: strong and side: weak"),
}


def check_export(export: ExportSettings, stages: Sequence[tuple[str, Stage]]) -> None:
    """Refuse, before any call is paid for, pairs that these stages leave no evidence for."""
    evidence = frozenset(kind for _, stage in stages for kind in stage.leaves())
    for strategy in export.pairs:
        enough, how = _NEEDS[strategy]
        if not enough & evidence:
            raise ConfigError(f"export.pairs: '{strategy}' needs {how}, or set export.pairs=[]")
    if export.quality_floor is not None and "scores" not in evidence:
        raise ConfigError("export.quality_floor needs scores: add a 'rate' stage, or leave it out")


def check_draws(stages: Sequence[tuple[str, Stage]], constitution: Constitution) -> None:
    """Draw as often as the stages will; raises if there are too few principles with the text."""
    for _, stage in stages:
        for purpose, times in stage.draws().items():
            used: set[str] = set()
            for _ in range(times):
                used.add(constitution.draw("", purpose, used).id)


def calls_per_record(stages: Sequence[tuple[str, Stage]], principles: int, voters: Set[str] = frozenset()) -> int:
    """At most; `voters` are the roles whose models give no log-probabilities and are asked more often."""
    calls, candidates = 0, 0
    for _, stage in stages:
        more, candidates = stage.plan(candidates, principles, voters)
        calls += more
    return calls
