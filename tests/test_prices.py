"""A price is known, free or unknown, and never zero by mistake."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaif.backends import ANTHROPIC_URL, OPENAI_URL, Provider
from rlaif.errors import ConfigError
from rlaif.prices import FREE, PICO, Price, Prices, cost_usd, load_prices, price_of

BUNDLED = load_prices()


def known(model: str, *, provider: str = "openai", base_url: str | None = None) -> Price | None:
    return price_of(BUNDLED, provider, model, base_url)


def own_file(tmp_path: Path, text: str) -> tuple[Prices, ...]:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    return load_prices(path)


def test_every_bundled_price_has_its_date_and_its_source_and_makes_sense() -> None:
    (bundled,) = BUNDLED
    assert bundled.updated is not None
    for host in bundled.hosts.values():
        assert host.source is not None
        assert host.source.startswith("https://")
        assert host.retrieved is not None
        assert date(2026, 1, 1) < host.retrieved <= bundled.updated
        for price in host.models.values():
            assert 0 < (price.cached or price.input) <= price.input <= (price.written or price.input) < price.output


def test_a_model_is_found_at_its_own_host_by_provider_or_by_address() -> None:
    assert known("gpt-4.1-mini") == Price(input=0.4, cached=0.1, output=1.6, batch=0.5)
    assert known("gpt-4.1-mini", base_url=OPENAI_URL) == known("gpt-4.1-mini")
    assert known("claude-opus-5-5", provider="anthropic", base_url=ANTHROPIC_URL) == known(
        "claude-opus-5-5", provider="anthropic"
    )
    assert known("deepseek-flash", base_url="https://API.deepseek.com/v1") == Price(input=0.3, cached=0.006, output=1.2)


@pytest.mark.parametrize(
    ("model", "base_url"),
    [
        ("gpt-99", None),
        ("claude-opus-5-5", None),  # at OpenAI there is none
        ("ft:gpt-4.1-mini:mine", None),
        ("gpt-4o-audio-preview", None),
        ("gpt-4o", "http://localhost:8000/v1"),  # a proxy may bill, a server of one's own does not
        ("gpt-4o", "https://api.openai.com.example.org/v1"),
    ],
)
def test_what_is_not_in_the_list_is_unknown(model: str, base_url: str | None) -> None:
    assert known(model, base_url=base_url) is None


def test_a_dated_snapshot_has_its_own_price_or_its_familys() -> None:
    assert known("gpt-4o-2024-08-06") == known("gpt-4o")
    assert known("claude-haiku-4-5-20251001", provider="anthropic") == known("claude-haiku-4-5", provider="anthropic")
    older = known("gpt-4o-2024-05-13")
    assert older is not None
    assert (older.input, older.output) == (5.0, 15.0)


def test_every_provider_is_free_or_has_prices() -> None:
    priced = {"openai": "gpt-4o", "anthropic": "claude-opus-5-5"}
    for provider in get_args(Provider):
        price = known(priced.get(provider, ""), provider=provider)
        assert price is not None
        assert price.free is (provider not in priced)


def test_a_users_file_comes_before_the_bundled_list_which_still_answers_the_rest(tmp_path: Path) -> None:
    lists = own_file(
        tmp_path,
        "hosts:\n"
        "  api.openai.com: {models: {gpt-4o: {input: 1, output: 2}}}\n"
        "  my.host:8000: {batch: 0.7, models: {m: {input: 3, output: 4}, n: {input: 3, output: 4, batch: 1}}}\n",
    )
    assert price_of(lists, "openai", "gpt-4o-2024-05-13", None) == Price(input=1, output=2)
    assert price_of(lists, "openai", "gpt-4.1", None) == known("gpt-4.1")
    assert price_of(lists, "openai", "m", "http://my.host:8000/v1") == Price(input=3, output=4, batch=0.7)
    assert price_of(lists, "openai", "n", "http://my.host:8000/v1") == Price(input=3, output=4, batch=1)
    assert price_of(lists, "openai", "m", "http://my.host/v1") is None


def test_a_price_in_the_models_settings_comes_before_all_lists() -> None:
    own = Price(input=0, output=0)
    assert price_of(BUNDLED, "openai", "gpt-4o", None, own) is own
    assert own.free


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts: {h: {models: {m: {input: 1}}}}", "mine.yaml:1: .*output"),
        ("hosts: {h: {models: {m: {input: -1, output: 1}}}}", "mine.yaml:1: .*input"),
        ("hosts: {h: {models: {m: {input: .inf, output: 1}}}}", "mine.yaml:1: .*input"),
        ("hosts:\n  h:\n    models:\n      m: {input: 1, output: 1, cachd: 1}", "mine.yaml:4: .*did you mean 'cached'"),
        ("models: {}", "mine.yaml:1: "),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        own_file(tmp_path, text)


def test_a_file_that_is_not_there_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_prices(tmp_path / "none.yaml")


def test_a_cost_is_the_sum_over_the_kinds_of_tokens() -> None:
    price = Price(input=4, cached=0.2, written=5, output=20, batch=0.5)
    assert cost_usd(price, 1_000_000, 0, 0) == 4
    assert cost_usd(price, 1_000_000, 500_000, 100_000, 250_000) == 1 + 0.1 + 2 + 1.25
    assert cost_usd(price, 1_000_000, 500_000, 100_000, 250_000, batch=True) == (1 + 0.1 + 2 + 1.25) / 2
    assert cost_usd(FREE, 10**9, 0, 10**9) == 0


def test_without_prices_of_their_own_cached_and_written_tokens_cost_as_much_as_others() -> None:
    assert cost_usd(Price(input=2, output=3), 1000, 400, 10, 300) == cost_usd(Price(input=2, output=3), 1000, 0, 10)


def test_a_server_that_counts_more_cached_tokens_than_the_prompt_has_gives_nothing_back() -> None:
    price = Price(input=1, cached=0.1, output=1)
    assert cost_usd(price, 100, 1000, 0, 1000) == cost_usd(price, 100, 100, 0)


USD = st.decimals(0, 200, places=6, allow_nan=False).map(float)


@given(
    price=st.builds(Price, input=USD, output=USD, cached=st.none() | USD, written=st.none() | USD),
    prompt=st.integers(0, 10**6),
    cached=st.integers(0, 10**6),
    written=st.integers(0, 10**6),
    completion=st.integers(0, 10**6),
    batch=st.booleans(),
)
def test_no_use_costs_more_than_it_may_cost_at_most(
    price: Price, prompt: int, cached: int, written: int, completion: int, batch: bool
) -> None:
    cost = price.cost(prompt, cached, completion, written, batch=batch)
    assert 0 <= cost <= price.cost_at_most(prompt, completion, batch=batch)


@given(USD, st.integers(0, 10**9))
def test_sums_in_picodollars_are_exact_for_list_prices(usd: float, tokens: int) -> None:
    assert Price(input=usd, output=0).cost(tokens, 0, 0, batch=False) == round(usd * PICO / 10**6) * tokens


def test_an_own_price_of_a_million_dollars_is_a_slip() -> None:
    with pytest.raises(ValidationError):
        Price(input=1e9, output=1)
