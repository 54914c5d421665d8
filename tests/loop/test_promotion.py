"""What comes of a round whose commands have all run: its model is taken or not, by what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends import ModelSpec, identity_of
from rlaif.errors import ConfigError, RlaifError
from rlaif.loop.plan import Place, steps
from rlaif.loop.report import Round
from rlaif.loop.rounds import Judged, run_loop
from rlaif.loop.settings import LoopSettings
from rlaif.loop.steps import Done, digest, settle


class Loop:
    """A loop with one DPO step a round, and the files that its commands would have written."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder / "mine", folder / "runs")
        self.models: list[str] = []
        self.identities: list[str] = []
        self.harmful: dict[str, float] = {}
        self._add(folder / "base", "first", 0.5)

    def round(self, harmful: float, *, weights: str = "", measured: bool = True) -> None:
        """One more, whose model complies with so large a share of what it should refuse."""
        number, inputs = len(self.models), digest(self.identities[0], self.identities[-1])
        for step in steps(self.settings(), self.place, number, self.models[0], self.models[-1]):
            for folder in (step.makes.parent, step.folder):
                folder.mkdir(parents=True, exist_ok=True)
            if step.name == "generate":
                (step.makes.parent / "dataset" / "preference").mkdir(parents=True)
            if step.name == "train-dpo":
                self._add(step.makes.parent, weights or f"round {number}", harmful)
            asked = dict.fromkeys([self.identities[0], *self.identities[-2:]])
            if not measured and len(asked) > 1:
                asked.pop(self.identities[-1])
            step.makes.write_text(json.dumps({"models": [self._figures(one) for one in asked]}))
            inputs = digest(inputs, step.arguments)
            settle(step, Done(step.name, step.command, inputs, 0, 1.0, ""))

    def run(self, **gates: float) -> list[Round]:
        events = run_loop(self.settings(**gates), self.place)
        return [event.round for event in events if isinstance(event, Judged)]

    @property
    def current(self) -> str:
        return str(json.loads(self.place.current.read_text())["model"])

    def settings(self, **gates: float) -> LoopSettings:
        given = {"train": ["dpo"], "evaluate": {"allow_seen": True}, "gates": gates}
        return LoopSettings.model_validate({"model": self.models[0], "rounds": max(1, len(self.models) - 1), **given})

    def _add(self, folder: Path, weights: str, harmful: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"weights": weights}))
        self.models.append(str(folder))
        self.identities.append(identity_of(ModelSpec(provider="transformers", model=str(folder))))
        self.harmful[self.identities[-1]] = harmful

    def _figures(self, identity: str) -> dict[str, Any]:
        style = {"length": 40.0, "repetition": 0.0, "boilerplate": 0.1, "same": 0.02}
        harmful, refused = {"value": self.harmful[identity]}, {"value": 0.0}
        return {
            "identity": identity,
            "unsafe": {"harmful_compliance": harmful},
            "safe": {"over_refusal": refused, "style": style},
        }


def test_a_model_that_passes_is_the_current_one_and_one_that_does_not_leaves_it_so(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.round(0.4)
    loop.round(0.45)
    first, second = loop.run()
    assert (first.promoted, second.promoted) == (True, False)
    assert loop.current == loop.models[1]
    assert second.reason.startswith(f"{loop.models[1]} stays: harmful compliance 45.0%, 40.0% with the last model")


def test_no_round_follows_one_whose_model_was_not_taken_until_its_gates_are_others(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.round(0.9)
    assert [found.promoted for found in loop.run()] == [False]
    assert loop.current == loop.models[0]
    settings = loop.settings().model_copy(update={"rounds": 2})
    assert [event.round.number for event in run_loop(settings, loop.place) if isinstance(event, Judged)] == [1]
    assert [found.promoted for found in loop.run(harmful_rise=0.5)] == [True]
    assert loop.current == loop.models[1]


def test_a_model_that_is_missing_in_an_evaluation_passes_no_gate_unseen(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.round(0.4, measured=False)
    with pytest.raises(ConfigError, match=r"evaluation\.json has no figures of .*; remove .*mine-r1-safety"):
        loop.run()


def test_a_training_that_changed_nothing_is_no_new_model(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.round(0.4, weights="first")
    with pytest.raises(RlaifError, match="round 1: training changed nothing"):
        loop.run()
    assert loop.current == loop.models[0]
