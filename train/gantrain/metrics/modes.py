"""Toys: what a generator has found of a distribution that is known exactly, and how much of what it gives is of it.

For Gaussian mixtures, as Srivastava et al. count ("VEEGAN", 2017, arXiv:1705.07761, section 4.1) and Lin et al.
("PacGAN", 2018, arXiv:1712.04086, section 4.1): a sample is of high quality where it lies within three standard
deviations of the nearest mode's centre, and a mode is found where at least one sample of high quality is nearest to it.
Perfect samples are of high quality with probability 1 - exp(-9/2) = 0.989 in two dimensions. 2,500 samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gantrain.data.toys import Curves, GaussianMixture
from gantrain.metrics.distances import checked_features, nearest

SAMPLES = 2_500
_SIGMAS = 3.0
_OFF_CURVE = 0.05


@dataclass(frozen=True)
class ModeCount:
    """found: modes found, of `modes`. high_quality: share of samples, in [0, 1]. distance: the total variation distance
    of the shares of the modes, among samples of high quality, from equal ones; 0 is right, 1 is nothing found. spread:
    root mean square distance of samples of high quality from their centre, over that of perfect ones; below 1 modes
    are too small, which high quality alone would praise; 0 where there are none."""

    modes: int
    found: int
    high_quality: float
    distance: float
    spread: float


@dataclass(frozen=True)
class CurveFit:
    """residual: mean over the samples of the root mean square distance of a curve from the nearest parabola of the
    family, in units of y. on_curve: share of samples with a residual of at most 0.05 and an opening in [1, 2].
    distance: Kolmogorov's, of the openings from U[1, 2]; 0 is right, 1 is worst."""

    residual: float
    on_curve: float
    distance: float


def modes_found(samples: ArrayLike, source: GaussianMixture) -> ModeCount:
    """Counts modes among samples [N, size]. Raises `InputError` where they are not that, or not finite."""
    x = checked_features(source.name, samples, 1)
    distances, indices = nearest(x, source.centres)
    good = distances <= _SIGMAS * source.sigma
    counts = np.bincount(indices[good], minlength=len(source.centres))
    shares = counts / max(1, counts.sum())
    away = float(np.abs(shares - 1.0 / len(counts)).sum() / 2.0) if good.any() else 1.0
    return ModeCount(len(counts), int((counts > 0).sum()), float(good.mean()), away, _spread(distances[good], source))


def _spread(distances: NDArray[np.float64], source: GaussianMixture) -> float:
    if not len(distances):
        return 0.0
    # E[d²/σ² | d ≤ 3σ], d²/σ² being χ² with n degrees of freedom: n·P(χ²(n+2) ≤ 9) / P(χ²(n) ≤ 9); 1.90 in the plane.
    n = source.size
    perfect = n * _chi_squared_below(_SIGMAS**2, n + 2) / _chi_squared_below(_SIGMAS**2, n)
    return float(np.sqrt(np.square(distances).mean() / perfect) / source.sigma)


def _chi_squared_below(value: float, degrees: int) -> float:
    """P(χ² ≤ value): the series of the lower incomplete gamma function, all of whose terms are positive."""
    x, a = value / 2.0, degrees / 2.0
    return math.fsum(math.exp((a + k) * math.log(x) - x - math.lgamma(a + k + 1.0)) for k in range(200))


def curve_fit(samples: ArrayLike, source: Curves) -> CurveFit:
    """Fits y = a·x² + (a - 1) to each of samples [N, size] by least squares. Raises as `modes_found` does."""
    y = checked_features(source.name, samples, 1)
    slope = np.square(source.places) + 1.0  # y + 1 = a·(x² + 1)
    openings = (y + 1.0) @ slope / (slope @ slope)
    residuals = np.sqrt(np.square(y + 1.0 - openings[:, None] * slope).mean(axis=1))
    on_curve = (residuals <= _OFF_CURVE) & (openings >= 1.0) & (openings <= 2.0)
    ordered = np.clip(np.sort(openings) - 1.0, 0.0, 1.0)  # under U[1, 2] the distribution function itself
    steps = np.arange(len(y) + 1) / len(y)
    away = float(max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))
    return CurveFit(float(residuals.mean()), float(on_curve.mean()), away)
