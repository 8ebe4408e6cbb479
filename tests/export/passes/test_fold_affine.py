"""Rules 1 to 4 of fold_affine."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
import pytest
from hand_made_graphs import graph_of, normal, operators, run

from ganexport.passes.fold_affine import fold_affine

CONV = oh.make_node("Conv", ["x", "w"], ["a"], name="linear")
WEIGHT = normal(6, 4, 3, 3, seed=1)
X = normal(2, 4, 6, 6, seed=2)


@pytest.mark.parametrize("op", ["Mul", "Div", "Add", "Sub"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1)])
@pytest.mark.parametrize("constant_first", [False, True])
def test_rules_1_to_3(op: str, shape: tuple[int, ...], constant_first: bool) -> None:
    constant = normal(*shape, seed=3) + np.float32(2)
    inputs = ["c", "a"] if constant_first else ["a", "c"]
    model = graph_of(
        [CONV, oh.make_node(op, inputs, ["y"], name="affine")], {"w": WEIGHT, "c": constant}, {"x": ["n", 4, 6, 6]}
    )
    (before,) = run(model, {"x": X})
    report = fold_affine(model)
    # A constant over or minus a value is not affine in the weights.
    if constant_first and op in ("Div", "Sub"):
        assert not report.changed
        assert operators(model) == ["Conv", op]
    else:
        assert operators(model) == ["Conv"]
    (after,) = run(model, {"x": X})
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_a_chain_is_folded_whole() -> None:
    nodes = [
        CONV,
        oh.make_node("Mul", ["a", "gain"], ["b"], name="gain_node"),
        oh.make_node("Add", ["b", "shift"], ["c"], name="shift_node"),
        oh.make_node("Div", ["c", "gain"], ["y"], name="divide"),
    ]
    constants = {"w": WEIGHT, "gain": np.float32(3), "shift": normal(6, 1, 1)}
    model = graph_of(nodes, constants, {"x": ["n", 4, 6, 6]})
    (before,) = run(model, {"x": X})
    assert len(fold_affine(model).changed) == 3
    assert operators(model) == ["Conv"]
    np.testing.assert_allclose(run(model, {"x": X})[0], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(6,), (6, 6), (1, 1, 6, 1), (2, 6, 1, 1)])
def test_rule_4_refused_along_another_dimension(shape: tuple[int, ...]) -> None:
    constants = {"w": WEIGHT, "c": normal(*shape)}
    x = X[:, :, :, :]
    conv = oh.make_node("Conv", ["x", "w"], ["a"], name="linear", pads=[1, 1, 1, 1])
    model = graph_of([conv, oh.make_node("Mul", ["a", "c"], ["y"], name="affine")], constants, {"x": [2, 4, 6, 6]})
    (before,) = run(model, {"x": x})
    report = fold_affine(model)
    assert not report.changed
    assert "per channel" in report.refused[0].reason
    np.testing.assert_array_equal(run(model, {"x": x})[0], before)


def test_rule_4_refused_where_another_node_reads_the_output() -> None:
    nodes = [CONV, oh.make_node("Mul", ["a", "c"], ["y"], name="affine"), oh.make_node("Relu", ["a"], ["z"])]
    model = graph_of(nodes, {"w": WEIGHT, "c": np.float32(2)}, {"x": ["n", 4, 6, 6]}, ("y", "z"))
    report = fold_affine(model)
    assert not report.changed
    assert "also used elsewhere" in report.refused[0].reason


def test_division_by_zero_is_left_to_divide_by_zero() -> None:
    model = graph_of(
        [CONV, oh.make_node("Div", ["a", "c"], ["y"], name="d")],
        {"w": WEIGHT, "c": np.float32(0)},
        {"x": ["n", 4, 6, 6]},
    )
    report = fold_affine(model)
    assert not report.changed
    assert "divides by zero" in report.refused[0].reason
