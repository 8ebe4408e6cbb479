"""Rows drawn ahead are the rows that would have been drawn one batch at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ganruntime.noise import normal
from gantrain.ahead import PIECE_NUMBERS, Ahead

CPU = torch.device("cpu")


@given(
    size=st.sampled_from([1, 5, 300, PIECE_NUMBERS, PIECE_NUMBERS + 1]),
    asked=st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 40)), min_size=1, max_size=12),
)
def test_rows_are_those_of_the_function_in_whatever_order_they_are_asked_for(
    size: int, asked: list[tuple[int, int]]
) -> None:
    def draw(first: int, count: int) -> NDArray[np.int64]:
        return np.arange(first, first + count)[:, None] * 7 + np.arange(min(size, 3))

    ahead = Ahead(draw, size, CPU)
    for first, count in asked:
        assert np.array_equal(ahead(first, count).numpy(), draw(first, count))


@pytest.mark.parametrize(("size", "calls"), [(5, 1), (PIECE_NUMBERS // 64, 10)])
def test_short_rows_are_drawn_for_many_steps_at_once_and_long_ones_as_they_come(size: int, calls: int) -> None:
    made = []

    def draw(first: int, count: int) -> NDArray[np.float32]:
        made.append(count)
        return normal(3, first, count, size)

    ahead = Ahead(draw, size, CPU)
    rows = torch.cat([ahead(64 * step, 64) for step in range(10)])
    assert len(made) == calls
    assert torch.equal(rows, torch.from_numpy(normal(3, 0, 640, size)))
