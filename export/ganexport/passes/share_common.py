"""What a graph computes or holds twice, once.

1. Constant nodes become initializers: a constant is found in one place.
2. Constants of a few elements, equal in bytes, dtype and shape: one of them. Weights are left, equal or not: two
   trainings of one network are to have one graph.
3. Nodes of the same operator, inputs and attributes: one of them (onnx_ir's pass). Nodes that draw random numbers, and
   nodes with graphs inside, are left.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    LiftConstantsToInitializersPass,
)

from ganexport.passes.report import PassReport

SMALL_ELEMENTS = 8  # shapes, axes, single gains


def share_common(model: ir.Model) -> PassReport:
    report = PassReport("share_common")
    graph = model.graph
    constants = sum(node.op_type == "Constant" for node in graph)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    lifted = constants - sum(node.op_type == "Constant" for node in graph)
    if lifted:
        report.changed.append(f"{lifted} Constant node(s) as initializers")
    initializers = len(graph.initializers)
    DeduplicateInitializersPass(size_limit=SMALL_ELEMENTS)(model)
    if len(graph.initializers) < initializers:
        report.changed.append(f"{initializers - len(graph.initializers)} constant(s) that were there twice")
    before = Counter(node.op_type for node in graph)
    CommonSubexpressionEliminationPass()(model)
    gone = before - Counter(node.op_type for node in graph)
    report.changed += [f"{count} × {op_type} that was computed already" for op_type, count in sorted(gone.items())]
    return report
