"""A picture of vectors: points in the plane where they have two numbers, curves over their index otherwise.

Real ones are grey, and generated ones blue on top of them. The frame is that of the real ones, widened by half, so that
pictures of one run can be laid side by side; what falls outside is not drawn.
"""

from __future__ import annotations

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

SIDE = 512  # pixels
_REAL, _MADE = (185, 185, 185), (31, 90, 180)
REAL_VECTORS = 1000  # as many as a picture shows
_DOT = 2  # radius in pixels


def picture_from_vectors(made: NDArray[np.float32], real: NDArray[np.float32]) -> PIL.Image.Image:
    """float32 [N, length] and [M, length], of which the first `REAL_VECTORS` are drawn -> RGB, 512 × 512."""
    real = real[:REAL_VECTORS]
    picture = PIL.Image.new("RGB", (SIDE, SIDE), "white")
    draw = PIL.ImageDraw.Draw(picture)
    if made.shape[1] == 2:
        low, high = _frame(real, axis=0)  # [2]
        for vectors, colour in ((real, _REAL), (made, _MADE)):
            for x, y in _pixels(vectors, low, high):
                draw.ellipse((x - _DOT, SIDE - 1 - y - _DOT, x + _DOT, SIDE - 1 - y + _DOT), fill=colour)
        return picture
    low, high = _frame(real, axis=None)
    across = np.linspace(0, SIDE - 1, made.shape[1])
    for vectors, colour in ((real[:64], _REAL), (made, _MADE)):
        for heights in _pixels(vectors, low, high):
            draw.line([(x, SIDE - 1 - y) for x, y in zip(across, heights, strict=True)], fill=colour)
    return picture


def _frame(real: NDArray[np.float32], axis: int | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = (np.asarray(f(real, axis=axis), np.float64) for f in (np.min, np.max))
    margin = np.maximum(0.25 * (high - low), 1e-6)
    return low - margin, high + margin


def _pixels(vectors: NDArray[np.float32], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values as pixels from the lower left; far outside of the picture they are brought near, for Pillow's sake."""
    finite = np.nan_to_num(vectors.astype(np.float64), nan=1e9, posinf=1e9, neginf=-1e9)
    return np.clip((finite - low) / (high - low) * (SIDE - 1), -8.0 * SIDE, 8.0 * SIDE)
