"""Random rows drawn ahead, in pieces: where rows are short, most of a batch's time is the call's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PIECE_NUMBERS = 16_384  # some 100 KiB with NumPy's work space, and a fraction of a millisecond


class Ahead:
    """The rows of a pure function of (first, count), in slices of pieces that serve the steps to come as well.

    The very rows that `draw` would give: a piece only asks for more of them at once. What fills a piece by itself is
    drawn as it is asked for. The rows may be read, and not written.

    Args:
        draw: (first, count) -> [count, …], row i a function of first + i alone.
        numbers: in a row.
        device: where the rows are wanted; a piece is copied there in one go.
    """

    def __init__(self, draw: Callable[[int, int], NDArray[np.generic]], numbers: int, device: torch.device) -> None:
        self._draw, self._rows, self._device = draw, PIECE_NUMBERS // max(1, numbers), device
        self._first, self._piece = 0, torch.empty(0)

    def __call__(self, first: int, count: int) -> Tensor:
        """Rows `first` … `first + count - 1`: [count, …] on the device."""
        if 2 * count > self._rows:
            return torch.from_numpy(self._draw(first, count)).to(self._device)
        start = first - self._first
        if not 0 <= start <= len(self._piece) - count:
            self._first, start = first, 0
            self._piece = torch.from_numpy(self._draw(first, self._rows)).to(self._device)
        return self._piece[start : start + count]
