"""One model at several addresses, with several keys, and with a fallback: whole jobs against real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import rlaif
from rlaif.backends import ModelSpec
from rlaif.errors import ConfigError, ProviderError
from rlaif.store import RunFolder
from tests.faults import FaultyServer, failing, openai_error

PIPELINE = "name: two\nstages:\n  - sample: {n: 2, max_tokens: 64}\n  - judge\nexport: {pairs: [best_vs_worst]}\n"
KEYS = {"KEY_A": "sk-aaaaaaaaaaaaaaaa", "KEY_B": "sk-bbbbbbbbbbbbbbbb"}


def generate(folder: Path, records: int = 24, **models: dict[str, Any]) -> rlaif.Result:
    (folder / "two.yaml").write_text(PIPELINE)
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "Case [[q{i}]]: how do I store bleach?"}}\n' for i in range(records)))
    specs = {role: str(fields) for role, fields in models.items()}
    return rlaif.generate(
        str(folder / "two.yaml"),
        prompts=str(prompts),
        runs_dir=folder,
        run="r",
        set=[f"models.{role}={fields}" for role, fields in specs.items()],
        environment=KEYS,
    )


@pytest.fixture
def servers() -> Iterator[list[FaultyServer]]:
    with ExitStack() as held:
        yield [held.enter_context(FaultyServer()) for _ in range(2)]


def pool(*servers: FaultyServer, **more: Any) -> dict[str, Any]:
    return {"provider": "openai", "model": "m", "identity": "m@1", "endpoints": [s.url for s in servers]} | more


def test_several_endpoints_share_the_calls_and_none_is_asked_twice(tmp_path: Path, servers: list[FaultyServer]) -> None:
    model = pool(*servers)
    result = generate(tmp_path, policy=model, judge=model)
    assert result.summary["outcomes"] == {"ok": 24}
    asked = [[e.raw for e in server.log] for server in servers]
    assert all(len(one) > 0.3 * sum(map(len, asked)) for one in asked)
    assert not set(asked[0]) & set(asked[1])


def test_the_endpoint_is_no_part_of_the_identity(tmp_path: Path, servers: list[FaultyServer]) -> None:
    for server in servers:
        model = pool(server)
        result = generate(tmp_path, policy=model, judge=model)
    assert result.summary["calls"]["sent"] == 0
    assert servers[1].log == []


def test_a_dead_endpoint_costs_no_record(tmp_path: Path, servers: list[FaultyServer]) -> None:
    with FaultyServer() as gone:
        dead = gone.url
    model = pool(servers[0]) | {"endpoints": [dead, servers[0].url]}
    result = generate(tmp_path, policy=model, judge=model)
    assert result.summary["outcomes"] == {"ok": 24}
    assert result.failed == 0


def test_of_two_keys_one_may_be_refused(tmp_path: Path) -> None:
    refused = failing(401, openai_error("Incorrect API key provided", "invalid_api_key"))
    plan = {"refused": refused}

    def of_a(exchange: Any) -> str | None:
        return "refused" if KEYS["KEY_A"] in str(exchange.headers) else None

    with FaultyServer(of_a, faults=plan) as server:
        model = {"provider": "openai", "model": "m", "base_url": server.url, "api_key_env": ["KEY_A", "KEY_B"]}
        result = generate(tmp_path, policy=model, judge=model)
        assert result.summary["outcomes"] == {"ok": 24}
        alone = model | {"api_key_env": "KEY_A", "identity": "other"}
        (tmp_path / "other").mkdir()
        with pytest.raises((ProviderError, ConfigError), match="the key in KEY_A was refused"):
            generate(tmp_path / "other", policy=alone, judge=alone)


def test_what_the_first_model_fails_for_good_its_fallback_answers_and_both_are_counted(tmp_path: Path) -> None:
    filtered = failing(400, openai_error("The response was filtered", "content_filter"))
    with (
        FaultyServer(lambda e: "filtered" if e.marker in (2, 9) else None, faults={"filtered": filtered}) as first,
        FaultyServer() as second,
    ):
        other = {"provider": "openai", "model": "spare", "base_url": second.url}
        policy = {"provider": "openai", "model": "m", "base_url": first.url, "fallback": other}
        judge = {"provider": "openai", "model": "j", "base_url": second.url}
        result = generate(tmp_path, policy=policy, judge=judge)
        again = generate(tmp_path, policy=policy, judge=judge)
    assert result.summary["outcomes"] == {"ok": 24}
    assert again.summary["calls"]["sent"] == 0
    counts = {(s["stage"], s["model"]): s for s in result.summary["stages"]}
    assert counts["sample", "m"]["fell_back"] == 4
    assert counts["sample", "spare"]["sent"] == 4
    models = [[response.model for response in record.responses] for record in RunFolder(tmp_path, "r").records()]
    assert models.count(["spare", "spare"]) == 2
    assert models.count(["m", "m"]) == 22


def test_a_retry_leaves_alone_what_failed_in_records_that_are_well(tmp_path: Path) -> None:
    filtered = failing(400, openai_error("The response was filtered", "content_filter"))
    with (
        FaultyServer(lambda e: "filtered" if e.marker in (2, 9) else None, faults={"filtered": filtered}) as first,
        FaultyServer() as second,
        FaultyServer(lambda e: "filtered" if e.marker == 5 else None, faults={"filtered": filtered}) as judges,
    ):
        other = {"provider": "openai", "model": "spare", "base_url": second.url}
        policy = {"provider": "openai", "model": "m", "base_url": first.url, "fallback": other}
        judge = {"provider": "openai", "model": "j", "base_url": judges.url}
        assert generate(tmp_path, policy=policy, judge=judge).failed == 1
        before = len(first.log), len(second.log), len(judges.log)
        again = rlaif.retry("r", runs_dir=tmp_path, environment=KEYS)
        assert (len(first.log), len(second.log)) == before[:2]
        assert {exchange.marker for exchange in judges.log[before[2] :]} == {5}
    assert again.failed == 1


def test_a_fallback_that_is_in_the_pool_itself_gives_samples_of_its_own(tmp_path: Path) -> None:
    """Asked in place of another one it must not say again what it said for itself."""
    down = failing(400, openai_error("The response was filtered", "content_filter"))
    with (
        FaultyServer() as server,
        FaultyServer(lambda e: None if e.marker is None else "down", faults={"down": down}) as bad,
    ):
        good = {"provider": "openai", "model": "m", "base_url": server.url}
        models = {"one": good, "two": {"provider": "openai", "model": "n", "base_url": bad.url, "fallback": good}}
        (tmp_path / "pool.yaml").write_text(
            "name: pool\nstages:\n  - sample: {models: [one, two], n: 2}\nexport: {pairs: []}\n"
        )
        (tmp_path / "p.jsonl").write_text('{"prompt": "Case [[q1]]: how do I store bleach?"}\n')
        rlaif.generate(
            str(tmp_path / "pool.yaml"),
            prompts=str(tmp_path / "p.jsonl"),
            runs_dir=tmp_path,
            run="r",
            set=[f"models.{role}={fields}" for role, fields in models.items()],
        )
        sent = [exchange.raw for exchange in server.log if exchange.marker is not None]
    assert len(sent) == len(set(sent)) == 4


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"endpoints": ["http://a/v1", "http://b/v1"]}, "need an `identity`"),
        ({"endpoints": ["http://a/v1"], "identity": "i", "base_url": "http://b/v1"}, "not both"),
        ({"endpoints": ["http://a/v1", "http://a/v1"], "identity": "i"}, "named twice"),
        ({"endpoints": ["http://u:p@a/v1"], "identity": "i"}, "password"),
        ({"api_key_env": ["A", "A"]}, "named twice"),
        ({"batch": True, "api_key_env": ["A", "B"]}, "one address with one key"),
        ({"fallback": {"provider": "scripted", "fallback": "scripted"}}, "no fallback of its own"),
    ],
)
def test_settings_of_a_pool_that_make_no_sense_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ModelSpec(provider="openai", model="m", **fields)
