"""int8 graphs: explicit Q/DQ around the linear layers, activations per tensor and weights per channel.

For ONNX Runtime and OpenVINO, and with `symmetric` for TensorRT too:

1. What a layer reads goes through QuantizeLinear and DequantizeLinear, int8. What a ReLU made is never negative: its
   zero point is -128, so that it has 255 steps and not 127. TensorRT takes no zero point but 0.
2. Its weights are int8 constants behind a DequantizeLinear with one scale per output channel.
3. Its bias stays float32. TensorRT refuses int32 behind a DequantizeLinear (onnx/onnx-tensorrt#850), and ONNX Runtime
   makes the int32 bias of its kernels itself (since 1.21).
   What rounding the weights shifts the mean of an output channel by is taken back in it (bias correction: Nagel et al.,
   "Data-free quantization through weight equalization and bias correction", 2019).
4. Where only ReLU and the moving of data lie between two int8 layers, the first one's output goes through Q/DQ with
   the second one's scale as well: ReLU and the second Q/DQ then change no bit, and the first layer can run in int8
   from end to end.
5. What a layer reads of a Concat is quantised before it is joined, all of it with one scale, and the integers are
   joined: the same numbers, to the bit. OpenVINO (2026.4) moves a Q behind a Concat to its inputs, gives each a type
   and an offset of its own there, and loses the offset on the way: a U-Net with skip connections is 17 to 25 dB from
   what its graph says. It does so with the Q right behind, and behind a ReLU or a scalar Mul or Add; and whether the
   inputs go through Q/DQ or not, but not where integers are joined. TensorRT joins no integers, so `symmetric` graphs
   keep the Q behind the Concat.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of, is_used_once, new_initializer
from ganexport.precision.bias_correction import corrected_bias
from ganexport.precision.int8_layers import MOVES, Layer, channel_axis
from ganexport.precision.integer_weights import IntegerWeights, integer_weights
from ganexport.precision.thresholds import LEVELS

_KEEPS_GRID = MOVES | {"Relu", "MaxPool"}
# What OpenVINO takes a Q through to the Concat before it: element by element, with constants of one element.
_BEHIND_CONCAT = {"Relu", "Mul", "Add", "Sub", "Div", "Identity"}


def quantise(
    model: ir.Model,
    layers: Collection[Layer],
    thresholds: Mapping[str, float],
    weight_levels: int = LEVELS,
    means: Mapping[str, NDArray[np.float64]] | None = None,
    *,
    weights: Mapping[str, IntegerWeights] | None = None,
    symmetric: bool = True,
) -> None:
    """Puts layers into int8, in place.

    Args:
        layers: from `layers_of`; those that are not given stay as they are.
        thresholds: {value name: the magnitude at which it saturates}, for what the layers read.
        weight_levels: the largest weight integer, 127 or less.
        means: {value name: [C]}, for what the layers read; without them no bias is corrected.
        weights: {layer: its weights as integers}; those of all others are rounded to the nearest.
        symmetric: zero points of 0 throughout, as TensorRT wants them; else values of one sign have all 256 integers.
    """
    chosen = {layer.node for layer in layers}
    one_sign = set() if symmetric else {layer.reads for layer in layers if layer.reads_one_sign}
    writer = _Writer(model.graph, thresholds, one_sign, joins_integers=not symmetric)
    nodes = [n for n in list(model.graph) if n.name in chosen]
    sources = [n.inputs[0] for n in nodes]
    for source in sources:
        assert source is not None
        writer.quantise_output_before(source, chosen)
    for node, source in zip(nodes, sources, strict=True):
        assert source is not None
        node.replace_input_with(0, writer.dequantised(source, str(source.name)))
        made = (weights or {}).get(str(node.name)) or nearest_weights(node, weight_levels)
        bias = corrected_bias(node, made.lost, means[str(source.name)]) if means is not None else None
        writer.quantise_weight(node, made)
        if bias is not None:
            writer.set_bias(node, bias)
    writer.remove_unread()


def nearest_weights(node: ir.Node, levels: int) -> IntegerWeights:
    """The weights of a layer, each rounded to the nearest integer."""
    weight = constant_of(node.inputs[1])
    assert weight is not None
    return integer_weights(weight.astype(np.float32), channel_axis(node), levels)


def grid_of(threshold: float, is_one_sign: bool) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The scale and the zero point, both of no dimension, with which a value saturates at a threshold."""
    lowest = -LEVELS - 1 if is_one_sign else 0
    steps = 2 * LEVELS + 1 if is_one_sign else LEVELS
    return np.array(threshold / steps, np.float32), np.array(lowest, np.int8)


def _name_of(value: ir.Value, like: str) -> str:
    return str(value.name) if value.name == like else f"{value.name}_as_{like}"


def _way_from_concat(value: ir.Value) -> list[ir.Node] | None:
    """The Concat that a value comes from, and what lies between, first to last; None where it comes from none."""
    way: list[ir.Node] = []
    while True:
        node = value.producer()
        if node is None:
            return None
        way.insert(0, node)
        if node.op_type == "Concat":
            return way
        constants = [constant_of(x) for x in node.inputs]
        flowing = [x for x, constant in zip(node.inputs, constants, strict=True) if constant is None]
        single = all(constant is None or constant.size == 1 for constant in constants)
        if node.op_type not in _BEHIND_CONCAT or not single or len(flowing) != 1 or flowing[0] is None:
            return None
        value = flowing[0]


