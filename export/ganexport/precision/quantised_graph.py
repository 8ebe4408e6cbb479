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
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of, integer_of, is_used_once, new_initializer
from ganexport.precision.ranges import ValueRange
from ganexport.precision.thresholds import LEVELS

_LINEAR = ("Conv", "Gemm", "MatMul")
_MOVES = {
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "DepthToSpace",
    "SpaceToDepth",
    "Identity",
}
_KEEPS_GRID = _MOVES | {"Relu", "MaxPool"}
# What OpenVINO takes a Q through to the Concat before it: element by element, with constants of one element.
_BEHIND_CONCAT = {"Relu", "Mul", "Add", "Sub", "Div", "Identity"}


@dataclass(frozen=True)
class Layer:
    """A layer that int8 kernels can run.

    node: its name. reads: the value that it quantises. multiplications: per image. reads_one_sign: whether that value
    comes from a ReLU, and is never negative.
    """

    node: str
    op_type: str
    reads: str
    multiplications: int
    reads_one_sign: bool = False


def named_nodes(model: ir.Model) -> None:
    """Gives every node a name of its own: layers are told apart by it."""
    taken: set[str] = set()
    for node in model.graph:
        base = node.name or f"{node.op_type}_{node.outputs[0].name}"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        node.name = name
        taken.add(name)


def layers_of(model: ir.Model, ranges: Mapping[str, ValueRange]) -> list[Layer]:
    """The layers of a graph, in its order: Conv, Gemm and MatMul with constant float32 weights."""
    found = []
    for node in model.graph:
        if node.op_type not in _LINEAR or node.domain not in ("", "ai.onnx"):
            continue
        weight, source = constant_of(node.inputs[1]), node.inputs[0]
        after = ranges.get(str(node.outputs[0].name))
        if weight is None or weight.dtype != np.float32 or weight.ndim < 2 or source is None or after is None:
            continue
        if constant_of(source) is not None or (node.op_type == "MatMul" and weight.ndim != 2):
            continue
        if node.op_type == "Gemm" and integer_of(node, "transA", 0):
            continue
        per_output = weight[0].size if node.op_type == "Conv" else weight.shape[_channel_axis(node) ^ 1]
        multiplications = after.row_elements * int(per_output)
        found.append(Layer(str(node.name), node.op_type, str(source.name), multiplications, _is_one_sign(source)))
    return found


def _is_one_sign(value: ir.Value) -> bool:
    producer = value.producer()
    while producer is not None and producer.op_type in _MOVES | {"MaxPool"} and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "Relu"


def quantise(
    model: ir.Model,
    layers: Collection[Layer],
    thresholds: Mapping[str, float],
    weight_levels: int = LEVELS,
    means: Mapping[str, NDArray[np.float64]] | None = None,
    *,
    symmetric: bool = True,
) -> None:
    """Puts layers into int8, in place.

    Args:
        layers: from `layers_of`; those that are not given stay as they are.
        thresholds: {value name: the magnitude at which it saturates}, for what the layers read.
        weight_levels: the largest weight integer, 127 or less.
        means: {value name: [C]}, for what the layers read; without them no bias is corrected.
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
        error = writer.quantise_weight(node, weight_levels)
        if means is not None:
            writer.correct_bias(node, error, means[str(source.name)])
    writer.remove_unread()


def weight_integers(
    weight: NDArray[np.float32], axis: int, levels: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 weights of the same shape, and their float32 scales [channels], symmetric, one per index of `axis`."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    peaks = np.abs(weight).max(axis=others)
    scales = np.where(peaks > 0, peaks / levels, 1.0).astype(np.float32)  # [M]
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    integers = np.clip(np.rint(weight / scales.reshape(shape)), -levels, levels).astype(np.int8)
    return integers, scales


def _channel_axis(node: ir.Node) -> int:
    """The axis of the weight that runs over output channels."""
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and integer_of(node, "transB", 0) else 1


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

    def quantise_weight(self, node: ir.Node, levels: int) -> NDArray[np.float64]:
        """Returns what rounding took from the weights, in their shape."""
        value = node.inputs[1]
        weight = constant_of(value)
        assert weight is not None
        assert value is not None
        axis = _channel_axis(node)
        integers, scales = weight_integers(weight.astype(np.float32), axis, levels)
        name = f"{value.name}_{node.name}"
        zeros = new_initializer(self._graph, f"{name}_zeros", np.zeros(len(scales), np.int8))
        back = ir.node(
            "DequantizeLinear",
            [
                new_initializer(self._graph, f"{name}_int8", integers),
                new_initializer(self._graph, f"{name}_scales", scales),
                zeros,
            ],
            {"axis": axis},
            name=f"{name}_dequantise",
        )
        back.outputs[0].name = f"{name}_dequantised"
        self._graph.insert_before(node, back)
        node.replace_input_with(1, back.outputs[0])
        if not value.uses() and str(value.name) in self._graph.initializers:
            del self._graph.initializers[str(value.name)]
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        rounded = integers.astype(np.float64) * scales.astype(np.float64).reshape(shape)
        lost: NDArray[np.float64] = weight.astype(np.float64) - rounded
        return lost

    def correct_bias(self, node: ir.Node, error: NDArray[np.float64], mean: NDArray[np.float64]) -> None:
        """Adds what the rounded weights take from the mean of each output channel to the bias. MatMul has none."""
        if node.op_type == "MatMul" or node.attributes.get_float("beta", 1.0) != 1.0:
            return
        value = node.inputs[2] if len(node.inputs) > 2 else None
        bias = constant_of(value)
        if value is not None and (bias is None or bias.ndim != 1):
            return
        if node.op_type == "Gemm":
            shift = error @ mean if _channel_axis(node) == 0 else mean @ error  # [M]
            shift = shift * node.attributes.get_float("alpha", 1.0)
        else:
            groups = error.reshape(integer_of(node, "group", 1), -1, *error.shape[1:])  # [G, M / G, C / G, …]
            per_channel = groups.sum(axis=tuple(range(3, groups.ndim)))  # [G, M / G, C / G]
            shift = np.einsum("gmc,gc->gm", per_channel, mean.reshape(len(groups), -1)).reshape(-1)  # [M]
        corrected = (shift + (0.0 if bias is None else bias.astype(np.float64))).astype(np.float32)
        made = new_initializer(self._graph, f"{node.name}_corrected_bias", corrected)
        if len(node.inputs) > 2:
            node.replace_input_with(2, made)
        else:
            node.resize_inputs(3)
            node.replace_input_with(2, made)

    def _grid(self, like: str) -> tuple[ir.Value, ir.Value]:
        """Scale and zero point of the value called `like`."""
        lowest = -LEVELS - 1 if like in self._one_sign else 0
        if lowest not in self._zeros:
            name = "int8_lowest" if lowest else "int8_zero"
            self._zeros[lowest] = new_initializer(self._graph, name, np.array(lowest, np.int8))
        if like not in self._scales:
            steps = 2 * LEVELS + 1 if lowest else LEVELS
            scale = np.array(self._thresholds[like] / steps, np.float32)
            self._scales[like] = new_initializer(self._graph, f"{like}_scale", scale)
        return self._scales[like], self._zeros[lowest]
