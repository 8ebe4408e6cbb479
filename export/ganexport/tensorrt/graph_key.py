"""What an engine is built from, but for the weights: two trainings of one architecture have one key.

An engine whose key is that of a graph can be given that graph's weights without being built anew.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ganexport.tensorrt.graph_nodes import Graph, Model, Tensor, model_from_onnx

_FLOATS = {"float32", "float16", "bfloat16", "float64"}
# Floats that say how a node works, and are no weights: engines are built around their values.
_STRUCTURAL = {
    "Resize": (1, 2), "Upsample": (1,), "Clip": (1, 2), "Pad": (2,), "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2), "Dropout": (1, 2), "OneHot": (2,), "Range": (0, 1, 2),
}  # fmt: skip


def graph_key_from_onnx(data: bytes, name: str = "model.onnx") -> str:
    """SHA-256, 64 hex digits, of opsets, nodes, attributes, names and shapes, without the values of float constants.

    Integers (shapes, axes, quantised weights), quantisation scales and the bounds of Clip, Resize and Pad count: they
    are built into an engine. So int8 graphs of two trainings have two keys.

    Raises:
        BundleIntegrityError: the file is no ONNX model.
    """
    model = model_from_onnx(data, name)
    return hashlib.sha256(repr(_model(model)).encode()).hexdigest()


def _model(model: Model) -> Any:
    functions = sorted((key, _graph(body)) for key, body in model.functions.items())
    return sorted(model.opsets.items()), _graph(model.graph), functions


def _graph(graph: Graph) -> Any:
    structural = {node.input(position) for node in graph.nodes for position in _STRUCTURAL.get(node.operator, ())} - {
        ""
    }
    constants = sorted((name, _tensor(t, name in structural)) for name, t in graph.initializers.items())
    nodes = [
        (
            node.domain,
            node.operator,
            node.inputs,
            node.outputs,
            sorted((k, _value(v, bool(structural & set(node.outputs)))) for k, v in node.attributes.items()),
        )
        for node in graph.nodes
    ]
    return list(graph.inputs.items()), list(graph.outputs.items()), constants, nodes


def _value(value: object, is_structural: bool) -> Any:
    if isinstance(value, Graph):
        return _graph(value)
    return _tensor(value, is_structural) if isinstance(value, Tensor) else value


def _tensor(tensor: Tensor, is_structural: bool) -> Any:
    if tensor.dtype in _FLOATS and not is_structural:
        return tensor.dtype, tensor.shape
    values = tensor.values()
    if values is None:  # a type that NumPy does not have: its bytes as they stand in the file
        content = b"".join(bytes(piece) + str(value).encode() for _, value, piece in tensor.content)
    else:
        content = values.tobytes()
    return tensor.dtype, tensor.shape, hashlib.sha256(content).hexdigest()
