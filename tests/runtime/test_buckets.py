"""Batch buckets: every row runs once, in a batch that is a bucket, at the least cost."""

from __future__ import annotations

import itertools
import tracemalloc
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganruntime.buckets import Piece, checked_buckets, pieces_of
from ganruntime.errors import InputError

bucket_sets = st.lists(st.integers(1, 40), min_size=1, max_size=4).map(checked_buckets)


@settings(deadline=None, max_examples=200)
@given(count=st.integers(0, 400), buckets=bucket_sets)
def test_pieces_cover_every_row_once_in_order(count: int, buckets: tuple[int, ...]) -> None:
    pieces = pieces_of(count, buckets)
    start = 0
    for piece in pieces:
        assert piece.start == start
        assert 1 <= piece.rows <= piece.bucket
        assert piece.bucket in buckets
        start += piece.rows
    assert start == count
    # Only the last piece of all may be padded more than its bucket needs; the order is from large to small.
    assert all(piece.rows == piece.bucket for piece in pieces[:-1])
    assert [p.bucket for p in pieces] == sorted((p.bucket for p in pieces), reverse=True)


def least_cost(count: int, buckets: tuple[int, ...]) -> int:
    """By trying everything: rows that run, padding included, and one for each call."""

    @cache
    def cost(rest: int) -> int:
        return 0 if rest <= 0 else min(b + 1 + cost(rest - b) for b in buckets)

    return cost(count)


@settings(deadline=None, max_examples=200)
@given(buckets=bucket_sets, data=st.data())
def test_the_rest_below_the_largest_bucket_costs_the_least(buckets: tuple[int, ...], data: st.DataObject) -> None:
    rest = data.draw(st.integers(0, buckets[-1] - 1))
    pieces = pieces_of(rest, buckets)
    assert sum(p.bucket + 1 for p in pieces) == least_cost(rest, buckets)


@pytest.mark.parametrize(
    ("count", "batches"),
    [
        (0, []),
        (1, [1]),
        (3, [4]),
        (7, [4, 4]),
        (13, [16]),
        (64, [64]),
        (65, [64, 1]),
        (200, [64, 64, 64, 4, 4]),
    ],
)
def test_the_default_buckets_by_example(count: int, batches: list[int]) -> None:
    assert [p.bucket for p in pieces_of(count, (1, 4, 16, 64))] == batches


def test_one_bucket_pads_everything_to_itself() -> None:
    assert pieces_of(10, (8,)) == [Piece(0, 8, 8), Piece(8, 2, 8)]


def test_equal_requests_are_cut_equally() -> None:
    for count, buckets in itertools.product(range(100), [(1, 4, 16, 64), (3, 5), (7,)]):
        assert pieces_of(count, buckets) == pieces_of(count, buckets)


def test_buckets_far_apart_cost_no_memory() -> None:
    """A cover that is kept as lists of buckets would need n² / 2 entries here: gigabytes."""
    tracemalloc.start()
    pieces = pieces_of(30_000, (1, 65_536))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(pieces) == 30_000
    assert peak < 64 << 20


def test_buckets_are_sorted_and_unique() -> None:
    assert checked_buckets([64, 1, 8, 8]) == (1, 8, 64)
    assert checked_buckets(range(1, 4)) == (1, 2, 3)


@pytest.mark.parametrize(
    "buckets", [(), [], "18", b"8", 8, None, {1, 2}, (0,), (-1,), (1.0,), (True,), ("8",), (65_537,), np.array([1])]
)
def test_what_is_no_list_of_batch_sizes_is_an_error(buckets: Any) -> None:
    with pytest.raises(InputError, match="bucket"):
        checked_buckets(buckets)
