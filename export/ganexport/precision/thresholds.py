"""Thresholds: the magnitude at which an activation saturates in int8, by several methods, from histograms over latents.

- minmax: the largest magnitude that was seen.
- headroom: a fifth more than that. Of the relu values of a digit DCGAN, four thousand latents reach 1.1 to 1.25 times
  what the five hundred of a calibration do.
- percentile: the magnitude that 99.99 % of the values stay below.
- entropy: where the Kullback-Leibler divergence between the values and their 128 levels is least (Migacz, "8-bit
  inference with TensorRT", GTC 2017).
- squared error: where the mean squared error of rounding and clipping is least.

Values that are exactly 0 are left out: int8 holds them exactly, and after a ReLU they are half of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ganexport.precision.traced import Array, Arrays, TracedGraph
from ganruntime.errors import ExportError

LEVELS = 127
METHODS = ("minmax", "headroom", "percentile", "entropy", "squared error")
# Those that clip nothing that was seen.
WIDE_METHODS = ("minmax", "headroom")
_HEADROOM = 1.2
_BINS = 4096
_PERCENT = 99.99
Float64 = NDArray[np.float64]


def thresholds_from_graph(graph: bytes, inputs: Arrays, values: Sequence[str]) -> dict[str, dict[str, float]]:
    """{method: {value name: threshold}} for the values, over all rows of `inputs`, which are run twice.

    Args:
        values: names of values that nodes make, or of inputs.

    Raises:
        ExportError: a value is not finite, or always 0.
    """
    peaks = dict.fromkeys(values, 0.0)
    counts: dict[str, Float64] = {name: np.zeros(_BINS) for name in values}

    def measure(arrays: dict[str, Array]) -> None:
        for name in peaks.keys() & arrays.keys():
            peaks[name] = float(np.maximum(peaks[name], np.abs(arrays[name]).max()))

    def count(arrays: dict[str, Array]) -> None:
        for name in counts.keys() & arrays.keys():
            magnitudes = np.abs(arrays[name])
            counts[name] += np.histogram(magnitudes[magnitudes > 0], _BINS, (0.0, peaks[name]))[0]

    given = {name: inputs[name] for name in values if name in inputs}
    traced = TracedGraph(graph, [name for name in values if name not in inputs])
    for look in (measure, count):
        look(given)
        traced.stream(inputs, look)
        bad = [name for name, peak in peaks.items() if not (np.isfinite(peak) and peak > 0)]
        if bad:
            raise ExportError("values cannot be quantised", got=f"{', '.join(bad[:4])}: not finite, or always 0")
    found: dict[str, dict[str, float]] = {method: {} for method in METHODS}
    for name in values:
        edges = np.linspace(0.0, peaks[name], _BINS + 1)
        for method, threshold in _thresholds(counts[name], edges).items():
            found[method][name] = threshold
    return found


def means_from_graph(graph: bytes, inputs: Arrays, values: Sequence[str]) -> dict[str, Float64]:
    """{value name: float64 [C]}: the mean of each channel (axis 1) over rows and places.

    Args:
        values: names of values of two dimensions or more that nodes make, or of inputs.
    """
    sums: dict[str, Float64] = {}
    rows = len(next(iter(inputs.values())))

    def add(arrays: Mapping[str, Array]) -> None:
        for name in values:
            if name in arrays:
                flat = arrays[name].reshape(*arrays[name].shape[:2], -1).astype(np.float64)  # [n, C, places]
                sums[name] = sums.get(name, 0.0) + flat.mean(axis=2).sum(axis=0)

    add({name: array for name, array in inputs.items() if name in values})
    TracedGraph(graph, [name for name in values if name not in inputs]).stream(inputs, add)
    return {name: total / rows for name, total in sums.items()}


def _thresholds(counts: Float64, edges: Float64) -> dict[str, float]:
    candidates = np.arange(LEVELS + 1, _BINS + 1, 16)
    candidates = candidates if candidates[-1] == _BINS else np.append(candidates, _BINS)
    below = np.cumsum(counts) / counts.sum()
    at = int(np.searchsorted(below, _PERCENT / 100)) + 1
    entropy = candidates[int(np.argmin([_divergence(counts, int(i)) for i in candidates]))]
    error = candidates[int(np.argmin([_squared_error(counts, edges, edges[i]) for i in candidates]))]
    found = {
        "minmax": edges[-1],
        "headroom": _HEADROOM * edges[-1],
        "percentile": edges[min(at, _BINS)],
        "entropy": edges[entropy],
        "squared error": edges[error],
    }
    return {name: float(value) for name, value in found.items()}


def _divergence(counts: Float64, kept: int) -> float:
    """D(P ‖ Q) of the first `kept` bins, with what lies beyond in the last one, and of their 128 levels."""
    p = counts[:kept].copy()
    p[-1] += counts[kept:].sum()
    level = np.arange(kept) * (LEVELS + 1) // kept
    filled = counts[:kept] > 0
    mass = np.bincount(level, counts[:kept], LEVELS + 1)
    share = np.bincount(level, filled, LEVELS + 1)
    q = np.where(filled, mass[level] / np.maximum(share[level], 1), 0.0)
    total_p, total_q = p.sum(), q.sum()
    if not total_q:
        return np.inf
    # A value beyond the threshold in a last bin that was empty has no level that stands for it.
    both = (p > 0) & (q > 0)
    lost = float(p[(p > 0) & (q == 0)].sum() / total_p)
    p, q = p[both] / total_p, q[both] / total_q
    return float((p * np.log(p / q)).sum() + lost * np.log(1e12))


def _squared_error(counts: Float64, edges: Float64, threshold: float) -> float:
    centres = (edges[:-1] + edges[1:]) / 2
    step = threshold / LEVELS
    rounded = np.clip(np.rint(centres / step), 0, LEVELS) * step
    return float((counts * np.square(centres - rounded)).sum())
