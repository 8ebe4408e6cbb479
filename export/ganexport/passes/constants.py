"""Constants of a graph: reading them as arrays, adding them, and asking who uses a value."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant_of(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of an initializer or of a Constant node's output; None for anything that is computed or given."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    # An initializer that is also an input may be replaced by a caller at run time.
    if tensor is None or (value is not None and value.is_graph_input()):
        return None
    return tensor.numpy()


def new_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Adds a constant under a name that is not taken yet: NAME, NAME_1, …"""
    unique, number = name, 0
    taken = set(graph.initializers) | {value.name for node in graph.all_nodes() for value in node.outputs}
    taken |= {value.name for value in graph.inputs}
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    value = ir.Value(name=unique, const_value=ir.tensor(array, name=unique))
    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(ir.tensor(array).dtype)
    graph.register_initializer(value)
    return value


def is_used_once(value: ir.Value) -> bool:
    """Whether one node reads the value and the graph does not give it out: only then may its maker change it."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def bypass(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Removes a node and puts `value`, which another makes, in the place of its output; graph outputs keep names."""
    old = node.outputs[0]
    name, is_output = old.name, old.is_graph_output()
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    value.shape, value.type = old.shape, old.type or value.type
    graph.remove(node, safe=True)
    if is_output:
        value.name = name


def integers_of(node: ir.Node, name: str, default: list[int]) -> list[int]:
    """An attribute of integers."""
    attribute = node.attributes.get(name)
    return list(attribute.as_ints()) if attribute is not None else default


def integer_of(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else default


def float_of(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return attribute.as_float() if attribute is not None else default


def string_of(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return attribute.as_string() if attribute is not None else default


def name_of(node: ir.Node) -> str:
    """A node's name for reports; its first output where it has none."""
    return node.name or str(node.outputs[0].name)
