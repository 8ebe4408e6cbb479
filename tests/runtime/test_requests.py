"""Requests: rows by seed and index, and how they are drawn for the pieces of a batch plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganruntime import requests
from ganruntime.buckets import pieces_of
from ganruntime.requests import request_from_seed, rows_of_pieces
from ganruntime.rows import Rows
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, TensorSpec

SPEC = GeneratorSpec(
    "g",
    (TensorSpec("z", "float32", (7,), Latent()), TensorSpec("class", "int64", (), Label(("a", "b", "c")))),
    (TensorSpec("image", "float32", (1, 4, 4), Image()),),
)
ROW_BYTES = 4 * 7 + 4


@given(n=st.integers(0, 300), first=st.integers(0, 99), ahead_rows=st.integers(0, 200))
def test_what_is_drawn_for_several_pieces_is_what_each_would_draw(n: int, first: int, ahead_rows: int) -> None:
    request = request_from_seed(SPEC, n, 5, first, None, None, {})
    draws: list[int] = []

    def rows_of(start: int, count: int) -> Rows:
        draws.append(count)
        return request.rows(start, count)

    pieces = pieces_of(n, (1, 4, 16))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "_AHEAD_BYTES", ahead_rows * ROW_BYTES)
        found = list(rows_of_pieces(SPEC, rows_of, pieces))
    assert [piece for piece, _ in found] == pieces
    for piece, rows in found:
        expected = request.rows(piece.start, piece.rows)
        assert rows.keys() == expected.keys()
        assert all(np.array_equal(rows[name], expected[name]) for name in rows)
    assert sum(draws) == n
    assert all(count <= max(ahead_rows, 16) for count in draws)
    if n >= 32 and ahead_rows >= 32:
        assert len(draws) < len(pieces)
