"""Calls of the file's own functions, replaced by what they do."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
from hand_made_graphs import normal, operators, run
from onnx import TensorProto

from ganexport.passes.inline_functions import inline_functions
from ganexport.passes.pipeline import count_nodes

X = normal(3, 6)


def with_functions() -> ir.Model:
    """y = scaled(scaled(x)), where scaled calls double: x ↦ tanh(x + x)."""
    imports = [oh.make_opsetid("", 18), oh.make_opsetid("ours", 1)]
    double = oh.make_function("ours", "double", ["a"], ["b"], [oh.make_node("Add", ["a", "a"], ["b"])], imports)
    body = [oh.make_node("double", ["a"], ["t"], domain="ours"), oh.make_node("Tanh", ["t"], ["b"])]
    scaled = oh.make_function("ours", "scaled", ["a"], ["b"], body, imports)
    unused = oh.make_function("ours", "unused", ["a"], ["b"], [oh.make_node("Neg", ["a"], ["b"])], imports)
    graph = oh.make_graph(
        [
            oh.make_node("scaled", ["x"], ["t"], domain="ours", name="first"),
            oh.make_node("scaled", ["t"], ["y"], domain="ours", name="second"),
        ],
        "small",
        [oh.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [oh.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])],
    )
    model = oh.make_model(graph, opset_imports=imports, ir_version=10, functions=[double, scaled, unused])
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def test_rule_1_calls_of_calls_become_operators() -> None:
    model = with_functions()
    assert count_nodes(model) == 2 + 1 + 2 + 1
    report = inline_functions(model)
    assert operators(model) == ["Add", "Tanh", "Add", "Tanh"]
    assert not model.functions
    assert report.changed == ["3 function(s): double, scaled, unused"]
    assert count_nodes(model) == 4
    np.testing.assert_allclose(run(model, {"x": X})[0], np.tanh(2 * np.tanh(2 * X)), atol=1e-6)


def test_rule_2_names_stay_unique() -> None:
    model = with_functions()
    inline_functions(model)
    names = [value.name for node in model.graph for value in node.outputs]
    assert len(set(names)) == len(names)
    assert [o.name for o in model.graph.outputs] == ["y"]


def test_a_graph_without_functions_is_left_alone() -> None:
    model = with_functions()
    inline_functions(model)
    assert inline_functions(model).changed == []
