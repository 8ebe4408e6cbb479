"""What inference does not need: identities, dropout, casts to the same dtype, and whatever nobody reads.

1. Identity, and Dropout outside training mode whose mask nobody reads: bypassed.
2. Cast to the dtype that the value has already: bypassed.
3. Reshape to exactly the shape that the value has, all of it known: bypassed.
4. Nodes and constants that no output depends on, functions that nothing calls, and operator sets of neither: removed.
5. An input of the graph that is handed to an output unchanged stays behind an Identity: both names are promised.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from ganexport.passes.constants import bypass, constant_of, integer_of, name_of
from ganexport.passes.report import PassReport


def prune(model: ir.Model) -> PassReport:
    report = PassReport("prune")
    graph = model.graph
    for node in list(graph):
        reason = _needless(node)
        source = node.inputs[0] if node.inputs else None
        if reason is None or source is None:
            continue
        if node.outputs[0].is_graph_output() and (source.is_graph_output() or source.producer() is None):
            report.refuse(name_of(node), "it gives an input, a constant or another output its second name")
            continue
        bypass(graph, node, source)
        report.changed.append(f"{name_of(node)}: {reason}")
    before_nodes, before_constants = len(list(graph)), len(graph.initializers)
    RemoveUnusedNodesPass()(model)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    RemoveUnusedOpsetsPass()(model)
    nodes, constants = before_nodes - len(list(graph)), before_constants - len(graph.initializers)
    unused = [f"{count} unused {what}" for count, what in ((nodes, "node(s)"), (constants, "constant(s)")) if count]
    if unused:
        report.changed.append(", ".join(unused))
    return report


def _needless(node: ir.Node) -> str | None:
    """Why a node does nothing, or None."""
    if node.domain not in ("", "ai.onnx") or any(o.uses() for o in node.outputs[1:]):
        return None
    source = node.inputs[0] if node.inputs else None
    if source is None:
        return None
    if node.op_type == "Identity":
        return "Identity"
    if node.op_type == "Dropout":
        mode = constant_of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
        training = len(node.inputs) > 2 and node.inputs[2] is not None and (mode is None or bool(mode))
        return None if training else "Dropout in inference"
    if node.op_type == "Cast" and source.dtype is not None and integer_of(node, "to", 0) == source.dtype.value:
        return f"Cast of {source.dtype.name} to itself"
    if node.op_type == "Reshape" and source.shape is not None and source.shape.is_static():
        target = constant_of(node.inputs[1])
        if target is not None and [int(d) for d in target] == [int(d) for d in source.shape.numpy()]:
            return "Reshape to the same shape"
    return None
