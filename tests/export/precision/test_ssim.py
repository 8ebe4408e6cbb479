"""SSIM against its definition, window by window."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ganexport.ssim import ssim_of


def by_definition(x: NDArray[np.float64], y: NDArray[np.float64], size: int, low: float, high: float) -> float:
    """One plane [H, W], a window at a time; the paper's values count from 0."""
    x, y, range_width = x - low, y - low, high - low
    half = size // 2
    gauss = np.array([math.exp(-(i * i) / (2 * 1.5**2)) for i in range(-half, half + 1)])
    window = np.outer(gauss, gauss) / gauss.sum() ** 2
    c1, c2 = (0.01 * range_width) ** 2, (0.03 * range_width) ** 2
    found = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            found.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize(("height", "width", "size"), [(16, 20, 11), (8, 9, 7), (5, 5, 5), (4, 4, 3)])
def test_it_is_the_mean_over_all_windows_inside_the_image(height: int, width: int, size: int) -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (2, 3, height, width))
    y = np.clip(x + random.normal(0, 0.2, x.shape), -1, 1)
    expected = [np.mean([by_definition(x[n, c], y[n, c], size, -1.0, 1.0) for c in range(3)]) for n in range(2)]
    np.testing.assert_allclose(ssim_of(x, y, -1.0, 1.0), expected, rtol=1e-9)
    np.testing.assert_allclose(ssim_of(x / 2 + 0.5, y / 2 + 0.5, 0.0, 1.0), expected, rtol=1e-9)


def test_equal_images_have_one_and_others_less() -> None:
    x = np.random.default_rng(1).uniform(-1, 1, (4, 1, 32, 32))
    np.testing.assert_allclose(ssim_of(x, x, -1.0, 1.0), 1.0)
    assert (ssim_of(x, x[::-1], -1.0, 1.0) < 0.5).all()
    assert (ssim_of(x, -x, -1.0, 1.0) < 0).all()


def test_a_value_that_is_not_finite_makes_it_zero_for_that_image_only() -> None:
    x = np.zeros((3, 1, 16, 16))
    y = x.copy()
    y[1, 0, 3, 3] = np.nan
    np.testing.assert_allclose(ssim_of(x, y, -1.0, 1.0), [1.0, 0.0, 1.0])


def test_a_constant_shift_costs_luminance_only() -> None:
    x, shift = np.full((1, 1, 16, 16), -0.5), 0.1
    c1 = (0.01 * 2) ** 2
    expected = (2 * 0.5 * 0.6 + c1) / (0.5**2 + 0.6**2 + c1)
    np.testing.assert_allclose(ssim_of(x, x + shift, -1.0, 1.0), expected, rtol=1e-9)
