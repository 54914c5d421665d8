"""Constitutional AI and RLAIF: from a written constitution to preference data and an aligned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif.version import __version__

if TYPE_CHECKING:
    from rlaif.api import generate, retry
    from rlaif.job import Result

__all__ = ["Result", "__version__", "generate", "retry"]


def __getattr__(name: str) -> object:
    """`generate`, `retry` and `Result`, imported when they are first used."""
    if name in ("Result", "generate", "retry"):
        from rlaif import api

        return getattr(api, name)
    raise AttributeError(f"module 'rlaif' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
