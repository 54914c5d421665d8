"""A reward model as judge: it scores each response for itself, and the difference says which one is better.

By Bradley and Terry, P(first is better) = sigmoid(score of first - score of second), as such models are trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any, Literal

import msgspec

from rlaif.backends import ModelSpec
from rlaif.backends.gguf import find_weights
from rlaif.constitution import Principle
from rlaif.context import Context
from rlaif.errors import ConfigError
from rlaif.judges import PairComparer, Principles
from rlaif.llm import ask_all
from rlaif.types import REFUSALS, Completion, Message, Messages, Record, Verdict


class RewardModel(PairComparer):
    """Settings of a reward model; `model` is a role whose provider is `reward`.

    It knows no principle and no order: its verdicts have the principle "reward", one a pair whatever the stage's
    `principles` are, with the same probability in both orders.
    """

    kind: Literal["reward"] = "reward"
    model: str = "reward"

    async def __call__(
        self, record: Record, pairs: Sequence[tuple[int, int]], principles: Principles, context: Context
    ) -> list[Verdict]:
        return await ask_all(*(self._compare(record, first, second, context) for first, second in pairs))

    async def compare(self, record: Record, first: int, second: int, principle: Principle, context: Context) -> Verdict:
        return await self._compare(record, first, second, context)

    async def _compare(self, record: Record, first: int, second: int, context: Context) -> Verdict:
        """Each response is scored once: the journal knows those of the pairs before."""
        replies = await ask_all(*(self._ask(record, response, context) for response in (first, second)))
        verdict = Verdict(
            judge=context.model(self.model).name,
            principle="reward",
            first=first,
            second=second,
            method="reward",
            replies=tuple(reply.text for reply in replies),
        )
        one, other = map(score_in, replies)
        if one is None or other is None:
            refused = any(reply.finish_reason in REFUSALS for reply in replies)
            return msgspec.structs.replace(verdict, outcome="refusal" if refused else "unparsed")
        p = (1.0 + math.tanh((one - other) / 2)) / 2  # the sigmoid, without an overflow
        return msgspec.structs.replace(verdict, p_first=p, p_ab=p, p_ba=p, consistent=one != other)

    async def _ask(self, record: Record, response: int, context: Context) -> Completion:
        return await scored(self.model, record.prompt, record.responses[response].text, context)

    def roles(self) -> tuple[str, ...]:
        return (self.model,)

    def calls_a_pair(self, voters: Set[str] = frozenset()) -> int:
        return 2

    def calls(self, responses: int, pairs: int, principles: int, voters: Set[str] = frozenset()) -> int:
        return min(responses, 2 * pairs)


def reward_model(text: str) -> ModelSpec:
    """What a command was given as a reward model: a folder, of an adapter too, or a name on the hub; or reward/MODEL.

    Raises ConfigError for a folder that holds none.
    """
    model = text.removeprefix("reward/")
    folder = Path(model).expanduser()
    if not model:
        raise ConfigError(f"'{text}' is no reward model; give its folder or its name on the hub")
    if not folder.is_dir():
        if folder.is_absolute() or model.startswith((".", "models/")):
            raise ConfigError(f"no folder {model}; `rlaif train DATA --method reward` makes a reward model")
        return ModelSpec(provider="reward", model=model)
    adapter = _json(folder / "adapter_config.json")
    if adapter is not None:
        base = ((_json(folder / "training.json") or {}).get("base") or {}).get(
            "model", adapter.get("base_model_name_or_path")
        )
        if adapter.get("task_type") != "SEQ_CLS" or not isinstance(base, str):
            raise ConfigError(f"the adapter in {folder} makes no reward model: its task is {adapter.get('task_type')}")
        base = base.removeprefix("transformers/")
        return ModelSpec(provider="reward", model=str(find_weights("")) if base == "local" else base, lora=str(folder))
    config = _json(folder / "config.json")
    if config is None:
        raise ConfigError(f"{folder} holds no model: no config.json in it")
    if any("ForCausalLM" in str(name) for name in config.get("architectures") or ()):
        raise ConfigError(
            f"{folder} is a language model; `rlaif train DATA --method reward --model {folder}` makes a reward model"
        )
    return ModelSpec(provider="reward", model=str(folder))


def _json(file: Path) -> dict[str, Any] | None:  # Any: whatever the file holds
    try:
        found = msgspec.json.decode(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}


async def scored(role: str, prompt: Messages, answer: str, context: Context) -> Completion:
    """The reply with a response's score, see `score_in`. Raises as `Context.ask` does."""
    return await context.ask(role, (*prompt, Message("assistant", answer)))


def score_in(reply: Completion) -> float | None:
    """None for what is no number."""
    try:
        value = float(reply.text)
    except ValueError:
        return None
    return value if math.isfinite(value) and reply.finish_reason not in REFUSALS else None
