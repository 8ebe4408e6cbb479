"""Arithmetic that does nothing, as rewrite rules: x · 1, x / 1, x + 0 and x - 0, for numbers that are exactly these.

onnxscript's own rules of these names take a number within 1e-8 or one part in 100,000 for the one of the pattern: the
epsilon of a root would leave the graph, and a gain of 1.000001 with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import RewriteRule


def _rule(operator: str, number: float) -> RewriteRule:
    def pattern(op: Any, x: ir.Value, number: ir.Value) -> Any:
        return getattr(op, operator)(x, number)

    def replacement(op: Any, x: ir.Value, number: ir.Value) -> Any:
        return op.Identity(x)

    return RewriteRule(pattern, replacement, _is_exactly(number))


def _is_exactly(expected: float) -> Callable[..., bool]:
    def condition(context: Any, number: ir.Value, **_: Any) -> bool:
        constant = number.const_value
        # One of rank 0: of a higher rank than x it would give the result more dimensions.
        return constant is not None and constant.shape.rank() == 0 and float(constant.numpy()) == expected

    return condition


MUL_BY_1, DIV_BY_1 = _rule("Mul", 1.0), _rule("Div", 1.0)
ADD_0, SUB_0 = _rule("Add", 0.0), _rule("Sub", 0.0)
