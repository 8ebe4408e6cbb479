"""Bias correction: what rounded weights shift the mean of an output channel by is taken back in its bias.

Nagel et al., "Data-free quantization through weight equalization and bias correction", 2019, with means that were
measured.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of, float_of, integer_of
from ganexport.precision.int8_layers import channel_axis

Float64 = NDArray[np.float64]


def corrected_bias(node: ir.Node, lost: Float64, mean: Float64) -> NDArray[np.float32] | None:
    """float32 [M], or None where a layer has no constant bias of one dimension to correct, as MatMul has none.

    Args:
        lost: what rounding took from the weights, in their shape.
        mean: [C], of each channel of what the layer reads.
    """
    if node.op_type == "MatMul" or float_of(node, "beta", 1.0) != 1.0:
        return None
    value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant_of(value)
    if value is not None and (bias is None or bias.ndim != 1):
        return None
    if node.op_type == "Gemm":
        shift = lost @ mean if channel_axis(node) == 0 else mean @ lost  # [M]
        shift = shift * float_of(node, "alpha", 1.0)
    else:
        groups = lost.reshape(integer_of(node, "group", 1), -1, *lost.shape[1:])  # [G, M / G, C / G, …]
        per_channel = groups.sum(axis=tuple(range(3, groups.ndim)))  # [G, M / G, C / G]
        shift = np.einsum("gmc,gc->gm", per_channel, mean.reshape(len(groups), -1)).reshape(-1)  # [M]
    corrected: NDArray[np.float32] = (shift + (0.0 if bias is None else bias.astype(np.float64))).astype(np.float32)
    return corrected
