"""The models of a run: one door each, opened at the first call that must be sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import msgspec

from rlaif.backends import ENGINES, FALLBACK, Backend, ModelSpec, identity_of, open_backend
from rlaif.backends.turns import Turns
from rlaif.budget import Batches, Budget, Limited, LimitedBatches
from rlaif.journal import Journal, Traits
from rlaif.lanes import Lane, Lanes
from rlaif.llm import LLM
from rlaif.prices import Price, Prices, price_of
from rlaif.throttle import Rate

EMBEDDED = "SmolLM2-135M-Instruct"


def open_models(
    specs: Mapping[str, ModelSpec],
    journal: Journal,
    environment: dict[str, str],
    log_folder: Path,
    *,
    sending: bool = True,
    retry_failed: bool = False,
    one_engine_at_a_time: bool = True,
    notices: list[str] | None = None,
    prices: tuple[Prices, ...] = (),
    budget: Budget | None = None,
) -> dict[str, LLM]:
    """One LLM a model, not a role: a model in two roles is one server and one queue."""
    opened: dict[tuple[str, object, bytes], LLM] = {}
    models: dict[str, LLM] = {}
    notices = [] if notices is None else notices  # of all models, in the order they come up
    turns = Turns() if one_engine_at_a_time else None
    live = not any(spec.batch for spec in specs.values())
    for role, spec in specs.items():
        # What is only about speed makes no second door, where the first role's word counts.
        same = (
            identity_of(spec),
            spec.endpoints or spec.base_url,
            msgspec.json.encode([spec.extra_body, spec.headers, spec.script, spec.batch]),
        )
        if same not in opened:
            name = display_name(spec)
            if any(name == other.name for other in opened.values()):
                name = f"{name} ({role})"  # told apart in verdicts and counts
            price = _price(spec, prices)
            lanes = [
                Lane(
                    lane_name(lane),
                    _within(budget, price, live, lane.batch, _opener(lane, environment, log_folder, turns)),
                    spec.places,
                    Rate(spec.requests_per_minute) if spec.requests_per_minute else None,
                    Rate(spec.tokens_per_minute) if spec.tokens_per_minute else None,
                    spec.outage_s,
                )
                for lane in spec.lanes()
            ]
            opened[same] = LLM(
                name=name,
                identity=same[0],
                journal=journal,
                lanes=Lanes(lanes, notices.append),
                attempts=spec.attempts,
                sending=sending,
                retry_failed=retry_failed,
                extra={"body": spec.extra_body, "headers": spec.headers} if spec.extra_body or spec.headers else None,
                notices=notices,
                run=log_folder.name,
                price=price,
                batch=spec.batch,
            )
            _warn_of_new_identity(opened[same])
            if spec.provider == "reward" and sending:
                opened[same].remember(Traits())  # it has no words to be asked in what it can do
        models[role] = opened[same]
    return models


def with_fallbacks(specs: Mapping[str, ModelSpec]) -> dict[str, ModelSpec]:
    """The roles, and after them a role for each fallback."""
    fallbacks = {role + FALLBACK: spec.fallback for role, spec in specs.items() if spec.fallback is not None}
    return {**specs, **fallbacks}


def _opener(
    spec: ModelSpec, environment: dict[str, str], log_folder: Path, turns: Turns | None
) -> Callable[[], Backend]:
    opens = partial(open_backend, spec, environment, log_folder)
    return partial(turns.engine, opens) if turns and spec.provider in ENGINES else opens


def _within(
    budget: Budget | None,
    price: Price | None,
    live: bool,
    batch: bool,
    opens: Callable[[], Backend],
) -> Callable[[], Backend]:
    """`live`: no model of the run is asked in batches."""
    if budget is None:
        return opens
    if batch:
        return lambda: LimitedBatches(cast(Batches, opens()), budget, price and price.in_batch, price)
    return lambda: Limited(opens(), budget, price, waits=live)


def _price(spec: ModelSpec, prices: tuple[Prices, ...]) -> Price | None:
    """Of several addresses the one they share."""
    addresses = spec.endpoints or (spec.base_url,)
    found = {price_of(prices, spec.provider, spec.model, address, spec.price) for address in addresses}
    return found.pop() if len(found) == 1 else None


def lane_name(spec: ModelSpec) -> str:
    """The address, and the key's variable where it is one of several."""
    address = (spec.base_url or spec.provider).removeprefix("http://").removeprefix("https://")
    return f"{address} with {spec.api_key_env}" if spec.api_key_env else address


def display_name(spec: ModelSpec) -> str:
    """What users and the dataset's card read: the model's name, without address or folder."""
    if spec.provider in ENGINES:
        path = Path(spec.model)
        name = path.stem if path.suffix == ".gguf" else path.name
        return (name or EMBEDDED) + (f"+{Path(spec.lora).name}" if spec.lora else "")
    folder = spec.model.startswith("/")  # vLLM's server calls a model by the folder that it was given
    return (Path(spec.model).name if folder else spec.model) or spec.provider


def _warn_of_new_identity(llm: LLM) -> None:
    """A known model at a new address is asked everything anew: say so before it is paid for."""
    elsewhere = [known for known in llm.journal.identities_of(llm.name) if known != llm.identity]
    if elsewhere and not llm.journal.has_calls(llm.identity):
        llm.notices.append(
            f"{llm.name} is new as {llm.identity}; its answers as {elsewhere[0]} are not reused "
            "(if it is the same model, set identity: in models)"
        )
