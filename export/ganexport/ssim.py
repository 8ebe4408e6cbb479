"""SSIM: structural similarity (Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE Transactions on Image Processing 13(4), 2004), in NumPy.

As there: a Gaussian window with σ = 1.5, K₁ = 0.01, K₂ = 0.03, L the width of the range, the mean over the positions
where the window lies inside the image. The window is 11 wide; 7 on images narrower than 11, and as wide as the image,
made odd, below 7. Channels are averaged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SIGMA, _K1, _K2 = 1.5, 0.01, 0.03


def ssim_of(
    reference: NDArray[np.floating], candidate: NDArray[np.floating], low: float, high: float
) -> NDArray[np.float64]:
    """The mean SSIM of every image: float64 [N], at most 1; 0 for an image with values that are not finite.

    Args:
        reference, candidate: [N, C, H, W].
        low, high: black and white. Luminances count from black: in [-1, 1] grey would have none.
    """
    rows, columns = _window_matrix(reference.shape[2]), _window_matrix(reference.shape[3])
    c1, c2 = (_K1 * (high - low)) ** 2, (_K2 * (high - low)) ** 2
    found = np.zeros(len(reference))

    def blurred(planes: NDArray[np.float64]) -> NDArray[np.float64]:
        """[C, H, W] -> [C, H', W']: both one-dimensional windows as matrix products."""
        result: NDArray[np.float64] = rows @ (planes @ columns.T)
        return result

    # An image at a time: its planes stay in the cache, which halves the time.
    for i, pair in enumerate(zip(reference, candidate, strict=True)):
        x, y = (planes.astype(np.float64) - low for planes in pair)  # [C, H, W]
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            continue
        mean_x, mean_y = blurred(x), blurred(y)
        var_x = blurred(x * x) - mean_x * mean_x
        var_y = blurred(y * y) - mean_y * mean_y
        covariance = blurred(x * y) - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
        found[i] = (luminance * (2 * covariance + c2) / (var_x + var_y + c2)).mean()
    return found


def _window_matrix(side: int) -> NDArray[np.float64]:
    """[positions, side]: each row the window at one position."""
    size = 11 if side >= 11 else 7 if side >= 7 else side - (side + 1) % 2
    offsets = np.arange(size) - size // 2
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window /= window.sum()
    matrix = np.zeros((side - size + 1, side))
    for position in range(len(matrix)):
        matrix[position, position : position + size] = window
    return matrix
