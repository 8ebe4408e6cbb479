"""Clamps in one node: what an exporter writes as Max and Min, or as two clamps in a row, becomes one Clip.

1. Min(Max(x, low), high) and Max(Min(x, high), low) with constant scalars, low <= high: Clip(x, low, high).
2. Clip(Clip(x, a, b), c, d) with constant bounds: Clip(x, lowest, highest), where the two ranges overlap.
3. Relu(Clip(x, a, b)) with b >= 0: Clip(x, max(a, 0), b). Clip(Relu(x), a, b) with a <= 0 and b >= 0: Clip(x, 0, b).
4. Bounds that are computed, low > high, or a middle value that is read elsewhere: refused.

Each holds for every finite float and for NaN, which Max, Min, Clip and Relu all pass on. A one-sided Clip may turn an
infinity into the largest finite number, so [0, ∞) stays a Relu.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ganexport.passes.constants import constant_of, is_used_once, name_of, new_initializer
from ganexport.passes.report import PassReport

_CLAMPS = ("Max", "Min", "Clip", "Relu")
_INFINITY = float("inf")


def fuse_clamp(model: ir.Model) -> PassReport:
    report = PassReport("fuse_clamp")
    changed = True
    while changed:
        changed = False
        for node in list(model.graph):
            if node.op_type in _CLAMPS and _fuse(node, model.graph, report):
                changed = True
                break
    report.refused = list(dict.fromkeys(report.refused))
    return report


def _fuse(node: ir.Node, graph: ir.Graph, report: PassReport) -> bool:
    source = _clamped(node)
    before = source.producer() if source is not None else None
    if before is None or before.op_type not in _CLAMPS:
        return False
    inner_source = _clamped(before)
    outer, inner = _bounds(node), _bounds(before)
    if inner_source is None or outer is None or inner is None:
        report.refuse(name_of(node), f"the bounds of it or of {name_of(before)} are computed, not constant")
        return False
    if not is_used_once(before.outputs[0]):
        report.refuse(name_of(node), f"the output of {name_of(before)} is also used elsewhere")
        return False
    low, high = max(inner[0], outer[0]), min(inner[1], outer[1])
    if low > high:
        report.refuse(name_of(node), f"its range does not meet that of {name_of(before)}")
        return False
    dtype = inner_source.dtype or node.outputs[0].dtype
    kind = dtype.numpy() if dtype is not None else np.dtype(np.float32)
    if (low, high) == (0.0, _INFINITY):
        clamp = ir.node("Relu", [inner_source], name=name_of(node))
    else:
        bounds: list[ir.Value | None] = [
            None if abs(b) == _INFINITY else new_initializer(graph, f"{name_of(node)}_{side}", np.array(b, kind))
            for side, b in (("low", low), ("high", high))
        ]
        while bounds and bounds[-1] is None:
            bounds.pop()
        clamp = ir.node("Clip", [inner_source, *bounds], name=name_of(node))
    old, new = node.outputs[0], clamp.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], [clamp], [old], [new])
    graph.remove(before, safe=True)
    report.changed.append(f"{name_of(before)} and {name_of(node)} as {clamp.op_type} [{low:g}, {high:g}]")
    return True


def _clamped(node: ir.Node) -> ir.Value | None:
    """The value that a clamp clamps: the one input that is not a bound."""
    if node.op_type in ("Clip", "Relu"):
        return node.inputs[0]
    computed = [v for v in node.inputs if constant_of(v) is None]
    return computed[0] if len(computed) == 1 and len(node.inputs) == 2 else None


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """(low, high); None where a bound is not a constant scalar."""
    if node.op_type == "Relu":
        return 0.0, _INFINITY
    if node.op_type == "Clip":
        pair = []
        for i, default in ((1, -_INFINITY), (2, _INFINITY)):
            value = node.inputs[i] if len(node.inputs) > i else None
            constant = constant_of(value)
            if value is not None and (constant is None or constant.size != 1):
                return None
            pair.append(default if constant is None else float(constant.reshape(())))
        return pair[0], pair[1]
    constants = [c for c in (constant_of(v) for v in node.inputs) if c is not None]
    if len(constants) != 1 or constants[0].size != 1:
        return None
    bound = float(constants[0].reshape(()))
    return (bound, _INFINITY) if node.op_type == "Max" else (-_INFINITY, bound)
