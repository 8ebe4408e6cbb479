"""Where a candidate graph departs from its fp32 source: value by value, on one latent."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from ganexport.precision.reference import emulated
from ganexport.precision.rounding import HALF_TYPES
from ganexport.precision.traced import Array, Arrays, TracedGraph

_EXACT_DB = 200.0


@dataclass(frozen=True)
class Departure:
    """The first node whose output is not what it should be.

    snr_db: the signal-to-noise ratio of its output against fp32's; minus infinity where it is not finite.
    before_db: that of the worst value that it reads, 200 where all are exact.
    """

    node: str
    op_type: str
    value: str
    snr_db: float
    before_db: float

    def sentence(self) -> str:
        how = f"{self.snr_db:.1f} dB" if math.isfinite(self.snr_db) else "values that are not finite"
        before = f"{self.before_db:.1f} dB" if self.before_db < _EXACT_DB else "exact values"
        return f"{self.node} ({self.op_type}) departs: {how} in {self.value}, from {before} in what it reads"


def first_departure(
    source: bytes, candidate: bytes, precision: str, inputs: Arrays, floor_db: float
) -> Departure | None:
    """The first node, in the order of the candidate graph, whose output is not finite or noisier than the floor; if
    there is none, the noisiest node. None where everything is exact.

    Args:
        source: the fp32 ONNX file; values that both graphs have carry the same names.
        candidate: the typed or quantised file, of the rung `precision`.
        inputs: {input: [n, *shape]}, the latents that failed.
    """
    graph = emulated(candidate) if precision in HALF_TYPES else candidate
    model = onnx.load_model_from_string(graph)
    traced_source = TracedGraph(source)
    common = set(traced_source.values) & {name for n in model.graph.node for name in n.output}
    before = traced_source.run(inputs)
    after = TracedGraph(graph, [name for n in model.graph.node for name in n.output if name in common]).run(inputs)
    snr = {name: _snr_db(before[name], after[name]) for name in after if before[name].dtype.kind == "f"}
    readers = {name: n for n in onnx.load_model_from_string(source).graph.node for name in n.output}
    departures = []
    for name in after:
        if name not in snr:
            continue
        node = readers[name]
        read = min([snr[i] for i in node.input if i in snr], default=_EXACT_DB)
        found = Departure(node.name or name, node.op_type, name, snr[name], read)
        if snr[name] < floor_db:
            return found
        departures.append(found)
    worst = min(departures, key=lambda d: d.snr_db, default=None)
    return worst if worst is not None and worst.snr_db < _EXACT_DB else None


def _snr_db(reference: Array, candidate: Array) -> float:
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    if a.shape != b.shape or not np.isfinite(b).all():
        return -math.inf
    noise = float(np.square(a - b).mean()) if a.size else 0.0
    signal = float(np.square(a).mean()) if a.size else 0.0
    if noise == 0:
        return _EXACT_DB
    return min(_EXACT_DB, 10 * math.log10(max(signal, 1e-300) / noise))
