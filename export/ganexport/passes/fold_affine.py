"""Multiplications and additions by constants, folded into the linear node before them.

Equalised learning rates, output gains and shifts come out of an exporter as Mul, Div, Add and Sub by a constant.

1. Mul by a constant of one number, or of one per channel: into the weights and the bias of the Conv, ConvTranspose,
   Gemm or MatMul before it.
2. Div by a constant (the constant below the line): as a Mul by its inverse, in float64.
3. Add of a constant, Sub of a constant: into the bias.
4. A constant that differs along another dimension than the channels, or an output that is read elsewhere: refused.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import bypass, constant_of, name_of
from ganexport.passes.producer import LINEAR, channels_of, fold_into, why_not_foldable
from ganexport.passes.report import PassReport

_OPS = ("Mul", "Div", "Add", "Sub")


def fold_affine(model: ir.Model) -> PassReport:
    report = PassReport("fold_affine")
    changed = True
    while changed:
        changed = False
        for node in list(model.graph):
            if node.op_type in _OPS and _fold(node, model.graph, report):
                changed = True
    # A refusal may be met again in every round.
    report.refused = list(dict.fromkeys(report.refused))
    return report


def _fold(node: ir.Node, graph: ir.Graph, report: PassReport) -> bool:
    name = name_of(node)
    left, right = node.inputs
    source, constant = left, constant_of(right)
    if constant is None and node.op_type in ("Mul", "Add"):
        source, constant = right, constant_of(left)
    producer = source.producer() if source is not None else None
    if constant is None or producer is None or producer.op_type not in LINEAR:
        return False
    reason = why_not_foldable(producer)
    if reason is not None:
        report.refuse(name, reason)
        return False
    numbers = _per_channel(constant, channels_of(producer), producer.op_type in ("Conv", "ConvTranspose"))
    if numbers is None:
        report.refuse(name, f"its constant of shape {list(constant.shape)} is not one number per channel")
        return False
    if node.op_type == "Div" and not numbers.all():
        report.refuse(name, "it divides by zero")
        return False
    one, zero = np.ones(1), np.zeros(1)
    factor, shift = {
        "Mul": (numbers, zero),
        "Div": (1.0 / numbers if node.op_type == "Div" else one, zero),
        "Add": (one, numbers),
        "Sub": (one, -numbers),
    }[node.op_type]
    bypass(graph, node, producer.outputs[0])
    fold_into(producer, factor, shift)
    report.changed.append(f"{name} ({node.op_type}) into {name_of(producer)}")
    return True


def _per_channel(constant: NDArray[np.generic], channels: int, is_map: bool) -> NDArray[np.float64] | None:
    """The constant as [1] or [channels]; None where it varies along another dimension of [N, C, H, W] or [N, C]."""
    if constant.size == 1:
        return constant.astype(np.float64).reshape(1)
    rank = 4 if is_map else 2
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if len(shape) == rank and shape[1] == channels and constant.size == channels:
        return constant.astype(np.float64).reshape(channels)
    return None
