"""What TRL's trainers take, as TRL 1.16 does; of an installed one its version and max_length, without importing it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from rlaif.foreign.shapes import Shape


@dataclass(frozen=True, slots=True)
class Contract:
    """`installed` is a version; `max_length`, in tokens, the default of DPO there, where its source says it."""

    installed: str | None = None
    max_length: int = 1024

    def __str__(self) -> str:
        return f"TRL 1.16's rules; {self.installed or 'none'} is installed"


def contract() -> Contract:
    """Importing TRL takes ten seconds and torch; its version and default are in plain sight."""
    try:
        version = metadata.version("trl")
        found = util.find_spec("trl")
    except (metadata.PackageNotFoundError, ImportError, ValueError):
        return Contract()
    if found is None or found.origin is None:
        return Contract()
    config = Path(found.origin).parent / "trainer" / "dpo_config.py"
    return Contract(version, _default(config, "max_length") or Contract().max_length)


def trainers(shape: Shape) -> tuple[str, ...]:
    """Those of TRL 1.16 that take the columns by their names."""
    match shape.pairing:
        case "paired" if (shape.chosen, shape.rejected) == ("chosen", "rejected") and shape.prompt in (None, "prompt"):
            return ("DPO", "KTO", "Reward")
        case "unpaired" if (shape.prompt, shape.completion) == ("prompt", "completion"):
            return ("KTO",) if shape.label == "label" else () if shape.label else ("SFT",)
        case _:
            return ()


def _default(source: Path, field: str) -> int | None:
    """The default of a dataclass's field: `max_length: int | None = field(default=1024, ...)`."""
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == field:
            value = node.value
            if isinstance(value, ast.Call):
                value = next((given.value for given in value.keywords if given.arg == "default"), None)
            if isinstance(value, ast.Constant) and isinstance(value.value, int):
                return value.value
    return None
