"""Noise: image i of seed s is a pure function of (s, i).

Never of the batch size, the order, the worker or a retry; and, because every step is an operation that IEEE 754 rounds
exactly (+, ×, ÷, √, conversions) or a table lookup, never of the CPU, of NumPy's version or of its libm either.

Bits: Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is
(seed, stream). A row of `size` numbers takes B = ceil(size / 8) blocks; row i takes the blocks whose counters are
i·B … i·B + B - 1; a block is four 64-bit words, each two 32-bit words, low half first. NumPy guarantees the raw bits of
its Philox, and not the distributions of its Generator, so the transforms are ours:

- uniform: the top 24 bits of a word, as a number on the grid of 2⁻²³ in [-1, 1).
- normal: inverse transform sampling in float64, rounded to float32. A word read as a signed integer w becomes
  f = w + ½ (never 0), and the quantile at u = |f| / 2³² is taken by sign. The quantile function is tabulated: 32
  octaves of |f| in 256 segments each, in each x(f) = f · (a + b·f² + c·f⁴), an odd function, so that f and -f give x
  and -x. The table's absolute error is below 3.1e-8, its relative error below 8e-8 wherever |x| > 0.01 (float32 itself
  rounds by up to 6e-8), and values reach ±6.34 (tests).
- sphere: a normal row over its length (Muller 1959), the squares summed in float64 in a fixed tree order.
- ball: size + 2 coordinates of a point on the sphere, the last two dropped (Voelker, Gosmann and Stewart, "Efficiently
  sampling vectors and coordinates from the n-sphere and n-ball", 2017): no power, so every bit is defined here too.

Golden hashes stand in `tests/runtime/test_noise.py`: a change of a single bit is a change of format.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import InputError
from ganruntime.spec import GeneratorSpec, Label, Latent, Noise, Scalar, TensorSpec

Float32 = NDArray[np.float32]

_WORDS_PER_BLOCK = 8
_PIECE_WORDS = (
    8192  # the best of 2,048 to 16,384: smaller pieces pay NumPy's call overhead, larger ones leave the cache
)
_SEGMENT_SHIFT = 44  # of a float64's 52 mantissa bits the top 8 name the segment of the octave
_SEGMENT_MASK = 0x1FFF  # 5 bits of exponent (32 octaves, unique modulo 32) and those 8
_TABLE_ROWS = 8192
_TABLE_SHA256 = "aec12a73ad4fab955304e44601d8950120dd129d21ff013debbd5d5d750755b6"
_TWO_64, _TWO_256 = 1 << 64, 1 << 256


class _Scratch(threading.local):
    """What a piece is drawn with, one per thread, made once: making it would cost a tenth of a large draw's time, and
    several times that of a single latent."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(0)
        self.state = self.bits.state
        self.f = np.empty(_PIECE_WORDS, np.float64)
        self.square = np.empty(_PIECE_WORDS, np.float64)
        self.x = np.empty(_PIECE_WORDS, np.float64)
        self.segment = np.empty(_PIECE_WORDS, np.int64)
        self.rows = np.empty((_PIECE_WORDS, 4), np.float64)


_scratch = _Scratch()
_table: NDArray[np.float64] | None = None


def _quantile_table() -> NDArray[np.float64]:
    """[8192, 4] float64: a, b, c and a zero that makes a row 32 bytes, which NumPy gathers in one move."""
    global _table
    if _table is None:
        data = (Path(__file__).parent / "normal_table.bin").read_bytes()
        if hashlib.sha256(data).hexdigest() != _TABLE_SHA256:
            raise InputError(
                "normal_table.bin is not the table of this release", remedy="pip install --force-reinstall ganexport"
            )
        table = np.zeros((_TABLE_ROWS, 4))
        table[:, :3] = np.frombuffer(data, "<f8").reshape(_TABLE_ROWS, 3)
        _table = table
    return _table


