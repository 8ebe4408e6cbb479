"""Poisson arrivals: when the requests of a server scenario are due, as a pure function of (seed, rate, index)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ganruntime import noise
from ganruntime.errors import InputError


def poisson_arrivals(seed: int, rate_per_second: float, count: int, *, stream: int = 0) -> NDArray[np.float64]:
    """Times of `count` independent requests.

    The gaps of a Poisson process are exponential, -ln(1 - u) / rate with u uniform on [0, 1). Another rate stretches
    the same pattern; another seed or stream is another pattern.

    Args:
        seed, stream: in [0, 2⁶⁴); in [0, 2³²).
        rate_per_second: above 0.

    Returns:
        float64 [count], seconds from the start, ascending.

    Raises:
        InputError: an argument is out of range.
    """
    if not 0 < rate_per_second < float("inf"):
        raise InputError("rate_per_second is out of range", got=rate_per_second, expected="above 0")
    unit = noise.uniform(seed, 0, count, 1, stream=stream)[:, 0].astype(np.float64)  # [count] in [-1, 1)
    gaps = -np.log1p(-(unit + 1.0) / 2.0) / rate_per_second
    times: NDArray[np.float64] = np.cumsum(gaps)
    return times
