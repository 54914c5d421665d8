"""The peers: which versions of them are measured, and a virtual environment for each."""

from __future__ import annotations

import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

from rig import HERE

_INSTALL_S = 1800


@dataclass(frozen=True, slots=True)
class Peer:
    script: str
    requirements: tuple[str, ...]
    overrides: tuple[str, ...] = ()  # requirements of its own that are set aside


PEERS = {
    "curator 0.1.31": Peer("with_curator.py", ("bespokelabs-curator==0.1.31",)),
    # It asks for a certifi of the very last weeks, and runs with any of this year.
    "data-designer 0.9.7": Peer("with_data_designer.py", ("data-designer==0.9.7",), ("certifi>=2026.1.1",)),
    # Imports three packages that it does not ask for.
    "distilabel 1.5.3": Peer(
        "with_distilabel.py", ("distilabel[openai]==1.5.3", "requests", "pillow", "beautifulsoup4")
    ),
    "inspect-ai 0.3.285": Peer("with_inspect.py", ("inspect-ai==0.3.285", "openai")),
}


def installed(name: str, folder: Path) -> list[str]:
    """The command that runs this peer's job, its packages installed under `folder` if they are not yet.

    Raises:
        RuntimeError: with the installer's own words.
    """
    peer = PEERS[name]
    home = folder / name.replace(" ", "-")
    done = home / "installed"  # written last: an installation that was interrupted is made again
    python = home / "bin" / "python"
    if not done.exists():
        print(f"installing {name} into {home}", flush=True)
        venv.create(home, with_pip=False, clear=True)
        overrides = home / "overrides.txt"
        overrides.write_text("\n".join(peer.overrides))
        _run([*_uv(folder), "pip", "install", "--quiet", "--python", str(python), "--override", str(overrides),
              *peer.requirements])  # fmt: skip
        done.touch()
    return [str(python), str(HERE / "peers" / peer.script)]


def environment(folder: Path) -> dict[str, str]:
    """What they read from it: a key, and all that keeps them off the network and their displays off the terminal."""
    tables = sorted(folder.glob("*/lib/python3*/site-packages/litellm/litellm_core_utils/tokenizers"))
    return {
        "MOCK_API_KEY": "none",
        "OPENAI_API_KEY": "none",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "NEMO_TELEMETRY_ENABLED": "false",
        "TELEMETRY_ENABLED": "false",
        "TOKENIZERS_PARALLELISM": "false",
        # The tables of token ids that tiktoken would fetch; litellm brings them along.
        **({"TIKTOKEN_CACHE_DIR": str(tables[0])} if tables else {}),
    }


def _uv(folder: Path) -> list[str]:
    """For overrides, which pip does not know."""
    python = folder / "uv" / "bin" / "python"
    if not (folder / "uv" / "bin" / "uv").exists():
        venv.create(folder / "uv", with_pip=True, clear=True)
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "uv"])
    return [str(python), "-m", "uv"]


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, timeout=_INSTALL_S, stderr=subprocess.PIPE, text=True)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took more than {_INSTALL_S} s") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise RuntimeError(lines[-1]) from None
