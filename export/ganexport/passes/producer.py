"""The linear node that a factor or shift per channel folds into: Conv, ConvTranspose, Gemm or MatMul, constant weights.

What folds into them is y ↦ y · factor + shift, one number per output channel:

    Conv           weight [M, C/g, kH, kW]     factor on axis 0
    ConvTranspose  weight [C, M/g, kH, kW]     factor on axis 1, channels in the order of the groups
    Gemm           weight [N, K] or [K, N]     factor on the axis that is not summed (transB says which)
    MatMul         weight [K, N]               factor on axis 1; becomes a Gemm where there is a shift

Everything is computed in float64 and rounded once, to the weights' own dtype.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of, float_of, integer_of, is_used_once, name_of, new_initializer

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
Float64 = NDArray[np.float64]


def why_not_foldable(node: ir.Node | None) -> str | None:
    """Why nothing can be folded into this node, or None where it can."""
    if node is None or node.op_type not in LINEAR or node.domain not in ("", "ai.onnx"):
        return f"it follows {node.op_type if node is not None else 'an input'}, not one of {', '.join(LINEAR)}"
    weight = constant_of(node.inputs[1])
    if weight is None:
        return f"the weight of {name_of(node)} is computed, not constant"
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant_of(node.inputs[2]) is None:
        return f"the bias of {name_of(node)} is computed, not constant"
    if not is_used_once(node.outputs[0]):
        return f"the output of {name_of(node)} is also used elsewhere"
    if node.op_type == "MatMul" and weight.ndim != 2:
        return f"the weight of {name_of(node)} has {weight.ndim} dimensions"
    if node.op_type == "Gemm" and float_of(node, "beta", 1.0) != 1.0:
        return f"{name_of(node)} scales its bias"
    return None


def channels_of(node: ir.Node) -> int:
    """Output channels of a node that `why_not_foldable` accepts."""
    weight = constant_of(node.inputs[1])
    assert weight is not None
    if node.op_type == "Conv":
        return int(weight.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * integer_of(node, "group", 1)
    if node.op_type == "Gemm" and integer_of(node, "transB", 0):
        return int(weight.shape[0])
    return int(weight.shape[1])


def fold_into(node: ir.Node, factor: Float64, shift: Float64) -> None:
    """Makes the node compute y · factor + shift. Both are [channels], or [1] for all channels alike."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    weight, channels = constant_of(node.inputs[1]), channels_of(node)
    assert weight is not None
    factor, shift = np.broadcast_to(factor, channels), np.broadcast_to(shift, channels)
    scaled = (weight.astype(np.float64) * _on_weight(node, factor, weight.ndim)).astype(weight.dtype)
    weight_name = str(node.inputs[1].name) if node.inputs[1] is not None else "weight"
    node.replace_input_with(1, new_initializer(graph, f"{weight_name}_folded", scaled))
    old_bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    bias = (old_bias.astype(np.float64) if old_bias is not None else np.zeros(1)) * factor + shift
    if old_bias is None and not np.any(bias):
        return
    value = new_initializer(graph, f"{weight_name}_bias", bias.astype(weight.dtype))
    if node.op_type == "MatMul":
        gemm = ir.Node("", "Gemm", [*node.inputs, value], name=node.name)
        gemm.outputs[0].name, gemm.outputs[0].shape, gemm.outputs[0].type = (
            node.outputs[0].name,
            node.outputs[0].shape,
            node.outputs[0].type,
        )
        ir.convenience.replace_nodes_and_values(graph, node, [node], [gemm], [node.outputs[0]], [gemm.outputs[0]])
    elif len(node.inputs) > 2:
        node.replace_input_with(2, value)
    else:
        node.resize_inputs(3)
        node.replace_input_with(2, value)


def _on_weight(node: ir.Node, factor: Float64, rank: int) -> Float64:
    """The factor, shaped to multiply the weight."""
    if node.op_type == "Conv":
        return factor.reshape(-1, *[1] * (rank - 1))
    if node.op_type == "ConvTranspose":
        groups = integer_of(node, "group", 1)
        weight = constant_of(node.inputs[1])
        assert weight is not None
        # Group g of the input channels makes group g of the output channels.
        by_group = factor.reshape(groups, -1).repeat(weight.shape[0] // groups, axis=0)  # [C, M/g]
        return by_group.reshape(*by_group.shape, *[1] * (rank - 2))
    if node.op_type == "Gemm" and integer_of(node, "transB", 0):
        return factor[:, None]
    return factor[None, :]
