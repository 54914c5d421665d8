"""The loop: rounds one after the other, each taken up where it was left, each model held to the gates."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif.backends import identity_of
from rlaif.config import asked_roles
from rlaif.documents import load
from rlaif.errors import ConfigError, RlaifError
from rlaif.evaluate.models import spec_of
from rlaif.loop.evaluation import Evaluation, percent, read_evaluation, weights
from rlaif.loop.gates import held
from rlaif.loop.heldout import check_held_out, split
from rlaif.loop.outcome import content_of, failures, generated, trained
from rlaif.loop.plan import Place, new_model, steps
from rlaif.loop.report import Model, Round, StepReport, read_round, write_loop, write_round
from rlaif.loop.settings import ROUND, LoopSettings, changes, contents, pipeline_of
from rlaif.loop.steps import Done, Lock, Step, digest, done_before, failure, run, settle
from rlaif.plan import check_export
from rlaif.store import write_whole
from rlaif.train.methods import datasets_of
from rlaif.version import __version__


@dataclass(frozen=True, slots=True)
class Waiting:
    """For the step of a loop that was killed, which is still at work."""

    step: str


@dataclass(frozen=True, slots=True)
class Begun:
    step: Step


@dataclass(frozen=True, slots=True)
class Ended:
    """`before`: it was done before this start of the loop."""

    step: Step
    report: StepReport
    before: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """A round is over. `before`: it was before this start of the loop."""

    round: Round
    before: bool


Event = Waiting | Begun | Ended | Judged


def run_loop(settings: LoopSettings, place: Place) -> Generator[Event, None, list[Round]]:
    """Every round that is not over yet, until a gate holds a model back; gives and returns what came of them.

    What a step has done is not done again, however the loop ended: each leaves a file that says so.

    Raises:
        ConfigError: settings that cannot be used, or a folder of another loop. StepFailed: a command failed.
        KeyboardInterrupt: after Ctrl-C, when the command that ran has kept what it had.
    """
    check(settings, place.runs_dir)
    first = _model(settings, settings.model)
    with Lock(place.lock) as lock:
        for step in lock.take():
            yield Waiting(step)
        _begin(settings, place, first)
        split(settings, place)
        rounds = list(_taken(place))
        for known in rounds:
            yield Judged(known, before=True)
        if rounds:
            _check_there(settings, rounds[-1])
        _write_results(place, first, rounds)
        while len(rounds) < settings.rounds and (not rounds or rounds[-1].promoted):
            number, last = len(rounds) + 1, rounds[-1].model if rounds else first
            found = yield from _round(settings, place, lock, number, first, last)
            rounds.append(found)
            write_round(place.round(number), found)
            _write_results(place, first, rounds)
            yield Judged(found, before=False)
        return rounds


def planned(settings: LoopSettings, place: Place) -> list[tuple[Step, bool]]:
    """All steps of all rounds, and whether each was done already; runs and writes nothing."""
    check(settings, place.runs_dir)
    if place.settings.is_file():
        _check_same(place, _content(settings, place, _model(settings, settings.model)))
    last, plan = settings.model, []
    for number in range(1, settings.rounds + 1):
        plan += [(step, step.done_file.is_file()) for step in steps(settings, place, number, settings.model, last)]
        last = new_model(settings, place, number)
    return plan


def check(settings: LoopSettings, runs_dir: Path) -> None:
    """What can be known before hours are spent. Raises ConfigError."""
    contents(settings)
    asked = settings.generate
    found, stages = pipeline_of(settings)
    check_export(found.export, stages)
    if "policy" not in asked_roles(stages):
        raise ConfigError(f"generate.pipeline: no stage of '{asked.pipeline}' asks the model that is trained: `policy`")
    if asked.prompts is not None and ROUND in asked.prompts:
        for number in range(1, settings.rounds + 1):
            if not Path(name := asked.prompts.replace(ROUND, str(number))).is_file():
                raise ConfigError(f"generate.prompts: no file {name}; write one for each of {settings.rounds} rounds")
    asking = settings.evaluate
    for judge in (settings.judge, asking and asking.judge, asking and asking.compare and asking.compare.judge):
        if judge:
            spec_of(judge)
    check_held_out(settings, runs_dir)


# --- one round ---


def _round(
    settings: LoopSettings, place: Place, lock: Lock, number: int, first: Model, last: Model
) -> Generator[Event, None, Round]:
    made, new = [], None
    inputs = digest(first.identity, last.identity)
    for step in steps(settings, place, number, first.model, last.model):
        if step.name.startswith("eval-") and new is None:
            new = _new(settings, place, number, last)
        inputs = digest(inputs, step.arguments)
        done = done_before(step, inputs)
        before = done is not None
        if done is None:
            yield Begun(step)
            done = run(step, inputs, lock)
            _check_ended(step, done, settings.max_failed)
            settle(step, done)
        if step.name == "generate":
            _check_generated(settings, place, number, last)
        made.append(StepReport(step.name, step.command, done.seconds, _said(step, new, last)))
        yield Ended(step, made[-1], before)
    return _judged(settings, place, number, first, last, new or _new(settings, place, number, last), made)


def _check_ended(step: Step, done: Done, max_failed: float) -> None:
    """Raises StepFailed. A run in which a few records failed has made its dataset, or its figures, all the same."""
    if done.exit == 0:
        return
    if done.exit == 1 and step.summary is not None and step.made_by(done):
        content = content_of(step.summary)
        if content.get("status") == "done" and (lost := failures(content)) and lost[0] <= max_failed * lost[1]:
            return
    raise failure(step, done)


def _check_generated(settings: LoopSettings, place: Place, number: int, last: Model) -> None:
    """Raises RlaifError where a step of the round would find nothing to train on, before those ahead of it train."""
    run = place.run(number)
    dataset = place.runs_dir / run / "dataset"
    for step in settings.train:
        names = datasets_of(step.method, soft=step.trl()[1])
        if not any((dataset / name).is_dir() for name in names):
            raise RlaifError(
                f"round {number}: nothing for {step.method} came of generate: {dataset} has no {' or '.join(names)}; "
                f"{last.model} stays. Make more of the same answers, as with `rlaif export {run} --set "
                "export.min_p=0.5`, and run this again; or begin a loop of its own from that model with more prompts"
            )


def _new(settings: LoopSettings, place: Place, number: int, last: Model) -> Model:
    new = _model(settings, new_model(settings, place, number))
    if new.identity == last.identity:
        raise RlaifError(
            f"round {number}: training changed nothing: {new.model} is {last.model} to the last bit; look at "
            f"learning_rate and num_train_epochs in {new.model}/training.json"
        )
    return new


def _judged(
    settings: LoopSettings,
    place: Place,
    number: int,
    first: Model,
    last: Model,
    new: Model,
    made: Sequence[StepReport],
) -> Round:
    if settings.evaluate is None:
        reason = "not evaluated, as the settings say"
        return Round(number, new, last, first, True, reason, steps=tuple(made))
    found = _evaluation(settings, place, number, {first.identity, last.identity}, new)
    gates = held(settings.gates, found, new.identity, last.identity, first.identity)
    missed = [gate.sentence for gate in gates if not gate.passed]
    reason = f"all gates passed ({len(gates)})" if gates else "there is no gate to hold it to"
    if missed:
        reason = f"{last.model} stays: {'; '.join(missed)}"
    roles = {"first": first, "last": last, "new": new}
    return Round(
        number,
        new,
        last,
        first,
        promoted=not missed,
        reason=reason,
        gates=tuple(gates),
        measured={
            role: found.of(model.identity) for role, model in roles.items() if weights(model.identity) in found.models
        },
        win_rate_last=found.win_rate(new.identity, last.identity),
        win_rate_first=found.win_rate(new.identity, first.identity),
        capability={role: dict(found.scores(model.identity)) for role, model in roles.items()},
        steps=tuple(made),
    )


def _evaluation(settings: LoopSettings, place: Place, number: int, others: AbstractSet[str], new: Model) -> Evaluation:
    """Raises ConfigError where one of the models is missing in it: its gates would pass unseen."""
    asked = settings.evaluate
    assert asked is not None
    safety = place.evaluation(number, "safety")
    compare = place.evaluation(number, "compare") if asked.compare else None
    capability = place.evaluation(number, "capability") if asked.capability else None
    found = read_evaluation(safety, compare, capability)
    for path, there in (
        (safety, found.models.keys()),
        (compare, {model for pair in found.win_rates for model in pair}),
        (capability, found.capability.keys()),
    ):
        if path is not None and (missing := {weights(identity) for identity in (*others, new.identity)} - there):
            raise ConfigError(f"{path} has no figures of {', '.join(sorted(missing))}; remove {path.parent.parent}")
    return found


def _said(step: Step, new: Model | None, last: Model) -> str:
    """What came out of a step that is done."""
    if step.name == "generate":
        return generated(step.makes)
    if new is None:
        return trained(step.makes)
    paths = {kind: step.makes if step.name == f"eval-{kind}" else None for kind in ("safety", "compare", "capability")}
    found = read_evaluation(paths["safety"], paths["compare"], paths["capability"])
    before, after = found.of(last.identity), found.of(new.identity)
    words = {"harmful": "harmful_compliance", "over-refusal": "over_refusal"}
    parts = [
        f"{word} {percent(getattr(before, name))} to {percent(getattr(after, name))}"
        for word, name in words.items()
        if getattr(after, name) is not None
    ]
    if (rate := found.win_rate(new.identity, last.identity)) is not None:
        parts.append(f"wins {percent(rate) or 'unknown'} against the last model")
    scores = found.scores(new.identity)
    parts += [f"{task} {score:.1%}" for task, score in scores.items()]
    return ", ".join(parts)


# --- the loop's folder ---


def _model(settings: LoopSettings, name: str) -> Model:
    return Model(name, identity_of(settings.spec(name)))


def _begin(settings: LoopSettings, place: Place, first: Model) -> None:
    content = _content(settings, place, first)
    if place.settings.is_file():
        _check_same(place, content)
    write_whole(place.settings, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())


def _content(settings: LoopSettings, place: Place, first: Model) -> dict[str, Any]:
    """loop.yaml, with every default spelled out."""
    return {
        "rlaif": __version__,
        "settings": settings.model_dump(mode="json"),
        "runs_dir": str(place.runs_dir),
        "contents": {**contents(settings), "model": first.identity},
    }


def _check_same(place: Place, now: dict[str, Any]) -> None:
    before = load(place.settings).data
    if not (isinstance(before, dict) and {"settings", "contents", "runs_dir"} <= before.keys()):
        raise ConfigError(f"{place.settings} is not what rlaif wrote: remove it, or give another --out")
    if lines := changes(before, now):
        raise ConfigError(
            f"{place.out} is a loop with other settings:\n  "
            + "\n  ".join(lines)
            + "\ngive another --out folder; answers that are the same come from the journal. `rounds` may grow here, "
            "and `gates` may change"
        )


def _taken(place: Place) -> Iterator[Round]:
    """The rounds that are over. One whose model was not taken is judged anew: the gates may be others by now."""
    number = 1
    while (known := read_round(place.round(number))) is not None and known.promoted:
        yield known
        number += 1


def _check_there(settings: LoopSettings, known: Round) -> None:
    """The model of a round is what it was. Raises ConfigError."""
    if not Path(known.model.model).is_dir():
        raise ConfigError(f"{known.model.model}, the model of round {known.number}, is gone; put it back")
    if (now := _model(settings, known.model.model)).identity != known.model.identity:
        raise ConfigError(
            f"{now.model} is not the model any more that round {known.number} ended with "
            f"({known.model.identity}, now {now.identity}); put it back"
        )


def _write_results(place: Place, first: Model, rounds: Sequence[Round]) -> None:
    write_loop(place.out, first, rounds)
    taken = [found for found in rounds if found.promoted]
    current = {"round": taken[-1].number if taken else 0, **asdict(taken[-1].model if taken else first)}
    write_whole(place.current, (json.dumps(current, indent=2) + "\n").encode())
