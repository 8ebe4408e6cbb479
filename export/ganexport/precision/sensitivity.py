"""Which layers run in int8, and with which thresholds: searched by what each choice does to the worst images.

1. Every method of `thresholds` is tried for all layers at once; the best is kept.
2. Thousands of latents are run through the result, and those whose images suffer most join the judges: a hundred
   ordinary latents do not show what the rarest of four thousand meets.
3. In graphs of a few layers, value by value: another method for one value, if it makes the worst image better.
4. While the worst image of the thousands is under the floor, the layer that costs most goes back to fp32, and the
   methods are chosen anew: what was lost in that layer's noise may now be the worst.

All on latents of a seed of their own, by evaluating the Q/DQ graph as it is written. The gate has other latents and the
last word: where it finds a worse image, the search is widened and goes on, with methods that clip nothing of what was
seen: a threshold that is best for a thousand latents clips the rarest of four thousand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.parity import PSNR_CAP_DB, half_range
from ganexport.precision.quantised_graph import Layer, layers_of, named_nodes, quantise
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.thresholds import METHODS, WIDE_METHODS, means_from_graph, thresholds_from_graph
from ganexport.precision.traced import Arrays, plain_session
from ganexport.probes import probe_inputs
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

SEED = 0x73656E73  # "sens": apart from those of calibration and of the gate
# 2 · 255 · 64 fits 16 bits. x86 without VNNI adds two products of an unsigned and a signed byte in 16 bits, saturating
# (microsoft/onnxruntime#12088), so with 127 levels a graph gives other images on such a machine: a convolution of 64
# channels was seen off by half of its output. 64 levels cost about 1 dB and are right everywhere.
WEIGHT_LEVELS = 64
_FEW_LAYERS = 16
# Layers with less than this share of the multiplications stay in fp32: in int8 they gain no time, cost quality as any
# other does (a generator's first layer most of all), and each one makes the search longer.
LEAST_SHARE = 0.01
_HARD, _ORDINARY, _MOST_JUDGES = 64, 32, 160
POOL = 1024
_KEEP_BYTES = 256 << 20
_CHUNK = 64


@dataclass(frozen=True)
class LeftOut:
    """A layer that stays in fp32. cost_db: how much its int8 form took from the worst image's PSNR."""

    node: str
    op_type: str
    cost_db: float
    multiplications: int


