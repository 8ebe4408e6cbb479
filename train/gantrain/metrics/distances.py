"""Distances between rows of features: in blocks, so that memory stays bounded, and in float64.

|a - b|² is computed as |a|² + |b|² - 2a·b after the mean of all rows is taken away, without which near neighbours far
from the origin would lose their digits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime.errors import InputError

Float64 = NDArray[np.float64]

BLOCK_BYTES = 64 << 20


def checked_features(name: str, features: ArrayLike, least: int) -> Float64:
    """[N, D] in float64. Raises `InputError` unless it has two dimensions, `least` rows, and finite numbers alone."""
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or len(x) < least or x.shape[1] < 1:
        raise InputError(f"{name}: too few rows of features", got=list(x.shape), expected=f"[N, D], N at least {least}")
    if not np.isfinite(x).all():
        raise InputError(f"{name}: features hold what is not finite")
    return x


def checked_pair(real: ArrayLike, fake: ArrayLike, least: int) -> tuple[Float64, Float64]:
    """Both as `checked_features` has them; raises `InputError` where their widths differ too."""
    x, y = checked_features("real", real, least), checked_features("generated", fake, least)
    if x.shape[1] != y.shape[1]:
        raise InputError(
            "real and generated features are of different spaces", got=f"{x.shape[1]} and {y.shape[1]} numbers a row"
        )
    return x, y


def squared_distances(a: Float64, b: Float64) -> Iterator[tuple[int, Float64]]:
    """Yields (first row of a, float64 [rows, len(b)]) in blocks of at most 64 MiB; none is below 0."""
    centre = (a.sum(axis=0) + b.sum(axis=0)) / (len(a) + len(b))
    a, b = a - centre, b - centre
    b_squares = np.square(b).sum(axis=1)
    rows = max(1, BLOCK_BYTES // (8 * len(b)))
    for first in range(0, len(a), rows):
        block = a[first : first + rows]
        products = block @ b.T
        products *= -2.0
        products += np.square(block).sum(axis=1)[:, None]
        products += b_squares
        yield first, np.maximum(products, 0.0, out=products)


def neighbour_radii(x: Float64, k: int) -> Float64:
    """The squared distance of every row from its k-th nearest other row: float64 [N].

    Raises:
        InputError: there are not more than k rows.
    """
    if not 1 <= k < len(x):
        raise InputError(
            "too few samples for that many neighbours", got=f"k {k}, {len(x)} samples", expected="k below N"
        )
    radii = np.empty(len(x))
    for first, block in squared_distances(x, x):
        rows = np.arange(len(block))
        block[rows, first + rows] = 0.0  # itself, which rounding may have moved away
        radii[first : first + len(block)] = np.partition(block, k, axis=1)[:, k]
    return radii


def nearest(queries: Float64, points: Float64) -> tuple[Float64, NDArray[np.int64]]:
    """The nearest point of every query: its distance, float64 [Q], and its index, int64 [Q].

    Of points that are equally near the first. The distance is taken from the difference itself, so that a copy has 0.
    """
    indices = np.empty(len(queries), np.int64)
    for first, block in squared_distances(queries, points):
        indices[first : first + len(block)] = block.argmin(axis=1)
    return np.sqrt(np.square(queries - points[indices]).sum(axis=1)), indices
