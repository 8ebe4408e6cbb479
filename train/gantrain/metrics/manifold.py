"""Fidelity and diversity told apart: precision and recall, density and coverage, of k-nearest-neighbour balls.

- Precision and recall: Kynkäänniemi, Karras, Laine, Lehtinen and Aila, "Improved precision and recall metric for
  assessing generative models", 2019 (arXiv:1904.06991), k = 3.
- Density and coverage: Naeem, Oh, Uh, Choi and Yoo, "Reliable fidelity and diversity metrics for generative models",
  2020 (arXiv:2002.09797), k = 5. One stray real sample does not raise these, as it raises precision.

A real sample's ball reaches to its k-th nearest other real sample. All four depend on how many samples there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from gantrain.metrics.distances import Float64, checked_pair, neighbour_radii, squared_distances

PRECISION_RECALL_K = 3
DENSITY_COVERAGE_K = 5


@dataclass(frozen=True)
class PrecisionRecall:
    """precision: share of generated samples inside some real sample's ball. recall: the other way round. In [0, 1]."""

    precision: float
    recall: float


@dataclass(frozen=True)
class DensityCoverage:
    """density: how many real balls hold a generated sample, over k; about 1 for the real distribution, may exceed it.
    coverage: the share of real balls that hold a generated sample, in [0, 1]; for the real distribution itself about
    1 - 2⁻ᵏ = 0.97, where there are as many generated samples as real ones."""

    density: float
    coverage: float


def precision_recall(real: ArrayLike, fake: ArrayLike, k: int = PRECISION_RECALL_K) -> PrecisionRecall:
    """Improved precision and recall; a sample on a ball's surface is inside.

    Args:
        real: [N, D], N above k.
        fake: [M, D], M above k.

    Raises:
        InputError: the sets do not fit each other, hold what is not finite, or are too small.
    """
    x, y = checked_pair(real, fake, 2)
    return PrecisionRecall(_share_inside(y, x, k), _share_inside(x, y, k))


def density_coverage(real: ArrayLike, fake: ArrayLike, k: int = DENSITY_COVERAGE_K) -> DensityCoverage:
    """Density and coverage; a sample on a ball's surface is outside, as in the authors' code.

    Args:
        real: [N, D], N above k.
        fake: [M, D].

    Raises:
        InputError: the sets do not fit each other, hold what is not finite, or are too small.
    """
    x, y = checked_pair(real, fake, 2)
    radii = neighbour_radii(x, k)
    held, covered = 0, np.zeros(len(x), bool)
    for _, block in squared_distances(y, x):
        inside = block < radii
        held += int(inside.sum())
        covered |= inside.any(axis=0)
    return DensityCoverage(held / (k * len(y)), float(covered.mean()))


def _share_inside(samples: Float64, centres: Float64, k: int) -> float:
    """The share of `samples` in the ball of at least one of `centres`."""
    radii = neighbour_radii(centres, k)
    inside = sum(int((block <= radii).any(axis=1).sum()) for _, block in squared_distances(samples, centres))
    return inside / len(samples)
