"""A transposed convolution over a single pixel is a matrix product.

Most convolutional generators begin so: a latent as [N, C, 1, 1], and a ConvTranspose that makes the first few pixels of
it. Each of them is a sum over channels and nothing else, whatever the stride.

1. Constant weights, an input whose height and width are known to be 1, one group, no dilation: a Gemm with a column for
   each channel and pixel, and a Reshape. Padding drops columns; output padding of a single pixel has none to add to.
2. Where the input is only a latent [N, C] with two axes put behind it (Unsqueeze, Reshape), the Gemm reads the latent.
3. Padding by `auto_pad` or `output_shape`, several groups, dilation, output padding, computed weights or bias: refused.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of, integer_of, integers_of, name_of, new_initializer, string_of
from ganexport.passes.report import PassReport


def convtranspose_to_gemm(model: ir.Model) -> PassReport:
    """Rewrites every ConvTranspose over one pixel."""
    report = PassReport("convtranspose_to_gemm")
    for node in list(model.graph):
        if node.op_type != "ConvTranspose" or not _is_over_one_pixel(node):
            continue
        reason = _why_not(node)
        if reason is not None:
            report.refuse(name_of(node), reason)
            continue
        report.changed.append(_rewrite(model.graph, node))
    return report


def _is_over_one_pixel(node: ir.Node) -> bool:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return shape is not None and len(shape) == 4 and list(shape)[2:] == [1, 1]


def _why_not(node: ir.Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is None:
        return "its weight is computed, not constant"
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant_of(node.inputs[2]) is None:
        return "its bias is computed, not constant"
    if string_of(node, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        return "its padding is given by auto_pad or output_shape"
    if integer_of(node, "group", 1) != 1:
        return "it has several groups"
    if any(d != 1 for d in integers_of(node, "dilations", [1, 1])):
        return "it is dilated"
    if any(integers_of(node, "output_padding", [0, 0])):
        return "it has output padding"
    return None


def _rewrite(graph: ir.Graph, node: ir.Node) -> str:
    weight, source, name = constant_of(node.inputs[1]), node.inputs[0], name_of(node)
    assert weight is not None
    assert source is not None
    top, left, bottom, right = integers_of(node, "pads", [0, 0, 0, 0])
    kept = weight[:, :, top : weight.shape[2] - bottom, left : weight.shape[3] - right]  # [C, M, h, w]
    channels, maps, height, width = kept.shape
    columns = np.ascontiguousarray(kept.reshape(channels, -1))
    made: list[ir.Node] = []
    latent = _latent_behind(source, channels)
    if latent is None:
        shape = new_initializer(graph, f"{name}_row_shape", np.array([-1, channels], np.int64))
        made.append(ir.node("Reshape", [source, shape], name=f"{name}_row"))
        latent = made[-1].outputs[0]
        latent.name = f"{name}_row_out"
    inputs: list[ir.Value | None] = [latent, new_initializer(graph, f"{name}_gemm", columns)]
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        inputs.append(new_initializer(graph, f"{name}_gemm_bias", _repeated(bias, height * width)))
    made.append(ir.node("Gemm", inputs, name=f"{name}"))
    made[-1].outputs[0].name = f"{name}_gemm_out"
    shape = new_initializer(graph, f"{name}_pixel_shape", np.array([-1, maps, height, width], np.int64))
    made.append(ir.node("Reshape", [made[-1].outputs[0], shape], name=f"{name}_pixels"))
    old, new = node.outputs[0], made[-1].outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, [old], [new])
    return f"{name}: {channels} channels of one pixel to {maps} of {height} × {width}, as Gemm"


def _latent_behind(value: ir.Value, channels: int) -> ir.Value | None:
    """The [N, C] that `value` is with two axes behind it, or None."""
    producer = value.producer()
    if producer is None or producer.op_type not in ("Unsqueeze", "Reshape"):
        return None
    source = producer.inputs[0]
    shape = source.shape if source is not None else None
    return source if shape is not None and len(shape) == 2 and shape[1] == channels else None


def _repeated(bias: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    return np.ascontiguousarray(bias.repeat(count))
