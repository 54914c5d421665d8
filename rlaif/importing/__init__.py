"""Anybody's preference dataset -> a folder that TRL trains on, with a card and a list of what was left out."""

from __future__ import annotations

from rlaif.importing.dataset import import_dataset
from rlaif.importing.settings import As, ImportSettings
from rlaif.importing.tally import Imported

__all__ = ["As", "ImportSettings", "Imported", "import_dataset"]
