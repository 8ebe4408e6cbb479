"""Rules 1 to 4 of fuse_clamp, over values on both sides of every bound, and NaN."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import pytest
from hand_made_graphs import graph_of, operators, run

from ganexport.passes.fuse_clamp import fuse_clamp

X = np.array([-np.inf, -7, -1, -0.5, -0.0, 0, 0.3, 1, 2, 9, np.inf, np.nan], np.float32)
BOUNDS = {"zero": np.float32(0), "one": np.float32(1), "two": np.float32(2), "minus": np.float32(-1), "vector": X[:1]}


def node(op: str, *inputs: str, out: str, name: str) -> onnx.NodeProto:
    return oh.make_node(op, list(inputs), [out], name=name)


def fused(nodes: list[onnx.NodeProto]) -> list[str]:
    """Runs the pass, holds it against the graph before, and returns the operators left."""
    model = graph_of(nodes, BOUNDS, {"x": ["n"]})
    (before,) = run(model, {"x": X})
    fuse_clamp(model)
    (after,) = run(model, {"x": X})
    np.testing.assert_array_equal(after, before)
    return operators(model)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Max", "x", "zero", out="a", name="1"), node("Min", "a", "one", out="y", name="2")],
        [node("Min", "one", "x", out="a", name="1"), node("Max", "minus", "a", out="y", name="2")],
        [node("Clip", "x", "zero", "two", out="a", name="1"), node("Clip", "a", "minus", "one", out="y", name="2")],
        [node("Clip", "x", "minus", "one", out="a", name="1"), node("Relu", "a", out="y", name="2")],
        [node("Relu", "x", out="a", name="1"), node("Clip", "a", "minus", "two", out="y", name="2")],
        [node("Relu", "x", out="a", name="1"), node("Relu", "a", out="y", name="2")],
        [node("Clip", "x", "", "two", out="a", name="1"), node("Clip", "a", "minus", "", out="y", name="2")],
    ],
)
def test_rules_1_to_3_two_clamps_are_one(nodes: list[onnx.NodeProto]) -> None:
    both_relu = [n.op_type for n in nodes] == ["Relu", "Relu"]
    assert fused(nodes) == (["Relu"] if both_relu else ["Clip"])


def test_three_clamps_are_one() -> None:
    nodes = [
        node("Relu", "x", out="a", name="1"),
        node("Min", "a", "two", out="b", name="2"),
        node("Clip", "b", "minus", "one", out="y", name="3"),
    ]
    assert fused(nodes) == ["Clip"]


def test_rule_4_ranges_that_do_not_meet_stay() -> None:
    nodes = [node("Clip", "x", "one", "two", out="a", name="1"), node("Clip", "a", "minus", "zero", out="y", name="2")]
    assert fused(nodes) == ["Clip", "Clip"]


def test_rule_4_a_middle_value_that_is_read_elsewhere_stays() -> None:
    nodes = [
        node("Relu", "x", out="a", name="1"),
        node("Clip", "a", "zero", "one", out="b", name="2"),
        node("Add", "a", "b", out="y", name="3"),
    ]
    assert fused(nodes) == ["Relu", "Clip", "Add"]


def test_rule_4_computed_bounds_are_refused_by_name() -> None:
    nodes = [node("Max", "x", "g", out="a", name="first"), node("Min", "a", "one", out="y", name="second")]
    model = graph_of(nodes, BOUNDS, {"x": ["n"], "g": []})
    report = fuse_clamp(model)
    assert not report.changed
    assert report.refused[0].node == "second"
