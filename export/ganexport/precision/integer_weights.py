"""Weights as integers: rounded to the nearest, or so that the errors of one sum undo each other.

The second way is GPTQ (Frantar et al., "GPTQ: Accurate post-training quantization for generative pre-trained
transformers", 2023, after Hassibi and Stork's optimal brain surgeon, 1993): the weights of an output channel are
rounded one after the other, and what rounding one of them does to the output is taken back in those that are not
rounded yet, as far as what they are multiplied with moves together. In a generator the taps of a convolution read
neighbouring pixels of maps that were just made larger, and they do: the error that weights bring into the output of a
layer fell by 2 to 8 dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Added to the diagonal, as a share of its mean. Of a few thousand places that a moment is measured on, 0.01 to 0.2 give
# the same within half a dB.
_DAMPING = 0.05
_TOGETHER = 32  # weights whose errors are passed on to all others in one product
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class IntegerWeights:
    """The weights of a layer as integers times scales.

    integers: int8, in the weight's shape. scales: float32 [M], one per index of `axis`. lost: float64, in the weight's
    shape: what rounding took.
    """

    integers: NDArray[np.int8]
    scales: NDArray[np.float32]
    axis: int
    lost: Float64

    @property
    def rounded(self) -> NDArray[np.float32]:
        """The weights that a DequantizeLinear gives, to the bit."""
        return self.integers.astype(np.float32) * self.scales.reshape(_along(self.axis, self.integers.ndim))


def integer_weights(
    weight: NDArray[np.float32], axis: int, levels: int, moments: Sequence[Float64] | None = None
) -> IntegerWeights:
    """Symmetric int8 weights with one scale per index of `axis`, its largest magnitude at `levels`.

    Args:
        axis: that of the output channels.
        levels: the largest integer, 127 or less.
        moments: E[x xᵀ] of what the weights of one output channel are multiplied with, in the order in which they are
            in memory: matrices [D, D] for one run of D weights after the other. Without them weights are rounded to the
            nearest.
    """
    rows = np.moveaxis(weight, axis, 0)
    flat = rows.reshape(len(rows), -1)  # [M, all D]
    peaks = np.abs(flat).max(axis=1)
    scales = np.where(peaks > 0, peaks / levels, 1.0).astype(np.float32)  # [M]
    if moments is None:
        found = np.rint(flat / scales[:, None])
    else:
        steps = flat.astype(np.float64) / scales.astype(np.float64)[:, None]
        ends = np.cumsum([len(moment) for moment in moments])
        if ends[-1] != flat.shape[1]:
            raise ValueError(f"moments of {ends[-1]} weights for {flat.shape[1]}")
        runs = np.split(steps, ends[:-1], axis=1)
        found = np.concatenate([_rounded_together(r, m, levels) for r, m in zip(runs, moments, strict=True)], axis=1)
    integers = np.moveaxis(np.clip(found, -levels, levels).reshape(rows.shape), 0, axis).astype(np.int8)
    rounded = integers.astype(np.float64) * scales.astype(np.float64).reshape(_along(axis, weight.ndim))
    return IntegerWeights(np.ascontiguousarray(integers), scales, axis, weight.astype(np.float64) - rounded)


def _rounded_together(steps: Float64, moment: Float64, levels: int) -> Float64:
    """[M, D] -> [M, D]: integers whose difference d from `steps` has a small d · moment · dᵀ in each row."""
    mean = float(np.diag(moment).mean())
    if not mean > 0:
        return np.rint(steps)  # it is multiplied with nothing but zeros
    damped = moment + np.eye(len(moment)) * (_DAMPING * mean)
    # The largest first: what is rounded last has nobody to take its error.
    order = np.argsort(-np.diag(damped), kind="stable")
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T  # inverse = upperᵀ · upper
    left = steps[:, order].T.copy()  # [D, M]: one weight of all channels lies together
    found, errors = np.empty_like(left), np.empty_like(left)
    for start in range(0, len(left), _TOGETHER):
        stop = min(start + _TOGETHER, len(left))
        for i in range(start, stop):
            found[i] = np.clip(np.rint(left[i]), -levels, levels)
            errors[i] = (left[i] - found[i]) / upper[i, i]
            left[i + 1 : stop] -= np.outer(upper[i, i + 1 : stop], errors[i])
        left[stop:] -= upper[start:stop, stop:].T @ errors[start:stop]
    restored = np.empty_like(steps)
    restored[:, order] = found.T
    return restored


def _along(axis: int, ndim: int) -> list[int]:
    return [-1 if i == axis else 1 for i in range(ndim)]
