"""Parts -> pairs -> datasets: a projection that never calls a model."""

from __future__ import annotations

from rlaif.export.card import About
from rlaif.export.dataset import export_dataset
from rlaif.export.pairs import NoPair, Pair
from rlaif.export.settings import ExportSettings
from rlaif.export.strategies import pairs_of
from rlaif.export.tally import Example, ExportSummary, JudgeStats

__all__ = [
    "About",
    "Example",
    "ExportSettings",
    "ExportSummary",
    "JudgeStats",
    "NoPair",
    "Pair",
    "export_dataset",
    "pairs_of",
]
