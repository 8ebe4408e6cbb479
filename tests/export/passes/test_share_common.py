"""Each rule of `share_common`: what is merged, and what is not."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
from hand_made_graphs import graph_of, normal, operators, run
from onnx import numpy_helper

from ganexport.passes.share_common import SMALL_ELEMENTS, share_common

X = normal(3, 6)


def test_rule_1_constant_nodes_become_initializers() -> None:
    two = numpy_helper.from_array(np.array(2.0, np.float32))
    nodes = [oh.make_node("Constant", [], ["two"], value=two), oh.make_node("Mul", ["x", "two"], ["y"])]
    model = graph_of(nodes, {}, {"x": ["n", 6]})
    report = share_common(model)
    assert operators(model) == ["Mul"]
    assert report.changed == ["1 Constant node(s) as initializers"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], X * 2)


def test_rule_2_equal_shapes_are_one_and_equal_weights_are_two() -> None:
    weight = normal(6, 6)
    assert weight.size > SMALL_ELEMENTS
    nodes = [
        oh.make_node("MatMul", ["x", "w1"], ["a"]),
        oh.make_node("Reshape", ["a", "s1"], ["b"]),
        oh.make_node("Reshape", ["b", "s2"], ["c"]),
        oh.make_node("MatMul", ["c", "w2"], ["y"]),
    ]
    shape = np.array([-1, 6])
    model = graph_of(nodes, {"w1": weight, "w2": weight.copy(), "s1": shape, "s2": shape.copy()}, {"x": ["n", 6]})
    report = share_common(model)
    assert sorted(model.graph.initializers) == ["s1", "w1", "w2"]
    assert report.changed == ["1 constant(s) that were there twice"]
    np.testing.assert_allclose(run(model, {"x": X})[0], X @ weight @ weight, rtol=1e-4, atol=1e-4)


def test_rule_2_constants_of_other_dtypes_or_shapes_stay() -> None:
    nodes = [oh.make_node("Mul", ["x", "a"], ["m"]), oh.make_node("Add", ["m", "b"], ["y"])]
    one = np.float32(1.5)
    model = graph_of(nodes, {"a": np.array([one]), "b": np.array([[one]])}, {"x": ["n", 6]})
    assert share_common(model).changed == []
    assert sorted(model.graph.initializers) == ["a", "b"]


def test_rule_3_what_is_computed_twice_is_computed_once() -> None:
    nodes = [
        oh.make_node("Tanh", ["x"], ["a"]),
        oh.make_node("Tanh", ["x"], ["b"]),
        oh.make_node("LeakyRelu", ["a"], ["c"], alpha=0.2),
        oh.make_node("LeakyRelu", ["b"], ["d"], alpha=0.3),
        oh.make_node("Add", ["c", "d"], ["y"]),
    ]
    model = graph_of(nodes, {}, {"x": ["n", 6]})
    expected = run(model, {"x": X})[0]
    report = share_common(model)
    assert report.changed == ["1 × Tanh that was computed already"]
    assert sorted(operators(model)) == ["Add", "LeakyRelu", "LeakyRelu", "Tanh"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], expected)


def test_rule_3_two_draws_are_two() -> None:
    nodes = [
        oh.make_node("RandomNormalLike", ["x"], ["a"], seed=1.0),
        oh.make_node("RandomNormalLike", ["x"], ["b"], seed=1.0),
        oh.make_node("Sub", ["a", "b"], ["y"]),
    ]
    model = graph_of(nodes, {}, {"x": ["n", 6]})
    share_common(model)
    assert operators(model).count("RandomNormalLike") == 2


def test_both_outputs_keep_their_names() -> None:
    nodes = [oh.make_node("Tanh", ["x"], ["y"]), oh.make_node("Tanh", ["x"], ["z"])]
    model = graph_of(nodes, {}, {"x": ["n", 6]}, ("y", "z"))
    share_common(model)
    y, z = run(model, {"x": X})
    np.testing.assert_array_equal(y, z)
    assert [o.name for o in model.graph.outputs] == ["y", "z"]
