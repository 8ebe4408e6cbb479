"""Batch buckets: which batch sizes run, and how a request is cut into them.

A first run of a new shape can be ten times slower than the next (microsoft/onnxruntime#17443), and an engine has
profiles for some batches only. So a session runs the sizes of its buckets and no others; what does not fill a bucket
is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ganruntime.errors import InputError

DEFAULT_BUCKETS = (1, 4, 16, 64)
LARGEST_BUCKET = 65_536
# What one more call costs, in rows: with less, 7 rows would run as 4 + 1 + 1 + 1.
_CALL_COST_ROWS = 1


@dataclass(frozen=True)
class Piece:
    """Rows [start, start + rows) of a request, run in a batch of `bucket` >= rows."""

    start: int
    rows: int
    bucket: int


def checked_buckets(buckets: Sequence[int]) -> tuple[int, ...]:
    """Ascending, without repetition. Raises `InputError` for anything but integers in [1, 65536]."""
    if not isinstance(buckets, Sequence) or isinstance(buckets, (str, bytes)) or len(buckets) == 0:
        raise InputError(
            "batch buckets are missing", got=repr(buckets), expected="a few batch sizes, such as (1, 8, 64)"
        )
    for b in buckets:
        if not isinstance(b, int) or isinstance(b, bool) or not 1 <= b <= LARGEST_BUCKET:
            raise InputError(
                "a batch bucket is not a batch size", got=repr(b), expected=f"an integer in [1, {LARGEST_BUCKET}]"
            )
    return tuple(sorted(set(buckets)))


def pieces_of(count: int, buckets: tuple[int, ...]) -> list[Piece]:
    """Cuts a request of `count` rows: full largest buckets first, then the cheapest cover of the rest.

    The cost of a cover is the rows that run, padding included, and one row's worth for each call. The cut depends on
    `count` and `buckets` alone, so equal requests run in equal batches.
    """
    if count <= buckets[-1]:
        return list(_few_pieces(count, buckets))
    return _pieces(count, buckets)


@lru_cache(maxsize=4096)
def computed_rows(count: int, buckets: tuple[int, ...]) -> int:
    """How many rows run for `count` of them, padding included."""
    return sum(piece.bucket for piece in pieces_of(count, buckets))


@lru_cache(maxsize=4096)
def _few_pieces(count: int, buckets: tuple[int, ...]) -> tuple[Piece, ...]:
    return tuple(_pieces(count, buckets))


def _pieces(count: int, buckets: tuple[int, ...]) -> list[Piece]:
    largest = buckets[-1]
    full, rest = divmod(count, largest)
    sizes = [largest] * full + list(_cover(rest, buckets))
    pieces, start = [], 0
    for bucket in sizes:
        rows = min(bucket, count - start)
        pieces.append(Piece(start, rows, bucket))
        start += rows
    return pieces


@lru_cache(maxsize=4096)
def _cover(rest: int, buckets: tuple[int, ...]) -> tuple[int, ...]:
    """The cheapest buckets for fewer rows than the largest holds, in descending order."""
    # For n rows: the cost, the calls, and the bucket that comes last; not the buckets, which would be n² of them.
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for n in range(1, rest + 1):
        options = []
        for b in buckets:
            cost, calls, _ = best[max(0, n - b)]
            options.append((cost + b + _CALL_COST_ROWS, calls + 1, b))
        best.append(min(options, key=lambda option: option[:2]))
    sizes = []
    while rest > 0:
        sizes.append(best[rest][2])
        rest -= sizes[-1]
    return tuple(sorted(sizes, reverse=True))