class _Writer:
    def __init__(
        self, graph: ir.Graph, thresholds: Mapping[str, float], one_sign: Collection[str], joins_integers: bool
    ) -> None:
        self._graph, self._thresholds, self._one_sign = graph, thresholds, one_sign
        self._joins_integers = joins_integers
        self._integers: dict[tuple[ir.Value, str], ir.Value] = {}
        self._zeros: dict[int, ir.Value] = {}
        self._scales: dict[str, ir.Value] = {}
        self._pairs: dict[tuple[ir.Value, str], ir.Value] = {}
        self._copies: dict[tuple[ir.Value, str], ir.Value] = {}
        self._joined: list[ir.Node] = []

    def dequantised(self, value: ir.Value, like: str) -> ir.Value:
        """The value behind a Q/DQ pair with the scale of the value called `like`; one pair per value and scale."""
        if (value, like) not in self._pairs:
            scale, zero = self._grid(like)
            integers, name = self._quantised(value, like), _name_of(value, like)
            back = ir.node("DequantizeLinear", [integers, scale, zero], name=f"{name}_dequantise")
            back.outputs[0].name = f"{name}_dequantised"
            back.outputs[0].type, back.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), value.shape
            self._insert_behind(integers, back)
            self._pairs[value, like] = back.outputs[0]
        return self._pairs[value, like]

    def _quantised(self, value: ir.Value, like: str) -> ir.Value:
        """The integers of a value, on the grid of the value called `like`."""
        if (value, like) not in self._integers:
            name = _name_of(value, like)
            way = _way_from_concat(value) if self._joins_integers else None
            if way is None:
                node = ir.node("QuantizeLinear", [value, *self._grid(like)], name=f"{name}_quantise")
                self._insert_behind(value, node)
            else:
                concat, *between = way
                parts = [self._quantised(self._copied(between, part), like) for part in concat.inputs if part]
                axis = {"axis": concat.attributes["axis"].as_int()}
                node = ir.node("Concat", parts, axis, name=f"{name}_join")
                self._graph.insert_after(concat, node)
                self._joined += [concat, *between]
            integers = node.outputs[0]
            integers.name, integers.shape = f"{name}_int8", value.shape
            integers.type = ir.TensorType(ir.DataType.INT8)
            self._integers[value, like] = integers
        return self._integers[value, like]

    def _copied(self, nodes: Sequence[ir.Node], value: ir.Value) -> ir.Value:
        """What these operations make of one input of the Concat before them."""
        for node in nodes:
            key = (value, str(node.name))
            if key not in self._copies:
                inputs = [x if x is not None and constant_of(x) is not None else value for x in node.inputs]
                copy = ir.node(node.op_type, inputs, dict(node.attributes), name=f"{node.name}_of_{value.name}")
                copy.outputs[0].name, copy.outputs[0].shape = f"{node.name}_of_{value.name}", value.shape
                copy.outputs[0].type = value.type
                self._insert_behind(value, copy)
                self._copies[key] = copy.outputs[0]
            value = self._copies[key]
        return value

    def remove_unread(self) -> None:
        """Takes away what was joined as floats and is now read by nobody."""
        outputs = set(self._graph.outputs)
        for node in reversed(dict.fromkeys(self._joined)):
            if not node.outputs[0].uses() and node.outputs[0] not in outputs:
                self._graph.remove(node, safe=True)

    def _insert_behind(self, value: ir.Value, node: ir.Node) -> None:
        producer = value.producer()
        if producer is not None:
            self._graph.insert_after(producer, node)
        else:
            self._graph.insert_before(next(iter(self._graph)), node)

    def quantise_output_before(self, value: ir.Value, chosen: Collection[str]) -> None:
        """Q/DQ behind the int8 layer that `value` comes from through nothing but ReLU and moves of data."""
        like, moved = str(value.name), value
        while True:
            producer = moved.producer()
            if producer is None or not is_used_once(moved):
                return
            if producer.name in chosen:
                break
            if producer.op_type not in _KEEPS_GRID or producer.inputs[0] is None:
                return
            moved = producer.inputs[0]
        if moved is value:
            return  # the pair that its reader gets stands there already
        readers = list(moved.uses())
        pair = self.dequantised(moved, like)
        for node, index in readers:
            node.replace_input_with(index, pair)

    def quantise_weight(self, node: ir.Node, weights: IntegerWeights) -> None:
        value = node.inputs[1]
        assert value is not None
        name = f"{value.name}_{node.name}"
        zeros = new_initializer(self._graph, f"{name}_zeros", np.zeros(len(weights.scales), np.int8))
        back = ir.node(
            "DequantizeLinear",
            [
                new_initializer(self._graph, f"{name}_int8", weights.integers),
                new_initializer(self._graph, f"{name}_scales", weights.scales),
                zeros,
            ],
            {"axis": weights.axis},
            name=f"{name}_dequantise",
        )
        back.outputs[0].name = f"{name}_dequantised"
        self._graph.insert_before(node, back)
        node.replace_input_with(1, back.outputs[0])
        if not value.uses() and str(value.name) in self._graph.initializers:
            del self._graph.initializers[str(value.name)]

    def set_bias(self, node: ir.Node, bias: NDArray[np.float32]) -> None:
        made = new_initializer(self._graph, f"{node.name}_corrected_bias", bias)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, made)

    def _grid(self, like: str) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point of the value called `like`."""
        scale, zero = grid_of(self._thresholds[like], like in self._one_sign)
        if int(zero) not in self._zeros:
            self._zeros[int(zero)] = new_initializer(self._graph, "int8_lowest" if zero else "int8_zero", zero)
        if like not in self._scales:
            self._scales[like] = new_initializer(self._graph, f"{like}_scale", scale)
        return self._scales[like], self._zeros[int(zero)]
