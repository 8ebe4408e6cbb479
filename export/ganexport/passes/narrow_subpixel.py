"""The sub-pixel form for those transposed convolutions alone that give few channels, such as a generator's last layer.

OpenVINO's kernels for ConvTranspose work on 16 output channels at a time, and a layer that gives three wastes the rest:
of a DCGAN of 64 px the last one took 27 ms of 156 (one core, batch 64) for 1.6 % of the products, and takes 12 so. On
ONNX Runtime it is 8 against 10: so this is for a variant beside the plain graph.

1. A ConvTranspose with at most `CHANNELS` output channels: as `convtranspose_to_subpixel` does it, refusals included.
2. Any other is none of its business.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from ganexport.passes.constants import constant_of, integer_of, name_of
from ganexport.passes.report import PassReport
from ganexport.passes.subpixel import convtranspose_to_subpixel

CHANNELS = 4


def narrow_convtranspose_to_subpixel(model: ir.Model) -> PassReport:
    """Rewrites every ConvTranspose with few output channels."""
    narrow = {name_of(node) for node in model.graph if _channels(node) <= CHANNELS}
    return replace(convtranspose_to_subpixel(model, narrow), name="narrow_convtranspose_to_subpixel")


def _channels(node: ir.Node) -> float:
    weight = constant_of(node.inputs[1]) if node.op_type == "ConvTranspose" else None
    return weight.shape[1] * integer_of(node, "group", 1) if weight is not None else float("inf")
