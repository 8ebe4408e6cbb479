"""Islands: the nodes of a half graph that stay in fp32, each with its reason.

By rule, whatever was measured:

1. Normalisations, and what divides, takes roots, powers, exponentials or logarithms: InstanceNormalization in fp16 is
   where generators turn to noise (microsoft/onnxruntime#10079), and 1/√(x + 1e-8) in fp16 is 1/√x.
2. The statistics that such a node divides by: from it backwards through sums, squares and means, to what is averaged.
3. Sums and means over more than `LARGEST_SUM` elements.
4. The head: what follows the last linear node on the way to an output. It is small, and its rounding is seen as it is.
5. What computes positions (GridSample, numbers that come from shapes or become integers): a half type counts to 2,048.
6. What the operator set does not have in the half type.

By measurement, over latents:

7. A value whose magnitude, times `MARGIN`, is beyond the half type: the node that makes it and those that read it.
8. A value below the smallest normal number that is divided by: the node that makes it.
9. A constant of one number that the half type would flush or overflow (an epsilon), and weights beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ganexport.passes.constants import constant_of, name_of
from ganexport.precision.ranges import ValueRange, is_float_value, touches_float
from ganexport.precision.rounding import HalfType
from ganexport.precision.signature import half_problem

LARGEST_SUM = 256
MARGIN = 4.0  # unseen latents reach further than seen ones

_NORMS = {
    "InstanceNormalization", "LayerNormalization", "GroupNormalization", "BatchNormalization", "RMSNormalization",
    "LpNormalization", "MeanVarianceNormalization", "LRN",
}  # fmt: skip
_SENSITIVE = {
    "Sqrt": "a root", "Reciprocal": "a reciprocal", "Pow": "a power", "Exp": "an exponential", "Log": "a logarithm",
    "Softmax": "exponentials", "LogSoftmax": "exponentials", "Softplus": "exponentials", "Einsum": "a sum of products",
    "CumSum": "a running sum", "Det": "a determinant",
}  # fmt: skip
_SUMS = {
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceProd", "GlobalAveragePool", "GlobalLpPool",
}  # fmt: skip
_POSITIONS = {"GridSample", "AffineGrid", "Range", "Mod", "Floor", "Ceil", "Round"}
_TYPED_BY_ATTRIBUTE = {"ConstantOfShape", "EyeLike"}
_STATISTICS = {"Add", "Sub", "Mul", "Pow", "Max", "Min", "Clip", "Abs", "Neg", "Sqrt", "Reciprocal", "Exp", *_SUMS}
_SQUARES = {"Mul", "Pow", "Abs", "Sub"}
_LINEAR = {"Conv", "ConvTranspose", "Gemm", "MatMul", "DeformConv", "RNN", "LSTM", "GRU"}
# Which input is divided by, or taken a root or logarithm of.
_DIVISORS = {"Div": 1, "Sqrt": 0, "Reciprocal": 0, "Log": 0, "Pow": 0}


@dataclass(frozen=True)
class Island:
    """A node that stays in fp32, and why."""

    node: str
    op_type: str
    reason: str


def islands_of(model: ir.Model, ranges: Mapping[str, ValueRange], half: HalfType) -> dict[ir.Node, Island]:
    """The islands of a graph, in its order.

    Args:
        ranges: from `ranges_from_graph`, of the same graph.
    """
    opset = model.opset_imports.get("", half.opset)
    found: dict[ir.Node, str] = {}
    floats = [n for n in model.graph if touches_float(n, ranges)]
    for node in floats:
        reason = _by_rule(node, ranges, half, opset)
        if reason is not None:
            _add(found, node, reason)
    for node in floats:
        if node.op_type in _DIVISORS and not _is_whole_power(node):
            _add_statistics(found, node)
    _add_heads(found, model.graph)
    for node in floats:
        _add_by_range(found, node, ranges, half)
    return {n: Island(name_of(n), n.op_type, found[n]) for n in model.graph if n in found and n in floats}


def _add(found: dict[ir.Node, str], node: ir.Node | None, reason: str) -> None:
    if node is not None:
        found.setdefault(node, reason)


def _by_rule(node: ir.Node, ranges: Mapping[str, ValueRange], half: HalfType, opset: int) -> str | None:
    op = node.op_type
    if op in _NORMS:
        return "a normalisation"
    if op in _SENSITIVE:
        return _SENSITIVE[op]
    if op == "Div" and constant_of(node.inputs[1]) is None:
        return "a division by a computed value"
    if op in _POSITIONS or op in _TYPED_BY_ATTRIBUTE:
        return "positions or counts" if op in _POSITIONS else "a constant of computed shape"
    if op == "Cast" and node.inputs[0] is not None:
        to_integers = not is_float_value(node.outputs[0], ranges)
        if to_integers or not is_float_value(node.inputs[0], ranges):
            return "a conversion from or to integers"
    if op in _SUMS:
        count = _summed(node, ranges)
        if count > LARGEST_SUM:
            return f"a sum over {count:,} elements"
    return half_problem(node, half, opset)


def _summed(node: ir.Node, ranges: Mapping[str, ValueRange]) -> int:
    """How many elements go into one of the sums."""
    before, after = (
        ranges.get(str(node.inputs[0].name if node.inputs[0] else "")),
        ranges.get(str(node.outputs[0].name)),
    )
    if before is None or after is None:
        return 0
    return int(np.prod(before.shape, dtype=np.int64)) // max(1, int(np.prod(after.shape, dtype=np.int64)))


def _is_whole_power(node: ir.Node) -> bool:
    """x², x³: a power, and nothing that is divided by."""
    exponent = constant_of(node.inputs[1]) if node.op_type == "Pow" else None
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(())) in (1.0, 2.0, 3.0, 4.0)


def _add_statistics(found: dict[ir.Node, str], root: ir.Node) -> None:
    """From what divides back to the squares of what is averaged."""
    divisor = root.inputs[_DIVISORS[root.op_type]]
    if divisor is None or constant_of(divisor) is not None:
        return
    reason = f"a statistic that {name_of(root)} ({root.op_type}) works on"
    waiting = [divisor.producer()]
    while waiting:
        node = waiting.pop()
        if node is None or node.op_type not in _STATISTICS:
            continue
        _add(found, node, reason)
        if node.op_type in _SUMS:
            square = node.inputs[0].producer() if node.inputs[0] is not None else None
            if square is not None and square.op_type in _SQUARES:
                _add(found, square, reason)
            continue
        waiting += [value.producer() for value in node.inputs if value is not None]


def _add_heads(found: dict[ir.Node, str], graph: ir.Graph) -> None:
    for output in graph.outputs:
        waiting = [output.producer()]
        while waiting:
            node = waiting.pop()
            if node is None or node.op_type in _LINEAR:
                continue
            _add(found, node, f"the head of the output {output.name}")
            # What a Concat or a skip connection joins has its own layers: only a single path is followed.
            computed = [v for v in node.inputs if v is not None and constant_of(v) is None]
            if len(computed) == 1:
                waiting.append(computed[0].producer())


def _add_by_range(found: dict[ir.Node, str], node: ir.Node, ranges: Mapping[str, ValueRange], half: HalfType) -> None:
    for value in node.outputs:
        known = ranges.get(str(value.name))
        if known is not None and known.abs_max * MARGIN > half.largest:
            reason = f"{value.name} reaches {known.abs_max:.3g}, and {half.name} ends at {half.largest:.3g}"
            _add(found, node, reason)
            for reader, _ in value.uses():
                _add(found, reader, reason)
    if node.op_type in _DIVISORS and not _is_whole_power(node):
        divisor = node.inputs[_DIVISORS[node.op_type]]
        known = ranges.get(str(divisor.name)) if divisor is not None else None
        if divisor is not None and known is not None and 0 < known.abs_min < half.smallest_normal:
            _add(found, divisor.producer(), f"{divisor.name} is divided by, and falls to {known.abs_min:.3g}")
    for read in node.inputs:
        constant = constant_of(read)
        if constant is None or constant.dtype != np.float32 or not constant.size:
            continue
        largest = float(np.abs(constant).max())
        if largest > half.largest:
            _add(found, node, f"a constant of {largest:.3g}, and {half.name} ends at {half.largest:.3g}")
        elif constant.size == 1 and 0 < largest < half.smallest_normal:
            _add(
                found, node, f"a constant of {largest:.3g}, and {half.name} is whole down to {half.smallest_normal:.3g}"
            )
            for reader, _ in node.outputs[0].uses():
                _add(found, reader, f"it reads {node.outputs[0].name}, which keeps a constant of {largest:.3g}")
