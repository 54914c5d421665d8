"""Before a run: can these stages do what is asked of them, and how many calls will it take at most?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from rlaif.backends import FALLBACK
from rlaif.config import LOCAL, Settings, asked_roles
from rlaif.constitution import Constitution
from rlaif.errors import ConfigError
from rlaif.export.settings import CHOICE, ExportSettings, Strategy
from rlaif.hygiene.clean import check
from rlaif.panel import weight_of
from rlaif.source import Prompts
from rlaif.stages import Evidence, Stage
from rlaif.stages.judge import Judge

# Strategy -> what it can be made from (any of it; of the sides both), and how to come by it.
_ALL = "verdicts: add a 'judge' stage with comparisons: [all]"
_NEEDS: dict[Strategy, tuple[set[Evidence], str]] = {
    "best_vs_worst": ({"all", "scores"}, f"{_ALL}, or a 'rate' stage"),
    "best_vs_random": ({"all", "scores"}, f"{_ALL}, or a 'rate' stage"),
    "mean_minus_2sd": ({"all", "scores"}, f"{_ALL}, or a 'rate' stage"),
    "above_margin": ({"all", "revisions", "scores"}, f"{_ALL}, or a 'rate' stage"),
    "closure": ({"all"}, _ALL),
    "revision_vs_original": ({"revisions"}, "verdicts: add a 'judge' stage with comparisons: [revisions]"),
    "strong_vs_weak": (
        {"strong", "weak"},
        "two sides: add a 'contrast' stage, or 'sample' stages with side: strong and side: weak",
    ),
}
# They take what was judged, whatever came after it; the others compare all there is.
_PARTIAL: tuple[Strategy, ...] = ("above_margin", "closure", "strong_vs_weak")

_WHERE = "(in a new run, if this one has begun)"
_OR_ELSE = f" {_WHERE}, or set export.pairs=[]"


def check_export(export: ExportSettings, stages: Sequence[tuple[str, Stage]]) -> None:
    """Refuse, before any call is paid for, pairs that these stages leave no evidence for.

    Of an existing run it says the same: its stages stay, so that other pairs need a new run.
    """
    evidence = frozenset(kind for _, stage in stages for kind in stage.leaves())
    for strategy in export.pairs:
        enough, how = _NEEDS[strategy]
        if not enough & evidence or (strategy == "strong_vs_weak" and not enough <= evidence):
            raise ConfigError(f"export.pairs: '{strategy}' needs {how}{_OR_ELSE}")
        if strategy not in _PARTIAL:
            _check_order(strategy, enough, stages)
    if export.quality_floor is not None and "scores" not in evidence:
        raise ConfigError(f"export.quality_floor needs scores: add a 'rate' stage {_WHERE}, or leave it out")
    _check_choice(export, evidence, asked_roles(stages))


def _check_choice(export: ExportSettings, evidence: Set[Evidence], roles: Sequence[str]) -> None:
    """What chooses among the pairs."""
    given = [name for name in CHOICE if getattr(export, name) not in (None, "drop")]
    if given and not export.pairs:
        raise ConfigError(f"export.{given[0]} is about pairs, and export.pairs=[] makes none: leave it out")
    if export.ties == "soft":
        if not evidence & {"all", "revisions"}:
            raise ConfigError(f"export.ties=soft needs verdicts: add a 'judge' stage {_WHERE}, or say ties=drop")
        if "preference_soft" not in export.configs:
            raise ConfigError("export.ties=soft writes `preference_soft`: name it in export.configs, or say ties=drop")
    if export.clean is not None:
        check(export.clean)
    if export.min_on_policy is not None and export.policy is None and "policy" not in roles:
        raise ConfigError(
            "export.min_on_policy: no stage asks a model of the role 'policy'; name the model whose responses are on "
            "policy, as in the column chosen_model: export.policy=NAME"
        )
    if export.policy is not None and export.min_on_policy is None:
        raise ConfigError("export.policy says whose responses are on policy for export.min_on_policy: give that too")


def _check_order(strategy: Strategy, enough: Set[Evidence], stages: Sequence[tuple[str, Stage]]) -> None:
    """What is added after a prompt set's last judge is a candidate that nobody judges; a filter adds none."""
    for label in sorted({label for _, stage in stages for label in stage.only}) or [""]:
        judge, added = "", list[str]()
        for name, stage in stages:
            if stage.only and label not in stage.only:
                continue
            if enough & stage.leaves():
                judge, added = name, []
            elif stage.plan(1, 1)[1] > 1:
                added.append(name)
        if judge and added:
            late = " and ".join(f"'{name}'" for name in added)
            raise ConfigError(
                f"export.pairs: '{strategy}' compares all responses, but nothing judges those of {late} after "
                f"'{judge}': move '{judge}' to the end of the stages{_OR_ELSE}"
            )


def check_weights(export: ExportSettings, stages: Sequence[tuple[str, Stage]], names: Mapping[str, str]) -> None:
    """Refuse, before any call is paid for, a weighted panel of judges without weights; `names` are by role."""
    if export.panel != "weighted":
        return
    roles = [role for _, stage in stages if isinstance(stage, Judge) for role in stage.roles()]
    for role in [*roles, *(role + FALLBACK for role in roles)]:
        if role in names:
            weight_of(names[role], export.weights)


def check_roles(settings: Settings, stages: Sequence[tuple[str, Stage]]) -> None:
    """Refuse a model that nobody asks: somebody would believe that it was. Policy and judge are there by default."""
    asked = asked_roles(stages)
    for role, spec in settings.models.items():
        if role not in asked and not (role in ("policy", "judge") and spec == LOCAL):
            raise ConfigError(
                f"a model is given for the role '{role}', and no stage of '{settings.name}' asks it; "
                f"asked are: {', '.join(asked)}"
            )


def check_responses(stages: Sequence[tuple[str, Stage]], prompts: Sequence[Prompts] = ()) -> None:
    """Refuse stages that begin with one that has nothing to work on; one of the user's own may make responses."""
    name, first = stages[0]
    given = all(one.responses for one in prompts if not first.only or one.label in first.only) and bool(prompts)
    if not given and first.plan(0, 1)[1] == 0 and type(first).__module__.startswith("rlaif.stages."):
        raise ConfigError(
            f"stages: '{name}' comes first and has no responses to work on; begin with sample or contrast, "
            "or name the columns that hold responses with --set prompts.responses=[A,B]"
        )


def check_draws(stages: Sequence[tuple[str, Stage]], constitution: Constitution) -> None:
    """Draw as often as the stages will; raises if there are too few principles with the text."""
    for _, stage in stages:
        for purpose, times in stage.draws().items():
            used: set[str] = set()
            for _ in range(times):
                used.add(constitution.draw("", purpose, used).id)


def calls_per_record(
    stages: Sequence[tuple[str, Stage]], principles: int, voters: Set[str] = frozenset(), given: int = 0
) -> int:
    """At most, for a record that comes with so many responses.

    `voters` are the roles whose models give no log-probabilities and are asked more often.
    """
    calls, candidates = 0, given
    for _, stage in stages:
        more, candidates = stage.plan(candidates, principles, voters)
        calls += more
    return calls
