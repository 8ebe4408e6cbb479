"""The slow twin of `ganruntime.noise`: the same definition in Python's integers and floats, one number at a time."""

from __future__ import annotations

import math
import struct
from functools import cache
from pathlib import Path

import ganruntime

_MASK = (1 << 64) - 1
# Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3 and Random123.
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def philox4x64(counter: tuple[int, int, int, int], key: tuple[int, int], rounds: int = 10) -> tuple[int, int, int, int]:
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        a, b = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (b >> 64) ^ c1 ^ k0, b & _MASK, (a >> 64) ^ c3 ^ k1, a & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def words(seed: int, index: int, size: int, stream: int) -> list[int]:
    """`size` unsigned 32-bit words of one row."""
    blocks = -(-size // 8)
    result: list[int] = []
    for block in range(index * blocks, (index + 1) * blocks):
        counter = tuple(block >> 64 * i & _MASK for i in range(4))
        for word in philox4x64(counter, (seed, stream)):  # type: ignore[arg-type]
            result += [word & 0xFFFFFFFF, word >> 32]
    return result[:size]


def float32(x: float) -> float:
    return struct.unpack("<f", struct.pack("<f", x))[0]


@cache
def _table() -> list[tuple[float, float, float]]:
    data = (Path(ganruntime.__file__).parent / "normal_table.bin").read_bytes()
    return list(struct.iter_unpack("<3d", data))


def row_of_table(f: float) -> int:
    mantissa, exponent = math.frexp(abs(f))  # mantissa in [1/2, 1)
    segment = int((2 * mantissa - 1) * 256)
    return (exponent - 1 + 1023) % 32 * 256 + segment


def normal_from_word(word: int) -> float:
    f = (word - (1 << 32) if word >> 31 else word) + 0.5
    a, b, c = _table()[row_of_table(f)]
    square = f * f
    return float32(((c * square + b) * square + a) * f)


def normal(seed: int, index: int, size: int, stream: int = 0) -> list[float]:
    return [normal_from_word(w) for w in words(seed, index, size, stream)]


def uniform(seed: int, index: int, size: int, stream: int = 0) -> list[float]:
    return [(w >> 8) / 2**23 - 1 for w in words(seed, index, size, stream)]


def sphere(seed: int, index: int, size: int, stream: int = 0) -> list[float]:
    row = normal(seed, index, size, stream)
    squares = [x * x for x in row]
    squares += [0.0] * ((1 << (size - 1).bit_length()) - size)
    while len(squares) > 1:
        half = len(squares) // 2
        squares = [squares[i] + squares[half + i] for i in range(half)]
    length = math.sqrt(squares[0])
    return [float32(x / length) for x in row]


def ball(seed: int, index: int, size: int, stream: int = 0) -> list[float]:
    return sphere(seed, index, size + 2, stream)[:size]


def labels(seed: int, index: int, size: int, classes: int, stream: int) -> list[int]:
    return [w * classes >> 32 for w in words(seed, index, size, stream)]