@dataclass
class Search:
    """The state of one search: what is in int8 now, and what was tried.

    base: the fp32 graph. judges: indices of the latents by which choices are judged; pool: how many there are to find
    hard ones among. methods: those that are tried now. tried: {method: PSNR of the worst judge, in dB}, all layers in
    int8. chosen: {value name: method}. thresholds: {method: {value name: threshold}}. means:
    {value name: mean of each channel}. small: layers that are not considered (`LEAST_SHARE`). psnr_db: of the worst
    image of the pool, as things are now. whole, whole_worst: what `start` made, all layers in int8, and the inputs of
    the latent that suffers most there.
    """

    spec: GeneratorSpec
    base: bytes
    layers: list[Layer]
    thresholds: dict[str, dict[str, float]]
    means: dict[str, NDArray[np.float64]]
    pool: int
    symmetric: bool = False
    small: Sequence[Layer] = ()
    judges: NDArray[np.int64] = field(init=False)
    methods: tuple[str, ...] = METHODS
    tried: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    kept: list[Layer] = field(default_factory=list)
    left: list[LeftOut] = field(default_factory=list)
    psnr_db: float = 0.0
    whole: bytes = field(default=b"", repr=False)
    whole_worst: Arrays = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._fp32 = plain_session(self.base)
        self._kept: dict[int, list[NDArray[np.float32]]] = {}
        self.judges = np.arange(min(self.pool, _ORDINARY))
        self._worst = self.judges[:1]

    def graph(self) -> bytes:
        """The Q/DQ graph of what is chosen now."""
        return self._graph(self.kept, self.chosen)

    @property
    def int8_share(self) -> float:
        """The share of the layers' multiplications that is in int8."""
        total = sum(layer.multiplications for layer in [*self.layers, *self.small])
        return sum(layer.multiplications for layer in self.kept) / total if total else 0.0

    def start(self) -> None:
        """All layers in int8, each value with the method that is best for the worst images."""
        self.kept = list(self.layers)
        self._choose_methods()
        self.whole, self.whole_worst = self.graph(), self._inputs(self._worst)

    def leave_out_until(self, floor_db: float) -> None:
        while self.psnr_db < floor_db and self.kept:
            self.without_next()

    def without_next(self) -> None:
        """The layer that costs the worst image most goes back to fp32, and methods are chosen anew for the others."""
        before = self._judged_db(self.kept, self.chosen)
        gains = {}
        for layer in self.kept:
            rest = [other for other in self.kept if other is not layer]
            gains[layer.node] = self._judged_db(rest, self.chosen) - before
        worst = max(self.kept, key=lambda layer: gains[layer.node])
        self.left.append(LeftOut(worst.node, worst.op_type, gains[worst.node], worst.multiplications))
        self.kept = [layer for layer in self.kept if layer is not worst]
        self._choose_methods()

    def widen(self, floor_db: float) -> None:
        """After the gate met a worse image than any here: twice as many latents to find such among, chosen anew, and at
        least one change."""
        before = self.graph()
        self.pool *= 2
        self.methods = WIDE_METHODS
        self._choose_methods()
        self.leave_out_until(floor_db)
        if self.graph() == before:
            self.without_next()

    def _choose_methods(self) -> None:
        if not self.kept:
            self.psnr_db = PSNR_CAP_DB
            return
        values = list(dict.fromkeys(layer.reads for layer in self.kept))
        found = {method: self._judged_db(self.kept, dict.fromkeys(values, method)) for method in self.methods}
        self.tried = self.tried or found
        self.chosen = dict.fromkeys(values, max(self.methods, key=lambda m: found[m]))
        self._find_hard()
        if len(self.layers) > _FEW_LAYERS:
            return
        lowest = self._judged_db(self.kept, self.chosen)
        for value in values:
            for method in self.methods:
                other = self.chosen | {value: method}
                judged = self._judged_db(self.kept, other) if other != self.chosen else lowest
                if judged > lowest:
                    self.chosen, lowest = other, judged
        self._find_hard()

    def _find_hard(self) -> None:
        """Makes judges of the latents of the pool whose images suffer most, beside the judges so far."""
        session = plain_session(self.graph())
        psnr_db = np.concatenate([self._psnr_db(session, rows) for rows in self._chunks(np.arange(self.pool))])
        self.psnr_db = float(psnr_db.min())
        self._worst = np.array([psnr_db.argmin()])
        hard = np.argsort(psnr_db, kind="stable")[:_HARD]
        both = np.concatenate([hard, self.judges])
        _, first = np.unique(both, return_index=True)
        self.judges = np.sort(both[np.sort(first)[:_MOST_JUDGES]])

    def _graph(self, layers: Sequence[Layer], chosen: Mapping[str, str]) -> bytes:
        model = ir.from_proto(onnx.load_model_from_string(self.base))
        if layers:
            thresholds = {value: self.thresholds[method][value] for value, method in chosen.items()}
            quantise(model, layers, thresholds, WEIGHT_LEVELS, self.means, symmetric=self.symmetric)
        return bytes(ir.to_proto(model).SerializeToString(deterministic=True))

    def _judged_db(self, layers: Sequence[Layer], chosen: Mapping[str, str]) -> float:
        """PSNR of the worst judge."""
        session = plain_session(self._graph(layers, chosen))
        return min(float(self._psnr_db(session, rows).min()) for rows in self._chunks(self.judges))

    def _chunks(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(indices), _CHUNK):
            yield indices[start : start + _CHUNK]

    def _psnr_db(self, session: Any, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """The PSNR of each latent, [n]; of the output that suffers most, where there are several."""
        inputs = self._inputs(indices)
        names = [t.name for t in self.spec.outputs]
        lowest = np.full(len(indices), PSNR_CAP_DB)
        expected, found = self._expected(indices, inputs, names), session.run(names, inputs)
        for tensor, a, b in zip(self.spec.outputs, expected, found, strict=True):
            a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)  # [n, E]
            peak = 2 * half_range(tensor, float(np.abs(a).max(initial=0.0)))
            noise = np.nan_to_num(np.square(a - b).mean(axis=1), nan=np.inf)
            lowest = np.minimum(lowest, 10 * np.log10(peak * peak / np.maximum(noise, 1e-30)))
        return lowest

    def _expected(self, indices: NDArray[np.int64], inputs: Arrays, names: list[str]) -> list[NDArray[np.float32]]:
        """What fp32 gives; of whole chunks of the pool it is kept while it is small."""
        first = int(indices[0])
        if first % _CHUNK or int(indices[-1]) - first + 1 != _CHUNK or len(indices) != _CHUNK:
            return list(self._fp32.run(names, inputs))
        if first in self._kept:
            return self._kept[first]
        outputs = list(self._fp32.run(names, inputs))
        if (len(self._kept) + 1) * sum(o.nbytes for o in outputs) <= _KEEP_BYTES:
            self._kept[first] = outputs
        return outputs

    def _inputs(self, indices: NDArray[np.int64]) -> Arrays:
        if indices[-1] - indices[0] + 1 == len(indices):
            return probe_inputs(self.spec, SEED, int(indices[0]), len(indices))
        rows = [probe_inputs(self.spec, SEED, int(i) - int(i) % 2, 2) for i in indices]
        # In pairs: scalars are at their default in even rows of a draw, whatever the row's index.
        return {name: np.stack([r[name][i % 2] for r, i in zip(rows, indices, strict=True)]) for name in rows[0]}


def search_from_model(
    spec: GeneratorSpec, model: ir.Model, inputs: Arrays, pool: int, symmetric: bool = False
) -> Search:
    """Prepares a search.

    Args:
        model: the fp32 graph, ConvTranspose in sub-pixel form: there are no int8 kernels for it on CPUs.
        inputs: what thresholds are measured on.
        pool: among how many latents hard ones are looked for.
        symmetric: as for `quantise`.

    Raises:
        ExportError: there is no layer that int8 kernels could run.
    """
    named_nodes(model)
    base = ir.to_proto(model).SerializeToString()
    layers = layers_of(model, ranges_from_graph(base, {name: array[:2] for name, array in inputs.items()}))
    if not layers:
        raise ExportError(
            f"{spec.name}: no layer can be int8",
            got=", ".join(sorted({n.op_type for n in model.graph})),
            expected="Conv, ConvTranspose, Gemm or MatMul with constant float32 weights",
        )
    least = LEAST_SHARE * sum(layer.multiplications for layer in layers)
    small = [layer for layer in layers if layer.multiplications < least]
    layers = [layer for layer in layers if layer.multiplications >= least]
    values = list(dict.fromkeys(layer.reads for layer in layers))
    thresholds, means = thresholds_from_graph(base, inputs, values), means_from_graph(base, inputs, values)
    return Search(spec, base, layers, thresholds, means, pool, symmetric, small)
