"""A round as commands: what is generated, trained and evaluated, from which models, into which folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif.config import asked_roles
from rlaif.loop.settings import ROUND, LoopSettings, Options, TrainStep, arguments, pipeline_of
from rlaif.loop.steps import Step


@dataclass(frozen=True, slots=True)
class Place:
    """Where a loop keeps what it makes; `name` begins the names of its runs and models."""

    out: Path
    runs_dir: Path

    @property
    def name(self) -> str:
        return self.out.name

    @property
    def settings(self) -> Path:
        return self.out / "loop.yaml"

    @property
    def current(self) -> Path:
        return self.out / "current.json"

    @property
    def lock(self) -> Path:
        return self.out / ".lock"

    @property
    def prompts(self) -> Path:
        return self.out / "prompts"

    @property
    def prompts_of_rounds(self) -> Path:
        return self.prompts / "rounds.jsonl"

    @property
    def held_out(self) -> Path:
        return self.prompts / "held-out.jsonl"

    def round(self, number: int) -> Path:
        return self.out / f"round-{number}"

    def run(self, number: int, of: str = "") -> str:
        """The name of a round's run; `of` an evaluation of it.

        Capability has one for all rounds, as it keeps the scores of each model there, and only there.
        """
        if of == "capability":
            return f"{self.name}-capability"
        return f"{self.name}-r{number}{'-' if of else ''}{of}"

    def summary(self, run: str) -> Path:
        return self.runs_dir / run / "summary.json"

    def evaluation(self, number: int, of: str) -> Path:
        return self.runs_dir / self.run(number, of) / "evaluation" / "evaluation.json"

    def model(self, number: int, step: str) -> Path:
        """Named after its round: answers, tables and cards call a model by the name of its folder."""
        return self.out / "models" / f"{self.name}-r{number}-{step}"


def steps(settings: LoopSettings, place: Place, number: int, first: str, last: str) -> list[Step]:
    """The commands of a round; `first` and `last` are models as `rlaif train` takes them."""
    trainings = _trainings(settings, place, number, last)
    new = str(trainings[-1].makes.parent)
    evaluations = _evaluations(settings, place, number, first, last, new)
    return [_generate(settings, place, number, last), *trainings, *evaluations]


def new_model(settings: LoopSettings, place: Place, number: int) -> str:
    """The folder of the model that a round ends with."""
    return str(place.model(number, _names(settings.train)[-1]))


def _generate(settings: LoopSettings, place: Place, number: int, last: str) -> Step:
    asked = settings.generate
    made = ["generate", asked.pipeline, "--policy", settings.policy(last), "--run", place.run(number)]
    made += ["--runs-dir", str(place.runs_dir), "--seed", str(settings.seed + number - 1)]
    judge = (
        settings.judge if "judge" in asked_roles(pipeline_of(settings)[1]) else None
    )  # a model nobody asks is refused
    made += _given(constitution=asked.constitution, limit=asked.limit, judge=judge)
    held_out = settings.evaluate is not None and settings.evaluate.hold_out is not None
    prompts = str(place.prompts_of_rounds) if held_out else asked.prompts and asked.prompts.replace(ROUND, str(number))
    made += _given(prompts=prompts)
    made += arguments(asked.set, asked.options)
    summary = place.summary(place.run(number))
    return Step(number, "generate", tuple(made), summary, place.round(number), summary)


def _trainings(settings: LoopSettings, place: Place, number: int, last: str) -> list[Step]:
    share = f"={settings.replay:g}" + (f",{settings.replay_rows}" if settings.replay_rows else "")
    old = [f"{place.run(n)}{share}" for n in range(number - 1, 0, -1)] if settings.replay else []
    steps, model, reward = [], last, None
    for name, step in zip(_names(settings.train), settings.train, strict=True):
        out = place.model(number, name)
        made = ["train", place.run(number), *old, *step.data, "--method", step.method, "--model", model]
        made += ["--out", str(out), "--runs-dir", str(place.runs_dir)]
        made += _given(recipe=step.recipe, reward=reward if step.needs_reward else None)
        # The next training, and every engine, takes a whole model.
        made += arguments(step.set, {"merge": step.writes_adapter(), **step.options})
        steps.append(Step(number, f"train-{name}", tuple(made), out / "training.json", place.round(number)))
        if step.method == "reward":
            reward = str(out)
        else:
            model = str(out)
    return steps


def _evaluations(settings: LoopSettings, place: Place, number: int, first: str, last: str, new: str) -> list[Step]:
    asked = settings.evaluate
    if asked is None:
        return []
    models = [settings.policy(model) for model in dict.fromkeys((first, last, new))]
    unsafe = asked.unsafe if asked.hold_out is None else str(place.held_out)
    safety = _given(unsafe=unsafe, safe=asked.safe, judge=asked.judge, classifier=asked.classifier)
    steps = [_evaluation(place, number, "safety", models, safety, asked.options)]
    if asked.compare is not None:
        compare = _given(prompts=asked.compare.prompts, judge=asked.compare.judge or settings.judge)
        steps.append(_evaluation(place, number, "compare", models[::-1], compare, asked.compare.options))
    if asked.capability is not None:
        tasks = _given(tasks=",".join(asked.capability.tasks) or None)
        steps.append(_evaluation(place, number, "capability", models, tasks, asked.capability.options))
    return steps


def _evaluation(
    place: Place, number: int, of: str, models: Sequence[str], asked: Sequence[str], options: Options
) -> Step:
    made = ["eval", of, *models, "--run", place.run(number, of), "--runs-dir", str(place.runs_dir), *asked]
    made += arguments({}, options)
    summary = place.summary(place.run(number, of))
    return Step(number, f"eval-{of}", tuple(made), place.evaluation(number, of), place.round(number), summary)


def _given(**options: str | int | None) -> list[str]:
    return list(arguments({}, options))


def _names(train: Sequence[TrainStep]) -> list[str]:
    """The method, and which of several it is: dpo, dpo-2."""
    methods = [step.method for step in train]
    earlier = [methods[:i].count(method) for i, method in enumerate(methods)]
    return [f"{method}-{n + 1}" if n else method for method, n in zip(methods, earlier, strict=True)]
