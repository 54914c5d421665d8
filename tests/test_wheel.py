"""The built wheel works without the checkout, even where other packages own our folders' names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

CHECKOUT = Path(__file__).parents[1]
DECOY = "a prompt from another package's data folder"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, so that this is known to be complete."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_its_resources_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for kind in ("constitutions", "prompts", "pipelines", "data"):
        files = [path for path in (CHECKOUT / kind).rglob("*") if path.is_file()]
        assert {f"rlaif/bundled/{kind}/{path.relative_to(CHECKOUT / kind).as_posix()}" for path in files} <= set(names)
    assert "rlaif/bundled/constitutions/safety.yaml" in names
    assert "rlaif/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"rlaif", f"rlaif_kit-{_version(wheel)}.dist-info"}


def test_the_installed_wheel_runs_a_bundled_pipeline_from_an_unrelated_folder(wheel: Path, tmp_path: Path) -> None:
    rlaif = _install(wheel, tmp_path / "venv")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    runs = tmp_path / "runs"

    _run(
        *(rlaif, "generate", "cai", "--constitution", "safety", "--prompts", "redteam", "--limit", "3"),
        *("--policy", "scripted", "--judge", "scripted", "--run", "w", "--runs-dir", runs),
        cwd=elsewhere,
    )

    tables = [pq.read_table(path) for path in (runs / "w" / "dataset" / "preference").glob("*.parquet")]
    rows = [row for table in tables for row in table.to_pylist()]
    assert rows
    assert DECOY not in str(rows)
    assert list(elsewhere.iterdir()) == []


def _install(wheel: Path, environment: Path) -> Path:
    """The `rlaif` command of a new environment that borrows this one's dependencies."""
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    _run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel),
        cwd=environment,
    )
    ours = sysconfig.get_path("purelib")
    site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    # The .pth files in that folder, our editable install's among them, are not read from there.
    (site_packages / "borrowed.pth").write_text(f"{ours}\n")
    decoy = site_packages / "data" / "redteam.jsonl"
    decoy.parent.mkdir()
    decoy.write_text(json.dumps({"id": "decoy", "prompt": DECOY, "category": "decoy"}) + "\n")
    code = "import rlaif; print(rlaif.__file__)"
    assert _run(python, "-c", code, cwd=environment).strip() == str(site_packages / "rlaif" / "__init__.py")
    return environment / "bin" / "rlaif"


def _version(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def _run(*command: str | Path, cwd: Path) -> str:
    """What the command printed. Fails the test with all of it when the command fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