@lru_cache(maxsize=1024)
def stream_of(name: str) -> int:
    """The Philox stream of an input: the first 8 bytes of the SHA-256 of its name, so that inputs are independent."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def require_range(seed: int, first: int, count: int, stream: int = 0) -> None:
    """Raises `InputError` unless seed and stream are in [0, 2⁶⁴) and first … first + count - 1 are indices there."""
    for value, name, end in (
        (seed, "seed", _TWO_64),
        (first, "first", _TWO_64),
        (count, "count", 1 << 48),
        (stream, "stream", _TWO_64),
    ):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 0 <= value < end:
            raise InputError(f"{name} is not an index", got=repr(value), expected=f"an integer in [0, {end})")
    if int(first) + int(count) > _TWO_64:
        raise InputError(
            "the range of indices ends after the last one",
            got=f"first {first}, count {count}",
            expected="first + count <= 2**64",
        )


def _checked(seed: int, first: int, count: int, size: int, stream: int) -> tuple[int, int, int, int, int]:
    """The arguments as Python's integers, which do not wrap as NumPy's do."""
    require_range(seed, first, count, stream)
    if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
        raise InputError("a row of noise has at least one number", got=repr(size), expected="an integer >= 1")
    return int(seed), int(first), int(count), int(size), int(stream)


def _result(count: int, size: int, out: Float32 | None) -> Float32:
    if out is None:
        return np.empty((count, size), np.float32)
    # Rows are filled through flat views, which a gap between rows would turn into copies that nobody sees.
    if out.dtype != np.float32 or out.shape != (count, size) or not out.flags.c_contiguous:
        raise InputError(
            "out cannot be filled",
            got=f"{out.dtype} {list(out.shape)}" + ("" if out.flags.c_contiguous else ", not contiguous"),
            expected=f"float32 {[count, size]}, C-contiguous",
        )
    return out


def _pieces(seed: int, first: int, count: int, size: int, stream: int) -> Iterator[tuple[int, int, NDArray[np.int32]]]:
    """Yields (row, rows, int32 [rows, padded size]) in cache-sized pieces; a long row comes alone."""
    if count == 0:
        return
    blocks = -(-size // _WORDS_PER_BLOCK)
    padded = blocks * _WORDS_PER_BLOCK
    # NumPy's Philox steps its counter before it makes a block, hence the - 1.
    counter = (first * blocks - 1) % _TWO_256
    bits = _philox(counter, seed, stream)
    rows = max(1, _PIECE_WORDS // padded)
    for row in range(0, count, rows):
        n = min(rows, count - row)
        words = bits.random_raw(n * padded // 2)
        yield row, n, words.astype("<u8", copy=False).view("<i4").reshape(n, padded)


def _philox(counter: int, seed: int, stream: int) -> np.random.Philox:
    """This thread's Philox, for one draw at a time, set to what `np.random.Philox` starts at with that counter and the
    key seed | stream << 64."""
    state = _scratch.state
    at, mask = state["state"], _TWO_64 - 1
    at["counter"][:] = (counter & mask, counter >> 64 & mask, counter >> 128 & mask, counter >> 192)
    at["key"][:] = (seed, stream)
    state["buffer_pos"], state["has_uint32"] = 4, 0  # nothing is left over
    _scratch.bits.state = state
    return _scratch.bits


def _normal_from_words(words: NDArray[np.int32], out: Float32) -> None:
    """int32 [P] -> float32 [P], P at most `_PIECE_WORDS`."""
    n = len(words)
    s, table = _scratch, _quantile_table()
    f, square, x, segment, rows = s.f[:n], s.square[:n], s.x[:n], s.segment[:n], s.rows[:n]
    # Conversions stand alone: inside an arithmetic ufunc NumPy would convert through buffers, at twice the time.
    np.copyto(f, words)
    np.add(f, 0.5, out=f)
    np.right_shift(f.view(np.int64), _SEGMENT_SHIFT, out=segment)
    np.bitwise_and(segment, _SEGMENT_MASK, out=segment)
    np.take(table, segment, axis=0, out=rows, mode="clip")
    np.multiply(f, f, out=square)
    np.multiply(rows[:, 2], square, out=x)
    np.add(x, rows[:, 1], out=x)
    np.multiply(x, square, out=x)
    np.add(x, rows[:, 0], out=x)
    np.multiply(x, f, out=x)
    np.copyto(out, x, casting="same_kind")


def normal(seed: int, first: int, count: int, size: int, *, stream: int = 0, out: Float32 | None = None) -> Float32:
    """N(0, 1). Rows `first` … `first + count - 1` of the seed.

    Args:
        seed, stream: in [0, 2⁶⁴).
        first, count: the contiguous range of indices.
        size: numbers per row.
        out: float32 [count, size], C-contiguous, to fill.

    Returns:
        float32 [count, size].

    Raises:
        InputError: an argument is negative, too large, or not an integer; the range ends after index 2⁶⁴ - 1; `out` has
            another shape or dtype.
    """
    seed, first, count, size, stream = _checked(seed, first, count, size, stream)
    result = _result(count, size, out)
    flat = np.empty(_PIECE_WORDS, np.float32)
    for row, n, words in _pieces(seed, first, count, size, stream):
        padded = words.shape[1]
        if padded == size:
            target = result[row : row + n].reshape(-1)
            for start in range(0, len(target), _PIECE_WORDS):
                _normal_from_words(
                    words.reshape(-1)[start : start + _PIECE_WORDS], target[start : start + _PIECE_WORDS]
                )
        elif padded <= _PIECE_WORDS:
            _normal_from_words(words.reshape(-1), flat[: n * padded])
            result[row : row + n] = flat[: n * padded].reshape(n, padded)[:, :size]
        else:
            for start in range(0, size, _PIECE_WORDS):
                end = min(start + _PIECE_WORDS, size)
                _normal_from_words(words[0, start:end], result[row, start:end])
    return result


def uniform(seed: int, first: int, count: int, size: int, *, stream: int = 0) -> Float32:
    """U[-1, 1) on the grid of 2⁻²³. Arguments and errors as in `normal`; float32 [count, size]."""
    seed, first, count, size, stream = _checked(seed, first, count, size, stream)
    result = np.empty((count, size), np.float32)
    for row, n, words in _pieces(seed, first, count, size, stream):
        top = words.view("<u4") >> np.uint32(8)  # [n, padded], below 2²⁴: exact in float32
        np.multiply(
            top[:, :size], np.float32(2.0**-23), out=result[row : row + n], casting="same_kind", dtype=np.float32
        )
    return np.subtract(result, np.float32(1.0), out=result)


def sphere(seed: int, first: int, count: int, size: int, *, stream: int = 0) -> Float32:
    """Uniform on the unit sphere of R^size. Arguments and errors as in `normal`; float32 [count, size]."""
    seed, first, count, size, stream = _checked(seed, first, count, size, stream)
    return _directions(seed, first, count, size, stream)


def ball(seed: int, first: int, count: int, size: int, *, stream: int = 0) -> Float32:
    """Uniform in the unit ball of R^size. Arguments and errors as in `normal`; float32 [count, size]."""
    seed, first, count, size, stream = _checked(seed, first, count, size, stream)
    return np.ascontiguousarray(_directions(seed, first, count, size + 2, stream)[:, :size])


def _directions(seed: int, first: int, count: int, size: int, stream: int) -> Float32:
    x = normal(seed, first, count, size, stream=stream)
    rows = max(1, _PIECE_WORDS // size)
    for start in range(0, count, rows):
        piece = x[start : start + rows].astype(np.float64)  # [R, size]
        length = np.sqrt(_sum_of_squares(piece))
        at_origin = length == 0.0
        if at_origin.any():
            piece[at_origin, 0], length[at_origin] = 1.0, 1.0
        x[start : start + rows] = piece / length[:, None]
    return x


def _sum_of_squares(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R, size] -> [R]. Halves are added to halves: the order is fixed, where NumPy's sum follows the CPU's vectors."""
    width = 1 << (x.shape[1] - 1).bit_length()
    squares = np.zeros((len(x), width))
    np.multiply(x, x, out=squares[:, : x.shape[1]])
    while width > 1:
        width //= 2
        squares = squares[:, :width] + squares[:, width : 2 * width]
    return squares[:, 0]


