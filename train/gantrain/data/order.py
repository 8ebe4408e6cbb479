"""The order of training images: a pure function of (seed, position), so that a resumed run needs no state for it.

Positions count images over the whole training: epoch e of N images is positions e·N … e·N + N - 1, each image once, in
an order of its own. Bits come from Philox, counter-based, as in `ganruntime.noise`, and the permutation is the stable
order of 64-bit words, which no release of NumPy can change.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ganruntime.noise import stream_of

_ORDER, _MIRROR = stream_of("gantrain.data.order"), stream_of("gantrain.data.mirror")
_MISMATCH = stream_of("gantrain.data.mismatch")


def indices(seed: int, first: int, count: int, size: int) -> NDArray[np.int64]:
    """Which image, of `size`, stands at positions `first` … `first + count - 1`: int64 [count]."""
    positions = np.arange(first, first + count)
    result = np.empty(count, np.int64)
    for epoch in range(first // size, (first + count - 1) // size + 1):
        here = positions // size == epoch
        result[here] = _permutation(seed, epoch, size)[positions[here] % size]
    return result


def mirrored(seed: int, first: int, count: int) -> NDArray[np.bool_]:
    """Whether the image at each position is mirrored, with probability ½: bool [count]."""
    # A position takes one block of four words, of which the first bit serves: any range is reached directly.
    words = _bits(seed, _MIRROR, first).random_raw(4 * count)[::4]
    return (words >> np.uint64(63)).astype(bool)


def mismatches(seed: int, first: int, count: int, classes: int) -> NDArray[np.int64]:
    """How far on from its own class, of `classes`, the image at each position is to be mislabelled: int64 [count], each
    from 1 to classes - 1 as likely (to within 2⁻³²)."""
    words = _bits(seed, _MISMATCH, first).random_raw(4 * count)[::4]  # as in `mirrored`
    return (1 + (words >> np.uint64(32)) * np.uint64(classes - 1) // np.uint64(1 << 32)).astype(np.int64)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    return np.argsort(_bits(seed, _ORDER, epoch << 64).random_raw(size), kind="stable")


def _bits(seed: int, stream: int, counter: int) -> np.random.Philox:
    # NumPy's Philox steps its counter before it makes a block, hence the - 1.
    return np.random.Philox(counter=(counter - 1) % (1 << 256), key=seed | stream << 64)
