"""Each rule of `simplify`: what goes, what stays, and that the numbers are the same to the last bit."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
import pytest
from hand_made_graphs import Array, graph_of, normal, operators, run
from onnx import NodeProto

from ganexport.passes.prune import prune
from ganexport.passes.simplify import simplify

X = normal(3, 4, 6, 5)
SHAPE: list[object] = ["n", 4, 6, 5]


def simplified(nodes: list[NodeProto], constants: dict[str, Array], shape: list[object], x: Array) -> list[str]:
    """Operators after `simplify` and `prune`, whose outputs were shown to be equal; constants are none."""
    model = graph_of(nodes, constants, {"x": shape})
    before = run(model, {"x": x})
    report = simplify(model)
    prune(model)
    after_nodes = [operator for operator in operators(model) if operator != "Constant"]
    np.testing.assert_array_equal(run(model, {"x": x})[0], before[0])
    assert bool(report.changed) == (len(after_nodes) < len(nodes) or "Reshape" in after_nodes)
    return after_nodes


@pytest.mark.parametrize(
    ("operator", "number", "constant_first"),
    [
        ("Mul", 1.0, False),
        ("Mul", 1.0, True),
        ("Div", 1.0, False),
        ("Add", 0.0, False),
        ("Add", 0.0, True),
        ("Sub", 0.0, False),
    ],
)
def test_rule_1_arithmetic_that_does_nothing(operator: str, number: float, constant_first: bool) -> None:
    inputs = ["c", "x"] if constant_first else ["x", "c"]
    nodes = [oh.make_node(operator, inputs, ["m"]), oh.make_node("Relu", ["m"], ["y"])]
    assert simplified(nodes, {"c": np.array(number, np.float32)}, SHAPE, X) == ["Relu"]


@pytest.mark.parametrize(
    ("operator", "number"),
    [
        ("Mul", 1.5),
        ("Add", 1.0),
        ("Sub", 1.0),
        ("Div", 2.0),
        # Near is not equal: an epsilon under a root, and a gain that was trained.
        ("Add", 1e-8),
        ("Sub", 1e-9),
        ("Mul", 1.000001),
        ("Div", 0.999995),
    ],
)
def test_rule_1_arithmetic_that_does_something_stays(operator: str, number: float) -> None:
    nodes = [oh.make_node(operator, ["x", "c"], ["m"]), oh.make_node("Relu", ["m"], ["y"])]
    assert simplified(nodes, {"c": np.array(number, np.float32)}, SHAPE, X) == [operator, "Relu"]


def test_rule_1_transposes_that_change_nothing() -> None:
    nodes = [oh.make_node("Transpose", ["x"], ["m"], perm=[0, 1, 2, 3]), oh.make_node("Relu", ["m"], ["y"])]
    assert simplified(nodes, {}, SHAPE, X) == ["Relu"]


def test_rule_2_there_and_back_again() -> None:
    nodes = [
        oh.make_node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
        oh.make_node("Transpose", ["a"], ["b"], perm=[0, 3, 1, 2]),
        oh.make_node("Relu", ["b"], ["y"]),
    ]
    assert simplified(nodes, {}, SHAPE, X) == ["Relu"]


def test_rule_2_two_transposes_as_one() -> None:
    nodes = [
        oh.make_node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
        oh.make_node("Transpose", ["a"], ["y"], perm=[0, 2, 1, 3]),
    ]
    assert simplified(nodes, {}, SHAPE, X) == ["Transpose"]


def test_rule_2_two_unsqueezes_as_one() -> None:
    nodes = [oh.make_node("Unsqueeze", ["x", "two"], ["a"]), oh.make_node("Unsqueeze", ["a", "three"], ["y"])]
    constants = {"two": np.array([2]), "three": np.array([3])}
    assert simplified(nodes, constants, ["n", 7], normal(3, 7)) == ["Unsqueeze"]


def test_rule_2_two_reshapes_as_one() -> None:
    nodes = [oh.make_node("Reshape", ["x", "flat"], ["a"]), oh.make_node("Reshape", ["a", "map"], ["y"])]
    constants = {"flat": np.array([-1, 120]), "map": np.array([-1, 8, 15])}
    assert simplified(nodes, constants, SHAPE, X) == ["Reshape"]


def test_rule_3_a_target_that_is_known_but_for_the_batch() -> None:
    nodes = [
        oh.make_node("Shape", ["x"], ["shape"], start=0, end=1),
        oh.make_node("Concat", ["shape", "rest"], ["target"], axis=0),
        oh.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    model = graph_of(nodes, {"rest": np.array([24, 5])}, {"x": SHAPE})
    # What shape inference of an exporter knows of the output.
    import onnx_ir as ir

    model.graph.outputs[0].shape = ir.Shape(["n", 24, 5])
    expected = run(model, {"x": X})[0]
    assert simplify(model).changed == ["1 × computed target of a Reshape"]
    prune(model)
    assert operators(model) in (["Reshape"], ["Constant", "Reshape"])
    for batch in (1, 3, 7):
        x = normal(batch, 4, 6, 5)
        np.testing.assert_array_equal(run(model, {"x": x})[0], x.reshape(batch, 24, 5))
    assert expected.shape == (3, 24, 5)


def test_rule_4_zeros_before_a_convolution() -> None:
    nodes = [
        oh.make_node("Pad", ["x", "pads"], ["a"], mode="constant"),
        oh.make_node("Conv", ["a", "w"], ["y"], kernel_shape=[3, 3], pads=[0, 0, 0, 0]),
    ]
    constants = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": normal(2, 4, 3, 3)}
    assert simplified(nodes, constants, SHAPE, X) == ["Conv"]


def test_rule_4_ones_before_a_convolution_stay() -> None:
    nodes = [
        oh.make_node("Pad", ["x", "pads", "one"], ["a"], mode="constant"),
        oh.make_node("Conv", ["a", "w"], ["y"], kernel_shape=[3, 3], pads=[0, 0, 0, 0]),
    ]
    constants: dict[str, Array] = {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "one": np.array(1.0, np.float32),
        "w": normal(2, 4, 3, 3),
    }
    assert simplified(nodes, constants, SHAPE, X) == ["Pad", "Conv"]


def test_what_is_not_exact_is_not_taken() -> None:
    """A float rounded to half and widened again is another float."""
    nodes = [
        oh.make_node("Cast", ["x"], ["a"], to=10),
        oh.make_node("Cast", ["a"], ["b"], to=1),
        oh.make_node("Cast", ["b"], ["c"], to=16),
        oh.make_node("Cast", ["c"], ["y"], to=1),
    ]
    assert simplified(nodes, {}, SHAPE, X) == ["Cast"] * 4


def test_a_bias_of_zeros_stays_for_the_next_training() -> None:
    nodes = [oh.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3])]
    model = graph_of(nodes, {"w": normal(2, 4, 3, 3), "b": np.zeros(2, np.float32)}, {"x": SHAPE})
    assert simplify(model).changed == []
    assert len([i for i in next(iter(model.graph)).inputs if i is not None]) == 3
