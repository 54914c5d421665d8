"""One call per model before a run: does the key work, and what can this model do?"""

from __future__ import annotations

import msgspec

from rlaif.errors import ConfigError, ProviderError
from rlaif.journal import Traits
from rlaif.llm import LLM, THINKING_TOKENS, Tally, without_system
from rlaif.types import Message, Request

_QUESTION = (
    Message("system", "You answer with one letter."),
    Message("user", "Which letter comes first in the alphabet, A or B? Answer with the letter only."),
)
_DROPPABLE = ("temperature", "seed", "top_p", "stop")
# Somebody waits: a refused port is a message within a second, not after all the attempts of a run.
_ATTEMPTS = 2


async def preflight(llm: LLM, tally: Tally) -> Traits:
    """What `llm` can do; asked once, then remembered in the journal.

    Raises ConfigError when the endpoint cannot be reached, the key is refused, or the request is
    refused for a reason that no change of ours helps.
    """
    known = llm.known_traits()
    if known is not None or not llm.sending:
        return known or Traits(top_logprobs=20)
    traits = Traits(top_logprobs=20)
    for _ in range(9):  # at most one parameter is given up per try
        try:
            completion = await llm.send(
                question(llm, traits), tally, stage="preflight", attempts=min(_ATTEMPTS, llm.attempts)
            )
        except ProviderError as error:
            traits = _without(traits, error, llm.name)
            continue
        if not completion.text and completion.finish_reason == "length" and not traits.thinks:
            traits = msgspec.structs.replace(traits, thinks=True)
            continue
        offered = completion.logprobs is not None and len(completion.logprobs[0].top) > 1
        traits = traits if offered else msgspec.structs.replace(traits, top_logprobs=0)
        if completion.text or completion.finish_reason != "length":
            llm.remember(traits)  # an answer that never began teaches nothing for good
        break
    else:
        raise ConfigError(f"model '{llm.name}' refuses every form of the first request")
    if not traits.top_logprobs:
        llm.notices.append(f"{llm.name} gives no log-probabilities: as a judge it votes by sampling")
    if traits.rejected:
        llm.notices.append(f"{llm.name} does not take {', '.join(traits.rejected)}: left out of every request")
    if not traits.system_role:
        llm.notices.append(f"{llm.name} has no system role: system prompts open the first user turn")
    return traits


def question(llm: LLM, traits: Traits) -> Request:
    """A small question that the model can answer, in the form that it takes."""
    return Request(
        model=llm.identity,
        messages=_QUESTION if traits.system_role else without_system(_QUESTION),
        # Not 1.0: models that take no temperature take that, their default.
        temperature=None if "temperature" in traits.rejected else 0.5,
        # With it: some models take each, but not both together.
        top_p=None if "top_p" in traits.rejected else 0.9,
        stop=() if "stop" in traits.rejected else ("\n\n\n",),
        max_tokens=THINKING_TOKENS if traits.thinks else 16,
        top_logprobs=traits.top_logprobs or None,
        extra=llm.extra,
        provider_seed="seed" not in traits.rejected,
    )


def _without(traits: Traits, error: ProviderError, name: str) -> Traits:
    """The traits less the thing that `error` complains about."""
    if error.kind in ("unsupported", "bad_request") and error.parameter:
        if "logprobs" in error.parameter and traits.top_logprobs:
            return msgspec.structs.replace(traits, top_logprobs=5 if traits.top_logprobs > 5 else 0)
        if error.parameter == "system" and traits.system_role:
            return msgspec.structs.replace(traits, system_role=False)
        parameter = error.parameter
        if parameter == "top_p" and "top_p" in traits.rejected:
            parameter = "temperature"  # the settings send a top_p of their own, and not both are taken
        if parameter in _DROPPABLE and parameter not in traits.rejected:
            return msgspec.structs.replace(traits, rejected=(*traits.rejected, parameter))
    raise ConfigError(f"model '{name}' cannot be used: {error}") from error
