"""Minimal bilinear algorithms for short correlations: fewer products than outputs times taps, for some more sums.

y[i] = Σ_k x[i + k] · g[k] for m outputs and r taps takes m + r - 1 products of sums of x with sums of g (Winograd,
"Arithmetic Complexity of Computations", 1980; for networks Lavin and Gray, "Fast Algorithms for Convolutional Neural
Networks", 2016). It is made here from the Toom-Cook product of polynomials, which it is the transpose of.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Beside infinity. Small numbers and their reciprocals in turn keep the matrices well conditioned (Barabasz et al.,
# "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020).
_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2), Fraction(-1, 2), Fraction(2))


def correlation(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """A [m, n], G [n, r], B [n, n] with n = m + r - 1, so that y = A @ ((G @ g) * (B @ x)).

    Args:
        outputs: m, at least 1. taps: r, at least 2. At most 8 products in all.
    """
    n = outputs + taps - 1
    points = _POINTS[: n - 1]
    if len(points) < n - 1:
        raise ValueError(f"{n} products are more than there are points for")
    a = np.array(_powers(points, outputs), np.float64).T
    g = np.array(_powers(points, taps), np.float64)
    b = np.array(_inverse(_powers(points, n)), np.float64).T
    for i in range(n):  # the same by powers of two, exactly: rows of B of about norm 1, so that no sum is large
        scale = 2.0 ** np.round(np.log2(np.abs(b[i]).sum() / 2))
        b[i] /= scale
        g[i] *= scale
    return a, g, b


def _powers(points: Sequence[Fraction], count: int) -> list[list[Fraction]]:
    """Polynomials of `count` coefficients, evaluated at the points and at infinity."""
    rows = [[point**j for j in range(count)] for point in points]
    return [*rows, [Fraction(int(j == count - 1)) for j in range(count)]]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """By elimination, in fractions: exact."""
    n = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(n))] for i, row in enumerate(matrix)]
    for column in range(n):
        pivot = next(r for r in range(column, n) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = [value / rows[column][column] for value in rows[column]]
        for r in range(n):
            if r != column and rows[r][column]:
                factor = rows[r][column]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[column], strict=True)]
    return [row[n:] for row in rows]
