"""ConvTranspose in sub-pixel form: Conv, DepthToSpace, crop. The same products, in another order.

With stride s and kernel k, output row s·q + r before cropping is Σ_j x[q - j] · w[s·j + r]: each of the s residues r is
an ordinary convolution with K = ceil(k / s) taps, and DepthToSpace interleaves them (Shi et al., "Is the deconvolution
layer the same as a convolutional layer?", 2016). Padding crops what comes out.

1. Constant weights, equal strides in both dimensions, dilation 1: rewritten, any kernel, padding, output padding and
   number of groups.
2. Stride 1: a Conv with the kernel turned round; no DepthToSpace, no crop.
3. Padding by `auto_pad` or `output_shape`, dilation, unequal strides, another rank than 4, computed weights, or a
   padding wider than the kernel reaches: refused.

It pays on some backends only (docs/adding-a-pass.md has the figures), and there not for every layer: `only` names some.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of, integer_of, integers_of, name_of, new_initializer, string_of
from ganexport.passes.report import PassReport

_END = np.iinfo(np.int64).max


def convtranspose_to_subpixel(model: ir.Model, only: Collection[str] | None = None) -> PassReport:
    """Rewrites every ConvTranspose that can be; with `only`, those of these names alone (`name_of` gives them)."""
    report = PassReport("convtranspose_to_subpixel")
    for node in list(model.graph):
        if node.op_type == "ConvTranspose" and (only is None or name_of(node) in only):
            reason = _why_not(node)
            if reason is not None:
                report.refuse(name_of(node), reason)
                continue
            report.changed.append(_rewrite(node, model.graph))
    return report


def _why_not(node: ir.Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is None:
        return "its weight is computed, not constant"
    if weight.ndim != 4:
        return f"it has {weight.ndim - 2} spatial dimension(s)"
    if string_of(node, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        return "its padding is given by auto_pad or output_shape"
    if any(d != 1 for d in integers_of(node, "dilations", [1, 1])):
        return "it is dilated"
    strides = integers_of(node, "strides", [1, 1])
    if strides[0] != strides[1]:
        return f"its strides differ: {strides}"
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant_of(node.inputs[2]) is None:
        return "its bias is computed, not constant"
    if min(*_conv_pads(node)) < 0:
        return "its padding is wider than its kernel reaches"
    return None


def _geometry(node: ir.Node) -> tuple[int, list[int], list[int], list[int]]:
    """stride, kernel [h, w], pads [top, left, bottom, right], output padding [h, w]."""
    weight = constant_of(node.inputs[1])
    assert weight is not None
    stride = integers_of(node, "strides", [1, 1])[0]
    pads = integers_of(node, "pads", [0, 0, 0, 0])
    return stride, list(weight.shape[2:]), pads, integers_of(node, "output_padding", [0, 0])


def _conv_pads(node: ir.Node) -> list[int]:
    """Pads [top, left, bottom, right] of the Conv: as many rows q as the crop needs, and no more."""
    s, kernel, pads, extra = _geometry(node)
    before = [-(-k // s) - 1 - pads[i] // s for i, k in enumerate(kernel)]
    after = [-(-(k - pads[2 + i] + extra[i]) // s) - 1 for i, k in enumerate(kernel)]
    return before + after


def _rewrite(node: ir.Node, graph: ir.Graph) -> str:
    s, kernel, pads, extra = _geometry(node)
    groups = integer_of(node, "group", 1)
    weight, name = constant_of(node.inputs[1]), name_of(node)
    assert weight is not None
    inputs: list[ir.Value | None] = [
        node.inputs[0],
        new_initializer(graph, f"{name}_subpixel", _weight(weight, s, groups)),
    ]
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        inputs.append(new_initializer(graph, f"{name}_subpixel_bias", bias.repeat(s * s)))
    taps = [-(-k // s) for k in kernel]
    attributes: dict[str, Any] = {"kernel_shape": taps, "pads": _conv_pads(node), "strides": [1, 1], "group": groups}
    conv = ir.node("Conv", inputs, attributes, name=name)
    made = [conv]
    if s > 1:
        made.append(
            ir.node("DepthToSpace", [conv.outputs[0]], {"blocksize": s, "mode": "CRD"}, name=f"{name}_interleave")
        )
        starts = [p % s for p in pads[:2]]
        # Rows that DepthToSpace makes beyond the last one: a constant, because both sides grow by s per input row.
        ends = [-((-(k - pads[2 + i] + extra[i])) % s) for i, k in enumerate(kernel)]
        if any(starts) or any(ends):
            bounds = [np.array(b, np.int64) for b in (starts, [e or _END for e in ends], [2, 3])]
            values = [new_initializer(graph, f"{name}_crop", b) for b in bounds]
            made.append(ir.node("Slice", [made[-1].outputs[0], *values], name=f"{name}_crop"))
    for n in made[:-1]:
        n.outputs[0].name = f"{n.name}_out"
    old, new = node.outputs[0], made[-1].outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, [old], [new])
    form = " + ".join(n.op_type for n in made)
    return f"{name}: kernel {kernel}, stride {s}, pads {pads} as {form} of {taps} taps"


def _weight(weight: NDArray[np.generic], s: int, groups: int) -> NDArray[np.generic]:
    """[C, M/g, kH, kW] as the Conv's [M·s², C/g, KH, KW]; channel m·s² + r_h·s + r_w holds residue (r_h, r_w) of m."""
    channels, per_group, kernel_h, kernel_w = weight.shape
    taps_h, taps_w = -(-kernel_h // s), -(-kernel_w // s)
    full = np.zeros((channels, per_group, taps_h * s, taps_w * s), weight.dtype)
    full[:, :, :kernel_h, :kernel_w] = weight
    # w[s·j + r] by tap j and residue r; tap j of the sum is tap K - 1 - j of a correlation.
    split = full.reshape(groups, channels // groups, per_group, taps_h, s, taps_w, s)[:, :, :, ::-1, :, ::-1, :]
    # [g, C/g, M/g, KH, rh, KW, rw] -> [g, M/g, rh, rw, C/g, KH, KW]
    ordered = split.transpose(0, 2, 4, 6, 1, 3, 5)
    return np.ascontiguousarray(ordered.reshape(groups * per_group * s * s, channels // groups, taps_h, taps_w))
