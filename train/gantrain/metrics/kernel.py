"""The kernel distance between two sets of features: KID, where the features are Inception's.

Bińkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", 2018 (arXiv:1801.01401): the squared maximum mean
discrepancy under k(x, y) = (x·y / D + 1)³, by the unbiased estimator (Gretton et al. 2012, equation 3). The paper takes
the mean over random subsets, for speed; here the estimator is taken over all pairs: there is no chance in it, and its
expectation is the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gantrain.metrics.distances import BLOCK_BYTES, Float64, checked_pair


def kernel_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """The unbiased estimate of MMD². It may be below 0, about which it lies where both sets are of one distribution.

    Args:
        real: [N, D], N at least 2.
        fake: [M, D], M at least 2.

    Raises:
        InputError: the sets do not fit each other, or hold what is not finite.
    """
    x, y = checked_pair(real, fake, 2)
    n, m = len(x), len(y)
    within_x = (_kernel_sum(x, x) - _diagonal_sum(x)) / (n * (n - 1))
    within_y = (_kernel_sum(y, y) - _diagonal_sum(y)) / (m * (m - 1))
    return float(within_x + within_y - 2.0 * _kernel_sum(x, y) / (n * m))


def _kernel_sum(a: Float64, b: Float64) -> float:
    """Σᵢⱼ k(aᵢ, bⱼ), in blocks."""
    rows = max(1, BLOCK_BYTES // (8 * len(b)))
    return sum(
        float(np.power(a[first : first + rows] @ b.T / a.shape[1] + 1.0, 3).sum()) for first in range(0, len(a), rows)
    )


def _diagonal_sum(a: Float64) -> float:
    return float(np.power(np.square(a).sum(axis=1) / a.shape[1] + 1.0, 3).sum())
