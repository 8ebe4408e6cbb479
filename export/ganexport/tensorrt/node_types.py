"""Which dtype every tensor of a graph has, as far as the graph says: TensorRT's networks are strongly typed, so this is
what an engine is asked for.

What the file states (inputs, constants, value_info) holds; the rest follows from the operators.
"""

from __future__ import annotations

from collections.abc import Mapping

from ganexport.tensorrt.graph_nodes import DTYPES, Graph, Node, Tensor

_TO_BOOL = {
    "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf",
}  # fmt: skip
_TO_INT64 = {"Shape", "Size", "NonZero", "ArgMax", "ArgMin"}
_RANDOM = {"RandomNormal", "RandomUniform"}
# The input whose dtype is the output's, where it is not the first.
_TYPED_BY = {"Where": 1, "OneHot": 2, "CastLike": 1, "DequantizeLinear": 1}


def types_of(graph: Graph, outside: Mapping[str, str] | None = None) -> dict[str, str]:
    """{tensor: dtype} of a graph, without those that nothing tells.

    Args:
        outside: the same of the graph around it, for graphs in attributes.
    """
    types = dict(outside or {})
    types |= {name: dtype for name, (dtype, _) in graph.known.items() if dtype}
    types |= {name: tensor.dtype for name, tensor in graph.initializers.items()}
    for node in graph.nodes:
        for position, name in enumerate(node.outputs):
            if name and name not in types:
                dtype = _output_type(node, position, types)
                if dtype:
                    types[name] = dtype
    return types


def main_type(node: Node, types: Mapping[str, str]) -> str:
    """The dtype that operator tables speak of: that of the data; of what is made, where nothing goes in."""
    if node.operator in ("Constant", "ConstantOfShape", "EyeLike", *_RANDOM) and node.outputs:
        return types.get(node.outputs[0], "")
    position = 1 if node.operator == "Where" else 0
    return types.get(node.input(position), "") or types.get(node.outputs[0] if node.outputs else "", "")


def _output_type(node: Node, position: int, types: Mapping[str, str]) -> str:
    operator, attributes = node.operator, node.attributes
    if operator == "Cast":
        return DTYPES.get(attributes.get("to", 0), "")
    if operator in _TO_BOOL:
        return "bool"
    if operator in _TO_INT64 or (operator == "TopK" and position == 1):
        return "int64"
    if operator in ("Constant", "ConstantOfShape"):
        return _constant_type(attributes)
    if operator in _RANDOM or (
        operator in ("EyeLike", "RandomNormalLike", "RandomUniformLike") and "dtype" in attributes
    ):
        return DTYPES.get(attributes.get("dtype", 1), "")
    if operator == "QuantizeLinear":
        return types.get(node.input(2), "") or DTYPES.get(attributes.get("output_dtype", 0), "uint8")
    if operator == "DequantizeLinear" and attributes.get("output_dtype"):
        return DTYPES.get(attributes["output_dtype"], "")
    if operator in _TYPED_BY:
        return types.get(node.input(_TYPED_BY[operator]), "")
    if operator in ("If", "Loop", "Scan"):
        return _subgraph_type(node, position, types)
    return next((types[name] for name in node.inputs if name in types), "")


def _constant_type(attributes: Mapping[str, object]) -> str:
    value = attributes.get("value")
    if isinstance(value, Tensor):
        return value.dtype
    if "value_int" in attributes or "value_ints" in attributes:
        return "int64"
    return "string" if "value_string" in attributes or "value_strings" in attributes else "float32"


def _subgraph_type(node: Node, position: int, types: Mapping[str, str]) -> str:
    for value in node.attributes.values():
        if isinstance(value, Graph):
            # A loop's body gives the condition first.
            names = list(value.outputs)[1 if node.operator == "Loop" else 0 :]
            inside = types_of(value, types)
            if position < len(names):
                return inside.get(names[position], "")
    return ""
