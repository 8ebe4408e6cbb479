"""Chunks: which images of a run are drawn together, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ganruntime.buckets import pieces_of


@dataclass(frozen=True)
class Chunk:
    """Images [start, start + count) of a run, counted from 0 whatever the index of the first one is."""

    start: int
    count: int


@dataclass(frozen=True)
class Drawn:
    """A chunk's images, uint8 [b, H, W, C] (or what a generator without images gives), and the inputs that a person
    chooses, {name: [b, *shape]}: labels and scalars, not noise."""

    start: int
    images: NDArray[Any]
    inputs: Mapping[str, NDArray[Any]]


def chunks_of(start: int, count: int, size: int) -> Iterator[Chunk]:
    """[start, start + count) in chunks of `size`, the last one with what is left."""
    for offset in range(0, count, size):
        yield Chunk(start + offset, min(size, count - offset))


def buckets_of(count: int, buckets: tuple[int, ...]) -> list[int]:
    """The bucket that each row of a chunk runs in."""
    return [piece.bucket for piece in pieces_of(count, buckets) for _ in range(piece.rows)]
