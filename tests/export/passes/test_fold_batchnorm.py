"""Rules 1 to 3 of fold_batchnorm."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
import pytest
from hand_made_graphs import graph_of, normal, operators, run

from ganexport.passes.fold_batchnorm import fold_batchnorm

LINEAR = {
    "Conv": (oh.make_node("Conv", ["x", "w"], ["a"], name="linear"), (6, 4, 3, 3), (2, 4, 7, 5)),
    "Conv with bias and groups": (
        oh.make_node("Conv", ["x", "w", "b"], ["a"], name="linear", group=2),
        (6, 2, 3, 3),
        (2, 4, 7, 5),
    ),
    "ConvTranspose": (
        oh.make_node("ConvTranspose", ["x", "w", "b"], ["a"], name="linear", strides=[2, 2]),
        (4, 6, 4, 4),
        (2, 4, 5, 3),
    ),
    "ConvTranspose with groups": (
        oh.make_node("ConvTranspose", ["x", "w", "b"], ["a"], name="linear", strides=[2, 2], group=2),
        (4, 3, 4, 4),
        (2, 4, 5, 3),
    ),
    "Gemm": (oh.make_node("Gemm", ["x", "w", "b"], ["a"], name="linear", transB=1), (6, 4), (5, 4)),
    "Gemm, not transposed": (oh.make_node("Gemm", ["x", "w"], ["a"], name="linear"), (4, 6), (5, 4)),
    "MatMul": (oh.make_node("MatMul", ["x", "w"], ["a"], name="linear"), (4, 6), (5, 4)),
}


def statistics(channels: int = 6) -> dict[str, np.ndarray]:
    """As far from the identity as trained ones, with one variance near zero."""
    variance = np.random.default_rng(4).uniform(0.2, 3, channels).astype(np.float32)
    variance[0] = 1e-6
    return {"s": normal(channels, seed=1), "t": normal(channels, seed=2), "m": normal(channels, seed=3), "v": variance}


def normalisation(**attributes: object) -> object:
    return oh.make_node("BatchNormalization", ["a", "s", "t", "m", "v"], ["y"], name="norm", epsilon=1e-3, **attributes)


@pytest.mark.parametrize("case", LINEAR)
def test_rule_1_folded_into_every_linear_node(case: str) -> None:
    node, weight_shape, input_shape = LINEAR[case]
    constants = {"w": normal(*weight_shape, seed=5), "b": normal(6, seed=6)} | statistics()
    if len(node.input) < 3:
        del constants["b"]
    model = graph_of([node, normalisation()], constants, {"x": ["n", *input_shape[1:]]})
    x = normal(*input_shape, seed=7)
    (before,) = run(model, {"x": x})
    report = fold_batchnorm(model)
    assert report.changed == ["norm into linear"]
    assert report.refused == []
    assert operators(model) == ["Gemm" if node.op_type == "MatMul" else node.op_type]
    (after,) = run(model, {"x": x})
    assert np.abs(before).max() > 1
    np.testing.assert_allclose(after, before, rtol=2e-5, atol=2e-5)


def test_rule_1_the_graph_output_keeps_its_name() -> None:
    node, weight_shape, _ = LINEAR["Conv"]
    model = graph_of([node, normalisation()], {"w": normal(*weight_shape)} | statistics(), {"x": ["n", 4, 7, 5]})
    fold_batchnorm(model)
    assert [o.name for o in model.graph.outputs] == ["y"]


def test_rule_1_refused_where_another_node_reads_the_output() -> None:
    node, weight_shape, _ = LINEAR["Conv"]
    relu = oh.make_node("Relu", ["a"], ["z"])
    model = graph_of(
        [node, normalisation(), relu], {"w": normal(*weight_shape)} | statistics(), {"x": ["n", 4, 7, 5]}, ("y", "z")
    )
    x = normal(2, 4, 7, 5)
    before = run(model, {"x": x})
    report = fold_batchnorm(model)
    assert not report.changed
    assert "also used elsewhere" in report.refused[0].reason
    for a, b in zip(before, run(model, {"x": x}), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rule_2_refused_with_computed_statistics() -> None:
    node, weight_shape, _ = LINEAR["Conv"]
    constants = {"w": normal(*weight_shape)} | statistics()
    mean = oh.make_node("Relu", ["given"], ["m"])
    del constants["m"]
    model = graph_of([mean, node, normalisation()], constants, {"x": ["n", 4, 7, 5], "given": [6]})
    report = fold_batchnorm(model)
    assert not report.changed
    assert "computed" in report.refused[0].reason


@pytest.mark.parametrize("before", ["Relu", None])
def test_rule_3_refused_after_anything_else(before: str | None) -> None:
    nodes = [oh.make_node("Relu", ["x"], ["a"], name="r"), normalisation()]
    if before is None:
        nodes = [oh.make_node("BatchNormalization", ["x", "s", "t", "m", "v"], ["y"], name="norm")]
    model = graph_of(nodes, statistics(), {"x": ["n", 6, 3, 3]})
    report = fold_batchnorm(model)
    assert not report.changed
    assert ("Relu" if before else "an input") in report.refused[0].reason
