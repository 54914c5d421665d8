"""Preference datasets that others made: opened by their address, each row understood as a prompt and its answers."""

from __future__ import annotations

from rlaif.foreign.columns import shape_of
from rlaif.foreign.read import Dataset, Row, Share, open_dataset
from rlaif.foreign.shapes import Example, Shape, example

__all__ = ["Dataset", "Example", "Row", "Shape", "Share", "example", "open_dataset", "shape_of"]
