"""Rules 1 to 5 of prune."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
from hand_made_graphs import graph_of, normal, operators, run

from ganexport.passes.prune import prune

X = normal(2, 6)


def test_rules_1_to_3_are_bypassed() -> None:
    nodes = [
        oh.make_node("Identity", ["x"], ["a"]),
        oh.make_node("Dropout", ["a", "ratio"], ["b"]),
        oh.make_node("Cast", ["b"], ["c"], to=1),
        oh.make_node("Relu", ["c"], ["d"]),
        oh.make_node("Reshape", ["d", "same"], ["e"]),
        oh.make_node("Reshape", ["e", "other"], ["y"]),
    ]
    constants = {"ratio": np.float32(0.5), "same": np.array([2, 6]), "other": np.array([3, 4])}
    model = graph_of(nodes, constants, {"x": [2, 6]})
    (before,) = run(model, {"x": X})
    prune(model)
    assert operators(model) == ["Relu", "Reshape"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], before)


def test_rule_1_dropout_in_training_mode_stays() -> None:
    node = oh.make_node("Dropout", ["x", "ratio", "training"], ["y"])
    model = graph_of([node], {"ratio": np.float32(0.5), "training": np.array(True)}, {"x": [2, 6]})
    prune(model)
    assert operators(model) == ["Dropout"]


def test_rule_1_dropout_whose_mask_is_read_stays() -> None:
    nodes = [
        oh.make_node("Dropout", ["x"], ["a", "mask"]),
        oh.make_node("Cast", ["mask"], ["m"], to=1),
        oh.make_node("Mul", ["a", "m"], ["y"]),
    ]
    model = graph_of(nodes, {}, {"x": [2, 6]})
    prune(model)
    assert operators(model) == ["Dropout", "Cast", "Mul"]


def test_rule_3_a_reshape_of_a_free_dimension_stays() -> None:
    model = graph_of([oh.make_node("Reshape", ["x", "s"], ["y"])], {"s": np.array([-1, 6])}, {"x": ["n", 6]})
    prune(model)
    assert operators(model) == ["Reshape"]


def test_rule_4_what_nobody_reads_is_removed() -> None:
    nodes = [oh.make_node("Relu", ["x"], ["y"]), oh.make_node("MatMul", ["x", "w"], ["dead"])]
    model = graph_of(nodes, {"w": normal(6, 6)}, {"x": ["n", 6]})
    report = prune(model)
    assert operators(model) == ["Relu"]
    assert list(model.graph.initializers) == []
    assert report.changed == ["1 unused node(s), 1 unused constant(s)"]


def test_rule_5_an_input_handed_through_keeps_both_names() -> None:
    model = graph_of([oh.make_node("Identity", ["x"], ["y"], name="through")], {}, {"x": ["n", 6]})
    report = prune(model)
    assert operators(model) == ["Identity"]
    assert report.refused[0].node == "through"
    np.testing.assert_array_equal(run(model, {"x": X})[0], X)


def test_outputs_keep_their_names() -> None:
    nodes = [oh.make_node("Relu", ["x"], ["a"]), oh.make_node("Identity", ["a"], ["y"])]
    model = graph_of(nodes, {}, {"x": ["n", 6]})
    prune(model)
    assert operators(model) == ["Relu"]
    assert [o.name for o in model.graph.outputs] == ["y"]
    np.testing.assert_array_equal(run(model, {"x": X})[0], np.maximum(X, 0))
