"""Toy distributions: rows by index, with the moments that their definitions give, and labels that name the mode."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganruntime.errors import DataError, InputError
from gantrain.data.toys import TOYS, Curves, GaussianMixture, curves, grid, ring, toy_from_name


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(sorted(TOYS)),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**40),
    cut=st.integers(1, 29),
)
def test_a_row_is_a_function_of_seed_and_index(name: str, seed: int, first: int, cut: int) -> None:
    source = toy_from_name(name, seed)
    whole = source.rows(first, 30)
    assert whole.dtype == np.float32
    assert whole.shape == (30, source.size)
    parts = np.concatenate([source.rows(first, cut), source.rows(first + cut, 30 - cut)])
    np.testing.assert_array_equal(whole, parts)
    for label, values in source.labels(first, 30).items():
        assert values.dtype == np.int64
        assert values.min() >= 0
        assert values.max() < len(source.classes[label])
        np.testing.assert_array_equal(values[cut:], source.labels(first + cut, 30 - cut)[label])


@pytest.mark.parametrize(("source", "modes", "sigma"), [(ring(5), 8, 0.01), (grid(5), 25, 0.05)])
def test_a_mixture_has_its_modes_and_sigma(source: GaussianMixture, modes: int, sigma: float) -> None:
    count = 40_000
    rows, labels = source.rows(0, count).astype(np.float64), source.labels(0, count)["mode"]
    assert source.centres.shape == (modes, 2)
    offsets = rows - source.centres[labels]
    # Four standard errors: of a variance it is σ²·√(2/n), of a mean σ/√n, of a share √(p(1 - p)/n).
    assert abs(offsets.var() / sigma**2 - 1.0) < 4 * np.sqrt(2 / (2 * count))
    assert abs(offsets.mean()) < 4 * sigma / np.sqrt(2 * count)
    shares = np.bincount(labels, minlength=modes) / count
    assert np.abs(shares - 1 / modes).max() < 4 * np.sqrt(1 / modes * (1 - 1 / modes) / count)
    assert abs(np.corrcoef(offsets.T)[0, 1]) < 4 / np.sqrt(count)


def test_where_the_modes_are() -> None:
    np.testing.assert_allclose(np.linalg.norm(ring().centres, axis=1), 1.0, rtol=1e-15)
    angles = np.unwrap(np.arctan2(*ring().centres.T[::-1]))
    np.testing.assert_allclose(np.diff(angles), np.pi / 4)
    assert {tuple(c) for c in grid().centres} == {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}


def test_curves_are_parabolas_of_the_painter() -> None:
    source = curves(3)
    rows, a = source.rows(100, 5000).astype(np.float64), source.openings(100, 5000)
    assert source.size == 15
    np.testing.assert_allclose(source.places, np.linspace(-1, 1, 15))
    np.testing.assert_allclose(rows, a[:, None] * source.places**2 + a[:, None] - 1, atol=1e-6)
    assert a.min() >= 1.0
    assert a.max() < 2.0
    assert abs(a.mean() - 1.5) < 4 * np.sqrt(1 / 12 / 5000)
    assert Curves().labels(0, 3) == {}


def test_seeds_and_toys_have_fingerprints_of_their_own() -> None:
    sources = [toy_from_name(name, seed) for name in TOYS for seed in (0, 1)]
    assert len({source.fingerprint for source in sources}) == len(sources)
    assert ring(0).fingerprint == ring(0).fingerprint


def test_the_rows_of_this_release_are_pinned() -> None:
    found = {name: hashlib.sha256(TOYS[name](7).rows(2**33, 100).tobytes()).hexdigest()[:16] for name in TOYS}
    assert found == {"ring": "6c2c33c045946a47", "grid": "4f6ac33f28a344a0", "curves": "06bdb26aefe9e430"}


def test_what_is_no_toy() -> None:
    with pytest.raises(DataError, match="'rng'") as error:
        toy_from_name("rng")
    assert "'ring'?" in str(error.value)
    with pytest.raises(InputError):
        ring().rows(-1, 3)
