"""Computations on weights alone that ONNX has no operation for, done once by torch and kept as constants.

A flow inverts the weight of its invertible 1×1 convolution at every sample, in float64 where its author was careful,
and takes the logarithm of its determinant (Kingma and Dhariwal, "Glow", 2018, section 3.2); an orthogonal
parametrisation takes a matrix exponential. Where nothing in such a computation comes from an input, it gives the same
every time:

1. What depends on parameters, buffers and constants alone is run, in the order and the dtypes of the program and by the
   operations of the program, so that the constants have the bits of the network's own.
2. Where a matrix function (`_is_matrix_function`) is on the way, the last value before it meets an input is kept as a
   constant. What ONNX can compute stays for the graph passes to fold, who report it.
3. What an input flows into, by an operation or by writing into it, is no constant any more; neither is anything random.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Node

from ganexport.program.place import place_of_node

_NORMS = {"linalg_vector_norm", "linalg_norm", "linalg_matrix_norm", "linalg_cross", "linalg_vecdot"}
_MATRIX_FUNCTIONS = {
    "inverse",
    "pinverse",
    "det",
    "logdet",
    "slogdet",
    "matrix_exp",
    "matrix_power",
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "triangular_solve",
    "lu_solve",
    "lu_unpack",
    "qr",
    "svd",
}


def bake_constants(program: torch.export.ExportedProgram) -> list[str]:
    """Does what the module says, in place.

    Returns:
        The places of the matrix functions that are constants now.
    """
    module = program.graph_module
    graph = module.graph
    if not any(_is_matrix_function(node) for node in graph.nodes):
        return []
    constants = _Constants(program)
    places: list[str] = []
    functions: dict[Node, bool] = {}  # constant nodes: whether a matrix function is on their way
    for node in graph.nodes:
        if constants.run(node):
            functions[node] = _is_matrix_function(node) or any(functions.get(n, False) for n in node.all_input_nodes)
            if _is_matrix_function(node):
                places.append(str(place_of_node(node)))
    last = [
        node
        for node, baked in functions.items()
        if baked and constants.holds(node) and any(user not in functions for user in node.users)
    ]
    first = next(iter(graph.nodes))
    specs = program.graph_signature.input_specs
    for i, node in enumerate(last):
        name = f"baked_{i}"
        # A buffer, as the network's own are: PyTorch before 2.13 takes other constants for inputs of its caller.
        program.state_dict[name] = constants.values[node].detach().clone().contiguous()
        with graph.inserting_before(first):
            constant = graph.placeholder(name)
        specs.insert(i, InputSpec(InputKind.BUFFER, TensorArgument(name), name, persistent=True))
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
    if last:
        # Assertions about constants, which hold: they were run. They would keep what they ask about alive.
        for node in functions:
            if constants.values.get(node, node) is None and not node.users:
                graph.erase_node(node)
        graph.eliminate_dead_code()
        module.recompile()
    return places


def _is_matrix_function(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    name = node.target._schema.name.rpartition("::")[2].removeprefix("_")
    return name in _MATRIX_FUNCTIONS or (name.startswith("linalg_") and name not in _NORMS)


class _Constants:
    """The values of what no input flows into, one after the other. Weights are copied: the program keeps its own."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        signature = program.graph_signature
        held = {**program.state_dict, **program.constants}
        named = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self._module = program.graph_module
        self._weights = {name: held[target] for name, target in named.items()}
        self.values: dict[Node, Any] = {}
        self._written: set[int | None] = set()

    def holds(self, node: Node) -> bool:
        """Whether the node is one tensor, and the same whenever it is read."""
        value = self.values.get(node)
        return isinstance(value, Tensor) and _memory(value) not in self._written

    def run(self, node: Node) -> bool:
        """Computes a node where it is a constant. Nodes come in the program's order, for some write into others."""
        if node.op == "placeholder":
            weight = self._weights.get(node.name)
            if isinstance(weight, Tensor):
                self.values[node] = weight.detach().clone()
        elif node.op == "get_attr":
            value = getattr(self._module, str(node.target), None)
            if isinstance(value, Tensor):
                self.values[node] = value.detach().clone()
        elif node.op == "call_function":
            self._call(node)
        return node in self.values

    def _call(self, node: Node) -> None:
        target: Any = node.target
        if target is not operator.getitem and not isinstance(target, torch._ops.OpOverload):
            return
        writes = isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
        random = isinstance(target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in target.tags
        if random or not all(n in self.values for n in node.all_input_nodes):
            if writes:
                self._forget(node)
            return
        if writes:
            self._written |= {_memory(self.values[n]) for n in node.all_input_nodes}
        arguments: Any = torch.fx.node.map_arg(node.args, self.values.__getitem__)
        keywords: Any = torch.fx.node.map_arg(node.kwargs, self.values.__getitem__)
        with torch.no_grad():
            self.values[node] = target(*arguments, **keywords)

    def _forget(self, node: Node) -> None:
        """An input was written into what these arguments share their memory with."""
        written = {_memory(self.values[n]) for n in node.all_input_nodes if n in self.values}
        self.values = {n: v for n, v in self.values.items() if _memory(v) is None or _memory(v) not in written}


def _memory(value: Any) -> int | None:
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else None