_DRAW: dict[str, Callable[..., Float32]] = {"normal": normal, "uniform": uniform, "sphere": sphere, "ball": ball}


def latents(tensor: TensorSpec, seed: int, first: int, count: int) -> Float32:
    """Latents (or per-layer noise) for an input, as its role says: distribution and scale.

    Args:
        tensor: an input whose role is `latent` or `noise`; its name chooses the stream.
        seed, first, count: as in `normal`.

    Returns:
        float32 [count, *tensor.shape].

    Raises:
        InputError: the role is neither, or an argument is out of range.
    """
    if isinstance(tensor.role, (Latent, Noise)):
        draw = _DRAW[tensor.role.distribution]
    else:
        raise InputError(
            f"input {tensor.name!r} is not drawn from noise", got=tensor.role.kind, expected="latent or noise"
        )
    x = draw(seed, first, count, tensor.size, stream=stream_of(tensor.name))
    if tensor.role.scale != 1.0:
        np.multiply(x, np.float32(tensor.role.scale), out=x)
    return x.reshape(count, *(d or 0 for d in tensor.shape))


def labels(tensor: TensorSpec, seed: int, first: int, count: int) -> NDArray[np.int64]:
    """Class indices, uniform over the classes of a `label` input (bias below classes · 2⁻³²).

    Returns:
        int64 [count, *tensor.shape].
    """
    if not isinstance(tensor.role, Label):
        raise InputError(f"input {tensor.name!r} is not a label", got=tensor.role.kind, expected="label")
    size, stream = tensor.size, stream_of(tensor.name)
    seed, first, count, size, stream = _checked(seed, first, count, size, stream)
    result = np.empty((count, size), np.int64)
    for row, n, words in _pieces(seed, first, count, size, stream):
        wide = words.view("<u4")[:, :size].astype(np.uint64)
        result[row : row + n] = (wide * np.uint64(len(tensor.role.classes))) >> np.uint64(32)
    return result.reshape(count, *(d or 0 for d in tensor.shape))


def is_drawn(tensor: TensorSpec) -> bool:
    """Whether `inputs` gives this input."""
    return isinstance(tensor.role, (Latent, Noise, Label, Scalar))


def inputs(spec: GeneratorSpec, seed: int, first: int, count: int) -> dict[str, NDArray[np.generic]]:
    """Every input that can be drawn or has a default: latents, noise and labels from (seed, index), scalars by default.

    Inputs that only the caller has (images, tokens, keypoints, vectors) are left out.

    Returns:
        {input name: [count, *shape] in the input's dtype}.
    """
    drawn: dict[str, NDArray[np.generic]] = {}
    for tensor in spec.inputs:
        if isinstance(tensor.role, (Latent, Noise)):
            drawn[tensor.name] = latents(tensor, seed, first, count)
        elif isinstance(tensor.role, Label):
            drawn[tensor.name] = labels(tensor, seed, first, count).astype(tensor.dtype)
        elif isinstance(tensor.role, Scalar):
            drawn[tensor.name] = np.full((count, *(d or 1 for d in tensor.shape)), tensor.role.default, tensor.dtype)
    return drawn
