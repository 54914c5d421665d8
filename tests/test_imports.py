"""Heavy libraries are loaded when they are needed, not before."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "vllm", "trl", "transformers", "datasets", "pandas", "pyarrow", "openai", "anthropic", "xllamacpp")


def loaded_after(code: str) -> set[str]:
    report = "import json, sys; print(json.dumps([name for name in sys.modules if '.' not in name]))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {report}"], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import rlaif",
        "import rlaif.cli",
        "import rlaif.api",
        "import rlaif.export",
    ],
)
def test_importing_loads_no_heavy_library(code: str) -> None:
    assert loaded_after(code).isdisjoint(HEAVY)


def test_the_command_line_loads_neither_pydantic_nor_aiohttp_before_a_command_runs() -> None:
    assert loaded_after("import rlaif.cli").isdisjoint({"pydantic", "aiohttp", "yaml", "jinja2"})


def test_the_public_names_are_there() -> None:
    import rlaif

    assert callable(rlaif.generate)
    assert callable(rlaif.retry)
    assert rlaif.Result.__name__ == "Result"
    with pytest.raises(AttributeError, match="no attribute 'generte'"):
        _ = rlaif.generte  # type: ignore[attr-defined]
