"""Layers that int8 kernels can run, and what each of them multiplies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ganexport.passes.constants import constant_of, integer_of
from ganexport.precision.ranges import ValueRange

_LINEAR = ("Conv", "Gemm", "MatMul")
# What leaves numbers as they are, and only changes where they stand.
MOVES = {
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
        per_output = weight[0].size if node.op_type == "Conv" else weight.shape[channel_axis(node) ^ 1]
        multiplications = after.row_elements * int(per_output)
        found.append(Layer(str(node.name), node.op_type, str(source.name), multiplications, _is_one_sign(source)))
    return found


def _is_one_sign(value: ir.Value) -> bool:
    producer = value.producer()
    while producer is not None and producer.op_type in MOVES | {"MaxPool"} and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "Relu"


def channel_axis(node: ir.Node) -> int:
    """The axis of the weight that runs over output channels."""
    if node.op_type == "Conv":
        return 0
    return 0 if node.op_type == "Gemm" and integer_of(node, "transB", 0) else 1
