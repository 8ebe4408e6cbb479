"""Moves of data that cancel out, and arithmetic that does nothing, by onnxscript's rewrite rules.

1. x · 1, x / 1, x + 0, x - 0; Expand, Transpose and ScatterND that change nothing: an Identity, for `prune` to remove.
2. Reshape, Transpose or Unsqueeze twice in a row; a Slice whose parts are all taken: one node.
3. A Reshape whose computed target is known but for one dimension: a constant target, and the arithmetic that computed
   it is left to `prune`.
4. Reshapes around a MatMul that it does not need, and zeros padded before a Conv, which pads itself.

Not taken of onnxscript's rules: two Casts as one, which rounds once less than the graph says, so it is not exact; and
what depends on the values of weights, such as a bias of zeros: two trainings of one network are to have one graph, or
an engine of the one could not be refitted with the weights of the other.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.rewriter import RewriteRule, RewriteRuleSet
from onnxscript.rewriter.rules import common as rules

from ganexport.passes import no_op_arithmetic
from ganexport.passes.report import PassReport

# In onnxscript's own order, where it says that the order matters: the larger pattern first.
RULES: dict[str, RewriteRule] = {
    "x · 1": no_op_arithmetic.MUL_BY_1,
    "x + 0": no_op_arithmetic.ADD_0,
    "x - 0": no_op_arithmetic.SUB_0,
    "x / 1": no_op_arithmetic.DIV_BY_1,
    "Reshape, MatMul, Reshape": rules.two_reshapes_matmul_reshape_rule,
    "Reshape, MatMul": rules.one_reshape_matmul_reshape_rule,
    "Expand to the same shape": rules.no_op_expand_rule,
    "Transpose to the same order": rules.no_op_transpose_rule,
    "Transpose twice": rules.transpose_transpose_rule,
    "Unsqueeze twice": rules.unsqueeze_unsqueeze_rule,
    "Squeeze and Reshape of one dimension": rules.squeeze_reshape_1d_rule,
    "Slice of everything": rules.collapse_slice_rule,
    "Slice of as much as there is": rules.collapse_slice2_rule,
    "Slices that split": rules.slice_split_rule,
    "ScatterND over everything": rules.no_op_static_scatter_nd_rule,
    "ScatterND over everything, computed": rules.no_op_dynamic_scatter_nd_rule,
    "computed target of a Reshape": rules.materialize_reshape_shape_rule,
    "Reshape twice": rules.reshape_reshape_rule,
    "zeros padded before a Conv": rules.fuse_pad_into_conv_rule,
}
_COMMUTING = ("x · 1", "x + 0")
_MOST_ROUNDS = 8  # a rule may make room for another; each round that changes something makes the graph smaller


def simplify(model: ir.Model) -> PassReport:
    report = PassReport("simplify")
    counts: dict[str, int] = {}
    for _ in range(_MOST_ROUNDS):
        found = {
            name: RewriteRuleSet([rule], commute=name in _COMMUTING).apply_to_model(model)
            for name, rule in RULES.items()
        }
        counts = {name: counts.get(name, 0) + count for name, count in found.items()}
        if not any(found.values()):
            break
    report.changed += [f"{count} × {name}" for name, count in counts.items() if count]
    return report
