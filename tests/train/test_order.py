"""The data's order: every image once an epoch, whatever the split, and the same bits for ever."""

from __future__ import annotations

import numpy as np
import pytest

from gantrain.data import order

PINNED_ORDER = [8, 5, 1, 2, 0, 4, 3, 9, 7, 6]
PINNED_MIRROR = [False, True, True, False, False, False, True, True]


@pytest.mark.parametrize("size", [2, 7, 64])
def test_an_epoch_is_a_permutation_and_epochs_differ(size: int) -> None:
    epochs = [order.indices(5, e * size, size, size) for e in range(4)]
    for epoch in epochs:
        assert sorted(epoch.tolist()) == list(range(size))
    if size > 2:
        assert len({tuple(epoch) for epoch in epochs}) == 4


def test_any_split_gives_the_same_order() -> None:
    whole = order.indices(3, 0, 100, 23)
    rng = np.random.default_rng(0)
    for _ in range(20):
        first = int(rng.integers(0, 99))
        count = int(rng.integers(1, 100 - first + 1))
        np.testing.assert_array_equal(order.indices(3, first, count, 23), whole[first : first + count])


def test_seeds_differ() -> None:
    assert order.indices(0, 0, 50, 50).tolist() != order.indices(1, 0, 50, 50).tolist()


def test_mirroring_is_a_coin_per_position() -> None:
    whole = order.mirrored(9, 0, 4000)
    assert 0.45 < whole.mean() < 0.55
    np.testing.assert_array_equal(order.mirrored(9, 1234, 17), whole[1234:1251])
    assert (order.mirrored(10, 0, 4000) != whole).any()


def test_the_order_is_pinned() -> None:
    # A change here changes every run: old ones could be resumed no more.
    assert order.indices(0, 0, 10, 10).tolist() == PINNED_ORDER
    assert order.mirrored(0, 0, 8).tolist() == PINNED_MIRROR
