"""Every cell of the README's table of backends that can be asked of a llama.cpp server."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from rlaif.backends import ENGINES, ModelSpec, Provider, open_backend
from tests.features import observed, promised
from tests.llama import Llama, needs_model

ROWS = {"`local`": "local", "`http://`, `openai`": "openai", "`anthropic`": "anthropic"}
ROWS |= {"`vllm`": "vllm", "`transformers`": "transformers", "`reward`": "reward"}


def test_every_provider_has_a_row_that_says_where_it_runs() -> None:
    assert set(ROWS.values()) == set(get_args(Provider)) - {"scripted"}
    for row, provider in ROWS.items():
        assert promised(row)["embedded"] == ("yes" if provider in ENGINES else "no")


@needs_model
@pytest.mark.model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ["`local`", "`http://`, `openai`", "`anthropic`"])
async def test_a_backend_can_do_what_its_row_says(row: str, llama: Llama, tmp_path: Path) -> None:
    spec = ModelSpec.model_validate(
        {"provider": ROWS[row], "slots": 2} | ({} if row == "`local`" else address(row, llama))
    )
    backend = open_backend(spec, llama.environment, tmp_path)
    try:
        found = await observed(backend)
    finally:
        await backend.close()
    cells = promised(row)
    if row == "`anthropic`":  # llama.cpp ignores `output_config`; test_anthropic.py shows that it is sent
        assert (found.pop("JSON schema"), cells["JSON schema"]) == ("no", "sent")
    assert found == {column: cells[column] for column in found}


def address(row: str, llama: Llama) -> dict[str, str]:
    base_url = llama.url if row == "`anthropic`" else f"{llama.url}/v1"
    return {"model": "smol", "base_url": base_url, "api_key_env": "LLAMA_KEY"}


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs xllamacpp: pip install 'rlaif-kit[local]'")
def test_the_embedded_model_needs_no_key_and_no_address(tmp_path: Path) -> None:
    assert open_backend(ModelSpec(provider="local"), {}, tmp_path)
