"""An activation beside its convolution, before what only moves values: there backends compute both in one.

The sub-pixel form leaves DepthToSpace and Slice between the two, and a network that was written in that form has them
there from the start. A node more is a microsecond or two, which counts where a whole network takes sixty.

1. Relu, LeakyRelu, Sigmoid or Tanh after DepthToSpace and Slice, in any order and number, after a Conv: it comes before
   them. They move the same values as before, and those that a Slice drops are computed as well.
2. A value between the two that is read elsewhere, or given out: refused.
3. An activation after a Conv already, or after anything else: none of its business.
"""

from __future__ import annotations

import onnx_ir as ir

from ganexport.passes.constants import is_used_once, name_of
from ganexport.passes.report import PassReport

_ACTIVATIONS = ("Relu", "LeakyRelu", "Sigmoid", "Tanh")
_MOVES = ("DepthToSpace", "Slice")


def activation_first(model: ir.Model) -> PassReport:
    """Moves every such activation."""
    report = PassReport("activation_first")
    for node in list(model.graph):
        if node.op_type not in _ACTIVATIONS:
            continue
        moves = _moves_before(node)
        first = moves[0].inputs[0] if moves else None
        conv = first.producer() if first is not None else None
        if first is None or conv is None or conv.op_type != "Conv":
            continue
        if not all(is_used_once(value) for value in (first, *(move.outputs[0] for move in moves))):
            report.refuse(name_of(node), f"a value between it and {name_of(conv)} is also used elsewhere")
            continue
        _rewrite(model.graph, node, moves, first)
        report.changed.append(f"{name_of(node)} to {name_of(conv)}, before {' and '.join(m.op_type for m in moves)}")
    return report


def _moves_before(node: ir.Node) -> list[ir.Node]:
    """What moves values right before a node, in the order in which it runs."""
    moves: list[ir.Node] = []
    source = node.inputs[0]
    while source is not None and (maker := source.producer()) is not None and maker.op_type in _MOVES:
        moves.insert(0, maker)
        source = maker.inputs[0]
    return moves


def _rewrite(graph: ir.Graph, node: ir.Node, moves: list[ir.Node], first: ir.Value) -> None:
    activation = ir.Node("", node.op_type, [first], list(node.attributes.values()), name=node.name)
    made, value = [activation], activation.outputs[0]
    value.name, value.shape, value.type = f"{first.name}_{node.op_type.lower()}", first.shape, first.type
    for move in moves:
        made.append(
            ir.Node("", move.op_type, [value, *move.inputs[1:]], list(move.attributes.values()), name=move.name)
        )
        old, value = move.outputs[0], made[-1].outputs[0]
        value.name, value.shape, value.type = old.name, old.shape, old.type
    old = node.outputs[0]
    value.name, value.shape, value.type = old.name, old.shape, old.type
    ir.convenience.replace_nodes_and_values(graph, node, [node, *reversed(moves)], made, [old], [value])
