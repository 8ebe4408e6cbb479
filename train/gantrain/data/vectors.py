"""What a generator of vectors learns from: rows that are drawn by index, without end, and never held in memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_FINGERPRINT_ROWS = 64


class VectorSource(ABC):
    """An endless data set of vectors: row i is a pure function of (seed, i), in whatever range it is drawn.

    There are no epochs: training takes row i at position i, so every batch is new and a resumed run needs no state.

    Attributes:
        name: what it is called in a checkpoint's provenance.
        size: numbers in a row.
        seed: of the rows; another seed is a held-out set of the same distribution.
        classes: label -> its class names, in label order; empty where the rows have no labels.
    """

    name: str
    size: int
    seed: int
    classes: Mapping[str, tuple[str, ...]]

    @abstractmethod
    def rows(self, first: int, count: int) -> NDArray[np.float32]:
        """Rows `first` … `first + count - 1`: float32 [count, size].

        Raises:
            InputError: the range is not one of indices.
        """

    def labels(self, first: int, count: int) -> dict[str, NDArray[np.int64]]:
        """Label -> int64 [count], of the same rows."""
        return {}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name, seed and the first 64 rows: a run is resumed on the very data that it was started on."""
        digest = hashlib.sha256(f"{self.name} {self.size} {self.seed}".encode())
        digest.update(self.rows(0, _FINGERPRINT_ROWS).tobytes())
        return digest.hexdigest()
