"""Operator signatures: which inputs and outputs of a node take a half type, in which operator set."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ganexport.precision.rounding import HalfType


@dataclass(frozen=True)
class Signature:
    """Of one node.

    inputs, outputs: the type strings, one per value: `tensor(float)` where it is fixed, else a variable such as `T`.
    allowed: {variable: the types that it may be}.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    allowed: dict[str, frozenset[str]]

    def takes(self, variable: str, type_text: str) -> bool:
        return type_text in self.allowed.get(variable, frozenset({variable}))

    def is_fixed_float(self, variable: str) -> bool:
        """Whether a value of this type is float32 in every typed graph, such as the scales of a Resize."""
        return self.takes(variable, "tensor(float)") and not self.takes(variable, "tensor(float16)")


def signature_of(node: ir.Node, opset: int) -> Signature | None:
    """None for an operator that ONNX does not define."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "" if node.domain == "ai.onnx" else node.domain)
    except onnx.defs.SchemaError:
        return None
    allowed = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    return Signature(
        _spread([f.type_str for f in schema.inputs], len(node.inputs)),
        _spread([f.type_str for f in schema.outputs], len(node.outputs)),
        allowed,
    )


def _spread(formal: list[str], count: int) -> tuple[str, ...]:
    """The last formal parameter of a variadic operator stands for all further ones."""
    return tuple(formal[min(i, len(formal) - 1)] for i in range(count)) if formal else ("",) * count


def half_problem(node: ir.Node, half: HalfType, opset: int) -> str | None:
    """Why the node cannot be of the half type, or None where it can."""
    signature = signature_of(node, opset)
    if signature is None:
        return f"{node.domain}.{node.op_type} is not an ONNX operator"
    variables = [v for v in (*signature.inputs, *signature.outputs) if signature.takes(v, "tensor(float)")]
    free = [v for v in variables if not signature.is_fixed_float(v)]
    if not free:
        return f"{node.op_type} is float32 in ONNX"
    if not all(signature.takes(v, half.type_text) for v in free):
        return f"operator set {opset} has no {node.op_type} in {half.name}"
    return None
