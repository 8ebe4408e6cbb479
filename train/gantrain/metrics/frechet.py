"""The Fréchet distance between two sets of features, taken for Gaussians: FID, where the features are Inception's.

Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, "GANs trained by a two time-scale update rule converge to a local
Nash equilibrium", 2017 (arXiv:1706.08500):

    d² = |μ₁ - μ₂|² + Tr(Σ₁ + Σ₂ - 2 (Σ₁^½ Σ₂ Σ₁^½)^½)

The trace of the root is the sum of the roots of the eigenvalues of a symmetric matrix, which `eigvalsh` gives without
the complex numbers that a general matrix root wanders into. It is biased upwards where samples are few (Chong and
Forsyth 2020): figures compare only at the same number of samples, in the same features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gantrain.metrics.distances import Float64, checked_pair


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """d² between the Gaussians fitted to two sets of features, with the unbiased covariance (N - 1).

    Args:
        real: [N, D], N at least 2.
        fake: [M, D], M at least 2.

    Returns:
        A number of at least 0, in squared units of the features; 0 for equal sets.

    Raises:
        InputError: the sets do not fit each other, or hold what is not finite.
    """
    x, y = checked_pair(real, fake, 2)
    return frechet_from_moments(x.mean(axis=0), _covariance(x), y.mean(axis=0), _covariance(y))


def frechet_from_moments(mean_1: Float64, covariance_1: Float64, mean_2: Float64, covariance_2: Float64) -> float:
    """d² of two Gaussians: means float64 [D], covariances float64 [D, D], symmetric and not negative."""
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_2 @ root), 0.0))
    distance = np.square(mean_1 - mean_2).sum() + np.trace(covariance_1) + np.trace(covariance_2) - 2.0 * roots.sum()
    return max(0.0, float(distance))


def _covariance(x: Float64) -> Float64:
    centred = x - x.mean(axis=0)
    result: Float64 = centred.T @ centred / (len(x) - 1)
    return result
