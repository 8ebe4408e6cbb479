"""Weights as integers: nearest, and together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_graphs import weights

from ganexport.precision.integer_weights import integer_weights

Float64 = NDArray[np.float64]


def correlated(seed: int, size: int, places: int = 2000) -> Float64:
    """What a smooth map gives to the taps of a kernel: neighbours that are much alike, [places, size]."""
    random = np.random.default_rng(seed)
    steps = random.standard_normal((places, size + 3))
    return np.asarray(sum(steps[:, i : i + size] for i in range(4)) + 0.5, np.float64)


def moment_of(read: Float64) -> Float64:
    return np.asarray(read.T @ read / len(read), np.float64)


def error(read: Float64, lost: Float64) -> float:
    return float(np.square(read @ lost.reshape(len(lost), -1).T).mean())


def test_weights_are_symmetric_per_channel_and_within_half_a_step() -> None:
    weight = weights(0, 5, 4, 3, 3) * np.array([1, 10, 0.1, 3, 0], np.float32).reshape(5, 1, 1, 1)
    for levels in (64, 127):
        made = integer_weights(weight, 0, levels)
        assert made.integers.dtype == np.int8
        assert np.abs(made.integers).max() == levels
        steps = made.scales.reshape(5, 1, 1, 1)
        assert (np.abs(made.integers * steps - weight) <= steps / 2 * (1 + 1e-6)).all()
        assert (made.integers[4] == 0).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([64, 127]), st.sampled_from([0, 1]))
def test_what_was_lost_and_what_is_left_add_up(seed: int, levels: int, axis: int) -> None:
    weight = weights(seed, 6, 9)
    moments = [moment_of(correlated(seed, 4)), moment_of(correlated(seed + 1, 5 if axis == 0 else 2))]
    for made in (integer_weights(weight, axis, levels), integer_weights(weight, axis, levels, moments)):
        assert np.abs(made.integers).max() <= levels
        assert made.scales.shape == (weight.shape[axis],)
        np.testing.assert_allclose(made.rounded + made.lost, weight, atol=1e-6)


def test_together_the_error_of_the_output_is_less_than_half() -> None:
    weight = weights(1, 16, 48)
    # What rounding is judged by was not seen when it was done.
    seen, fresh = correlated(2, 48), correlated(3, 48)
    nearest = integer_weights(weight, 0, 64)
    together = integer_weights(weight, 0, 64, [moment_of(seen)])
    assert error(fresh, together.lost) < 0.5 * error(fresh, nearest.lost)
    # In runs: less is shared, and it is still less than alone.
    halves = integer_weights(weight, 0, 64, [moment_of(seen[:, :20]), moment_of(seen[:, 20:])])
    assert error(fresh, halves.lost) < 0.7 * error(fresh, nearest.lost)


@pytest.mark.parametrize("size", [1, 5, 32, 33, 70])
def test_what_does_not_move_together_is_rounded_to_the_nearest(size: int) -> None:
    weight = weights(4, 7, size)
    made = integer_weights(weight, 0, 64, [np.diag(np.linspace(1.0, 2.0, size))])
    assert np.array_equal(made.integers, integer_weights(weight, 0, 64).integers)


def test_what_is_multiplied_with_zeros_is_rounded_to_the_nearest() -> None:
    weight = weights(5, 4, 6)
    made = integer_weights(weight, 0, 64, [np.zeros((6, 6))])
    assert np.array_equal(made.integers, integer_weights(weight, 0, 64).integers)


def test_twice_as_many_places_as_weights_are_enough_to_gain() -> None:
    weight = weights(6, 8, 60)
    seen, fresh = correlated(7, 60, places=120), correlated(8, 60)
    nearest, together = integer_weights(weight, 0, 64), integer_weights(weight, 0, 64, [moment_of(seen)])
    assert np.isfinite(together.lost).all()
    assert error(fresh, together.lost) < error(fresh, nearest.lost)


def test_the_other_axis_is_the_same_transposed() -> None:
    weight = weights(9, 8, 12)
    moments = [moment_of(correlated(10, 12))]
    rows, columns = integer_weights(weight, 0, 64, moments), integer_weights(weight.T.copy(), 1, 64, moments)
    assert np.array_equal(rows.integers, columns.integers.T)
    np.testing.assert_array_equal(rows.scales, columns.scales)


def test_moments_of_another_number_of_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="moments of 5 weights for 6"):
        integer_weights(weights(11, 4, 6), 0, 64, [np.eye(5)])
