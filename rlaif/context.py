"""What a stage may use: models by role, the constitution, the templates, and chance from identity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rlaif.backends import FALLBACK
from rlaif.constitution import Constitution
from rlaif.errors import CallFailed, ConfigError
from rlaif.llm import LLM, THINKING_TOKENS, Tally, without_system
from rlaif.templates import Templates
from rlaif.types import Completion, Messages, Request

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to every stage; `stage` is the name its calls are counted under."""

    models: Mapping[str, LLM]
    constitution: Constitution
    templates: Templates
    seed: int = 0
    stage: str = ""
    rank: int = 0  # of the record: the calls of the one that began first go first
    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict)  # (stage, model name)
    fallen: set[tuple[str, int, str, str]] = field(default_factory=set)  # what went to a fallback, in whatever pass
    settled: frozenset[int] = frozenset()  # ranks of records whose failed calls are not asked again in a retry

    def at(self, stage: str, rank: int = 0) -> Context:
        models, tallies, fallen = self.models, self.tallies, self.fallen
        # `replace` takes three times as long
        return Context(models, self.constitution, self.templates, self.seed, stage, rank, tallies, fallen, self.settled)

    def model(self, role: str) -> LLM:
        """The model of a role. Raises ConfigError with the roles there are."""
        try:
            return self.models[role]
        except KeyError:
            raise ConfigError(f"unknown model role '{role}'; known: {', '.join(self.models)}") from None

    def tally(self, llm: LLM) -> Tally:
        key = (self.stage, llm.name)
        tally = self.tallies.get(key)
        if tally is None:
            tally = self.tallies[key] = Tally()
        return tally

    async def ask(
        self,
        role: str,
        messages: Messages,
        *,
        temperature: float = 0.0,
        top_p: float | None = None,
        max_tokens: int | None = None,
        stop: tuple[str, ...] = (),
        logprobs: bool = False,
        sample: int = 0,
        shared: int = 0,
    ) -> Completion:
        """Ask the model of `role`, in the form that it takes (see Traits). Raises as LLM.complete does."""
        llm = self.model(role)
        traits = llm.traits
        rejected = traits.rejected
        request = Request(
            model=llm.identity,
            messages=messages if traits.system_role else without_system(messages),
            temperature=None if "temperature" in rejected else temperature,
            top_p=None if "top_p" in rejected else top_p,
            max_tokens=max_tokens + THINKING_TOKENS if max_tokens and traits.thinks else max_tokens,
            stop=() if "stop" in rejected else stop,
            top_logprobs=(traits.top_logprobs or None) if logprobs else None,
            extra=llm.extra,
            seed=self.seed if temperature else 0,
            sample=sample,
            provider_seed="seed" not in rejected,
            shared=shared if traits.system_role else max(0, shared - 1),
        )
        again = self.rank not in self.settled
        return await llm.complete(request, self.tally(llm), stage=self.stage, rank=self.rank, again=again)

    async def ask_by(
        self, role: str, template: str, conversation: Messages, values: Mapping[str, object], **sampling: Any
    ) -> Completion:
        """Ask with the turns of a template; `sampling` is as in `ask`."""
        messages = self.templates.render(template, conversation, **values)
        few_shot = values.get("few_shot", True) is True
        shared = 0 if conversation[0].role == "system" else self.templates.shared(template, few_shot)
        return await self.ask(role, messages, shared=shared, **sampling)

    async def by(
        self, role: str, step: str, ask: Callable[[str], Awaitable[T]], refused: Callable[[T], bool] = lambda _: False
    ) -> tuple[T, str]:
        """What `ask`, given a role, makes of the model of `role`, and that model's name.

        Where that model fails for good or `refused` says so, its fallback is asked instead, all that `ask` asks;
        where that is no better, the first outcome stands. `step` tells it from what else the stage asks for the record.
        """
        model, other = self.model(role), self.models.get(role + FALLBACK)
        if other is None:
            return await ask(role), model.name
        try:
            answer = await ask(role)
        except CallFailed as failure:
            self._fall_back(role, step)
            try:
                return await ask(role + FALLBACK), other.name
            except CallFailed:
                raise failure from None
        if not refused(answer):
            return answer, model.name
        self._fall_back(role, step)
        try:
            second = await ask(role + FALLBACK)
        except CallFailed:
            return answer, model.name
        return (answer, model.name) if refused(second) else (second, other.name)

    def _fall_back(self, role: str, step: str) -> None:
        """Counts it once, however many passes see it."""
        before = len(self.fallen)
        self.fallen.add((self.stage, self.rank, role, step))
        self.tally(self.model(role)).fell_back += len(self.fallen) - before

    def draw_id(self, record_id: str, step: str) -> str:
        """The identity chance is drawn from: the same for the same run seed, record, stage and step."""
        return f"{self.seed}/{record_id}/{self.stage}/{step}"
