"""The sub-pixel form for those transposed convolutions alone that give few channels, such as a generator's last layer.

OpenVINO's kernels for ConvTranspose work on 16 output channels at a time, and a layer that gives three wastes the rest:
of a DCGAN of 64 px the last one took 27 ms of 156 (one core, batch 64) for 1.6 % of the products, and takes 12 so. On
ONNX Runtime it is 8 against 10: so this is for a variant beside the plain graph.

1. A ConvTranspose with at most `CHANNELS` output channels, or `BF16_CHANNELS` where the products are in bfloat16: as
   `convtranspose_to_subpixel` does it, refusals included.
2. Any other is none of its business.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from ganexport.passes.constants import constant_of, integer_of, name_of
from ganexport.passes.report import PassReport
from ganexport.passes.subpixel import convtranspose_to_subpixel

CHANNELS = 4
# In bfloat16 the kernels for ConvTranspose are the faster ones from 64 on (two cores, batches of 1 to 64): a network
# was 1.1 times as fast with 96 channels to 48 in sub-pixel form, 1.03 with 64 to 32, the same with 48 to 24, and 0.97
# with 128 to 64 or 256 to 128.
BF16_CHANNELS = 63


def narrow_convtranspose_to_subpixel(model: ir.Model) -> PassReport:
    """Rewrites every ConvTranspose with few output channels."""
    return _rewritten(model, CHANNELS, "narrow_convtranspose_to_subpixel")


def bf16_convtranspose_to_subpixel(model: ir.Model) -> PassReport:
    """Rewrites every ConvTranspose with few output channels for a graph whose products are in bfloat16."""
    return _rewritten(model, BF16_CHANNELS, "bf16_convtranspose_to_subpixel")


def _rewritten(model: ir.Model, channels: int, name: str) -> PassReport:
    narrow = {name_of(node) for node in model.graph if _channels(node) <= channels}
    return replace(convtranspose_to_subpixel(model, narrow), name=name)


def _channels(node: ir.Node) -> float:
    weight = constant_of(node.inputs[1]) if node.op_type == "ConvTranspose" else None
    return weight.shape[1] * integer_of(node, "group", 1) if weight is not None else float("inf")
