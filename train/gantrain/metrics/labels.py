"""Generated images by class: classes that were dropped, and whether an image is of the class that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime.errors import InputError

_DROPPED_BELOW = 0.1 * (1.0 - 1e-9)  # a tenth itself is not below a tenth, whatever way it rounds


@dataclass(frozen=True)
class ModeDropping:
    """real, generated: share of each class, [K], as the classifier sees both, so that its own errors fall out.
    dropped: classes whose share is below a tenth of the real one. distance: total variation, half the sum of
        |difference|, in [0, 1].
    """

    real: tuple[float, ...]
    generated: tuple[float, ...]
    dropped: tuple[int, ...]
    distance: float


def mode_dropping(real: ArrayLike, fake: ArrayLike) -> ModeDropping:
    """Of a classifier's probabilities of real [N, K] and generated images [M, K]: each image counts for its likeliest.

    Raises:
        InputError: they are not of the same classes, or there are none.
    """
    x, y = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or not len(x) or not len(y):
        raise InputError("not probabilities of the same classes", got=f"{list(x.shape)} and {list(y.shape)}")
    shares = [np.bincount(p.argmax(axis=1), minlength=p.shape[1]) / len(p) for p in (x, y)]
    dropped = np.flatnonzero((shares[0] > 0) & (shares[1] < _DROPPED_BELOW * shares[0]))
    return ModeDropping(
        tuple(float(s) for s in shares[0]),
        tuple(float(s) for s in shares[1]),
        tuple(int(k) for k in dropped),
        float(np.abs(shares[0] - shares[1]).sum() / 2.0),
    )


def conditional_accuracy(probabilities: ArrayLike, asked: NDArray[np.int64]) -> float:
    """Share of images whose likeliest class is the one asked for: probabilities [N, K], asked int64 [N].

    No generator can be shown to exceed the classifier's own accuracy on real images.

    Raises:
        InputError: they are not as many.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or asked.shape != (len(p),) or not len(p):
        raise InputError("not a label an image", got=f"{list(p.shape)} and {list(asked.shape)}")
    return float((p.argmax(axis=1) == asked).mean())
