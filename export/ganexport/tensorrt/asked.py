"""Which precision a typed graph asks of each of its nodes: what an engine's layers are held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ganexport.tensorrt.graph_nodes import Graph, Node, model_from_onnx
from ganexport.tensorrt.node_types import types_of

# Integers and booleans are indices, shapes and masks: of them no precision is asked.
_PRECISIONS = {
    "float32": "fp32", "float64": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8",
    "float8e4m3fn": "fp8",
}  # fmt: skip
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Asked:
    """What a graph asks.

    Attributes:
        nodes: {node name: the precisions of the tensors that it touches}.
        products: {name of a node that multiplies: the precision in which it must do so}.
        anywhere: every precision in the graph.
    """

    nodes: Mapping[str, frozenset[str]]
    products: Mapping[str, str]
    anywhere: frozenset[str]

    def of(self, names: Iterable[str]) -> frozenset[str]:
        """What is asked of a layer that is made of these nodes; `anywhere` where one of them is not known."""
        names = list(names)
        if not names or any(name not in self.nodes for name in names):
            return self.anywhere
        return frozenset().union(*(self.nodes[name] for name in names))


def asked_of_graph(data: bytes, name: str = "model.onnx") -> Asked:
    """Reads what a graph asks. Raises `BundleIntegrityError` where the file is no ONNX model."""
    model = model_from_onnx(data, name)
    nodes: dict[str, frozenset[str]] = {}
    products: dict[str, str] = {}
    outer = types_of(model.graph)
    for graph in model.graphs():
        types = outer if graph is model.graph else types_of(graph, outer)
        for node in graph.nodes:
            touched = {types.get(t, "") for t in (*node.inputs, *node.outputs)} | _quantised(node, graph, types)
            precisions = frozenset(_PRECISIONS[t] for t in touched if t in _PRECISIONS)
            nodes[node.name] = nodes.get(node.name, frozenset()) | precisions
            if node.operator in _HEAVY:
                products[node.name] = _product(node, graph, types)
    nodes.pop("", None)
    products.pop("", None)
    return Asked(nodes, products, frozenset().union(*nodes.values()))


def _quantised(node: Node, graph: Graph, types: Mapping[str, str]) -> set[str]:
    """The types beyond the Q/DQ nodes around a node, which TensorRT fuses into it."""
    before = [graph.producers.get(name) for name in node.inputs]
    found = {types.get(n.input(0), "") for n in before if n is not None and n.operator == "DequantizeLinear"}
    for name in node.outputs:
        for after in graph.consumers.get(name, ()):
            if after.operator == "QuantizeLinear":
                found.add(types.get(after.outputs[0], ""))
    return found


def _product(node: Node, graph: Graph, types: Mapping[str, str]) -> str:
    sources = [graph.producers.get(node.input(position)) for position in (0, 1)]
    quantised = [n for n in sources if n is not None and n.operator == "DequantizeLinear"]
    dtype = types.get(quantised[0].input(0) if len(quantised) == 2 else node.input(0), "")
    return _PRECISIONS.get(dtype, "")
