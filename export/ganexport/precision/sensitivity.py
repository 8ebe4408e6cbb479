"""Which layers run in int8, and with which thresholds: searched by what each choice does to the worst images.

1. Every method of `thresholds` is tried for all layers at once; the best is kept.
2. Thousands of latents are run through the result, and those whose images suffer most join the judges: a hundred
   ordinary latents do not show what the rarest of four thousand meets.
3. In graphs of a few layers, value by value: another method for one value, if it makes the worst image better.
4. While the worst image of the thousands is under the floor, a layer goes back to fp32: the one that takes most noise
   out of the worst image for each multiplication that it moves. Then the methods are chosen anew: what was lost in that
   layer's noise may now be the worst.

All on latents of a seed of their own, by evaluating the Q/DQ graph as it is written. The gate has other latents and the
last word: where it finds a worse image, the search is widened and goes on, with methods that clip nothing of what was
seen: a threshold that is best for a thousand latents clips the rarest of four thousand.

Weights are rounded once, one graph is opened for all choices (`switched_graph`), and a choice is given up as soon as
one judge is worse than with the best choice so far; the judges that suffered most are asked first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.parity import PSNR_CAP_DB
from ganexport.passes.constants import constant_of
from ganexport.precision.int8_layers import Layer, channel_axis, layers_of, named_nodes
from ganexport.precision.integer_weights import IntegerWeights, integer_weights
from ganexport.precision.judges import Judges, in_chunks
from ganexport.precision.modulation_balance import balance_modulated
from ganexport.precision.moments import moments_from_graph
from ganexport.precision.quantised_graph import quantise
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.switched_graph import SwitchedGraph
from ganexport.precision.thresholds import METHODS, WIDE_METHODS, means_from_graph, thresholds_from_graph
from ganexport.precision.traced import Arrays
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

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
_FIRST_ASKED = 8
# Layers that go back to fp32 are compared on so many judges, those that suffer most.
_COMPARED = 32


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

    base: the fp32 graph. weights: {layer: its weights as integers}. judges: indices of the latents by which choices
    are judged, those that suffered most first; pool: how many there are to find hard ones among. methods: those that
    are tried now. tried: {method: PSNR of the worst judge, in dB}, all layers in int8. chosen: {value name: method}.
    thresholds: {method: {value name: threshold}}. means: {value name: mean of each channel}. small: layers that are
    not considered (`LEAST_SHARE`). balanced: layers whose styles were evened out. psnr_db: of the worst image of the
    pool, as things are now. whole, whole_worst: what `start` made, all layers in int8, and the inputs of the latent
    that suffers most there.
    """

    spec: GeneratorSpec
    base: bytes = field(repr=False)
    layers: list[Layer]
    thresholds: dict[str, dict[str, float]]
    means: dict[str, NDArray[np.float64]] = field(repr=False)
    weights: dict[str, IntegerWeights] = field(repr=False)
    pool: int
    symmetric: bool = False
    small: Sequence[Layer] = ()
    balanced: Sequence[str] = ()
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
        self._panel = Judges(self.spec, self.base)
        self._switched = SwitchedGraph(self.base, self.layers, self.weights, self.means, symmetric=self.symmetric)
        self.judges = np.arange(min(self.pool, _ORDINARY))
        self._worst = self.judges[:1]

    def graph(self) -> bytes:
        """The Q/DQ graph of what is chosen now."""
        model = ir.from_proto(onnx.load_model_from_string(self.base))
        if self.kept:
            thresholds = self._thresholds(self.chosen)
            quantise(
                model, self.kept, thresholds, WEIGHT_LEVELS, self.means, weights=self.weights, symmetric=self.symmetric
            )
        return bytes(ir.to_proto(model).SerializeToString(deterministic=True))

    @property
    def int8_share(self) -> float:
        """The share of the layers' multiplications that is in int8."""
        total = sum(layer.multiplications for layer in [*self.layers, *self.small])
        return sum(layer.multiplications for layer in self.kept) / total if total else 0.0

    def start(self) -> None:
        """All layers in int8, each value with the method that is best for the worst images."""
        self.kept = list(self.layers)
        self._choose_methods()
        self.whole, self.whole_worst = self.graph(), self._panel.inputs(self._worst)

    def leave_out_until(self, floor_db: float) -> None:
        while self.psnr_db < floor_db and self.kept:
            self.without_next(floor_db)

    def without_next(self, floor_db: float = PSNR_CAP_DB) -> None:
        """The layer whose noise costs most for its multiplications goes back to fp32, or the smallest one of those that
        are enough for the floor; methods are chosen anew for the others."""
        judges = self.judges[:_COMPARED]
        before = self._judged_db(self.kept, self.chosen, judges)
        after = {}
        for layer in self.kept:
            rest = [other for other in self.kept if other is not layer]
            after[layer.node] = self._judged_db(rest, self.chosen, judges)
        enough = [layer for layer in self.kept if after[layer.node] >= floor_db]
        if enough:
            worst = min(enough, key=lambda layer: layer.multiplications)
        else:
            worst = max(
                self.kept, key=lambda layer: (_noise(before) - _noise(after[layer.node])) / layer.multiplications
            )
        cost_db = after[worst.node] - before
        self.left.append(LeftOut(worst.node, worst.op_type, cost_db, worst.multiplications))
        self.kept = [layer for layer in self.kept if layer is not worst]
        self._choose_methods()

    def widen(self, floor_db: float) -> None:
        """After the gate met a worse image than any here: twice as many latents to find such among, chosen anew, and at
        least one change."""
        before = self.kept, self.chosen
        self.pool *= 2
        self.methods = WIDE_METHODS
        self._choose_methods()
        self.leave_out_until(floor_db)
        if (self.kept, self.chosen) == before:
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
                judged = self._judged_db(self.kept, other, above_db=lowest) if other != self.chosen else lowest
                if judged > lowest:
                    self.chosen, lowest = other, judged
        self._find_hard()

    def _find_hard(self) -> None:
        """Makes judges of the latents of the pool whose images suffer most, beside the judges so far."""
        psnr_db = np.concatenate(
            [self._psnr_db(self.kept, self.chosen, rows) for rows in in_chunks(np.arange(self.pool))]
        )
        self.psnr_db = float(psnr_db.min())
        order = np.argsort(psnr_db, kind="stable")
        self._worst = order[:1]
        both = np.concatenate([order[:_HARD], self.judges])
        _, first = np.unique(both, return_index=True)
        kept = both[np.sort(first)[:_MOST_JUDGES]]
        self.judges = kept[np.argsort(psnr_db[kept], kind="stable")]

    def _thresholds(self, chosen: Mapping[str, str]) -> dict[str, float]:
        return {value: self.thresholds[method][value] for value, method in chosen.items()}

    def _judged_db(
        self,
        layers: Sequence[Layer],
        chosen: Mapping[str, str],
        judges: NDArray[np.int64] | None = None,
        above_db: float = -np.inf,
    ) -> float:
        """PSNR of the worst judge, or of one that is at or under `above_db`: nobody wants to know more then."""
        judges = self.judges if judges is None else judges
        lowest = np.inf
        for rows in (judges[:_FIRST_ASKED], *in_chunks(judges[_FIRST_ASKED:])):
            if len(rows):
                lowest = min(lowest, float(self._psnr_db(layers, chosen, rows).min()))
            if lowest <= above_db:
                break
        return lowest

    def _psnr_db(
        self, layers: Sequence[Layer], chosen: Mapping[str, str], indices: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The PSNR of each latent, [n]."""
        on, thresholds = {layer.node for layer in layers}, self._thresholds(chosen)
        return self._panel.psnr_db(lambda names, inputs: self._switched.run(names, inputs, on, thresholds), indices)


def _noise(psnr_db: float) -> float:
    """The mean square error of a PSNR, as a share of the squared peak."""
    return float(10 ** (-psnr_db / 10))


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
    ranges = ranges_from_graph(base, {name: array[:2] for name, array in inputs.items()})
    layers = layers_of(model, ranges)
    if not layers:
        raise ExportError(
            f"{spec.name}: no layer can be int8",
            got=", ".join(sorted({n.op_type for n in model.graph})),
            expected="Conv, ConvTranspose, Gemm or MatMul with constant float32 weights",
        )
    least = LEAST_SHARE * sum(layer.multiplications for layer in layers)
    small = [layer for layer in layers if layer.multiplications < least]
    layers = [layer for layer in layers if layer.multiplications >= least]
    balanced = balance_modulated(model, base, layers, ranges, inputs)
    base = ir.to_proto(model).SerializeToString()
    values = list(dict.fromkeys(layer.reads for layer in layers))
    thresholds, means = thresholds_from_graph(base, inputs, values), means_from_graph(base, inputs, values)
    weights = _weights(model, base, layers, inputs)
    return Search(spec, base, layers, thresholds, means, weights, pool, symmetric, small, balanced)


def _weights(model: ir.Model, graph: bytes, layers: Sequence[Layer], inputs: Arrays) -> dict[str, IntegerWeights]:
    names = {layer.node for layer in layers}
    nodes = [node for node in model.graph if node.name in names]
    moments = moments_from_graph(graph, inputs, nodes)
    found = {}
    for node in nodes:
        weight, name = constant_of(node.inputs[1]), str(node.name)
        assert weight is not None
        found[name] = integer_weights(weight.astype(np.float32), channel_axis(node), WEIGHT_LEVELS, moments.get(name))
    return found
