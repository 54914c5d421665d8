"""Constitutional AI and RLAIF: from a written constitution to preference data and an aligned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlaif.version import __version__

if TYPE_CHECKING:
    from rlaif.job import Result, generate, retry

__all__ = ["Result", "__version__", "generate", "retry"]


def __getattr__(name: str) -> object:
    """`generate`, `retry` and `Result`, imported when they are first used."""
    if name in ("Result", "generate", "retry"):
        from rlaif import job

        return getattr(job, name)
    raise AttributeError(f"module 'rlaif' has no attribute '{name}'")
