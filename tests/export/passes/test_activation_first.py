"""Rules 1 to 3 of activation_first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest
from hand_made_graphs import graph_of, normal, operators, run

from ganexport.passes.activation_first import activation_first

INTERLEAVE = {"blocksize": 2, "mode": "CRD"}
CONSTANTS = {
    "w": normal(8, 6, 2, 2),
    "b": normal(8, seed=1),
    "one": np.array([1, 1]),
    "end": np.array([-1, -1]),
    "axes": np.array([2, 3]),
}


def a_graph(
    moves: Sequence[str], activation: str = "Tanh", outputs: tuple[str, ...] = ("y",), **attributes: float
) -> ir.Model:
    nodes: list[onnx.NodeProto] = [oh.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1] * 4)]
    for i, move in enumerate(moves):
        given = [nodes[-1].output[0], *(["one", "end", "axes"] if move == "Slice" else [])]
        nodes.append(oh.make_node(move, given, [f"m{i}"], **(INTERLEAVE if move == "DepthToSpace" else {})))
    nodes.append(oh.make_node(activation, [nodes[-1].output[0]], ["y"], name="activation", **attributes))
    return graph_of(nodes, CONSTANTS, {"x": ["n", 6, 5, 5]}, outputs)


def the_same(one: ir.Model, other: ir.Model) -> None:
    for n in (1, 3):
        inputs = {"x": normal(n, 6, 5, 5, seed=n)}
        for a, b in zip(run(one, inputs), run(other, inputs), strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("moves", [["DepthToSpace"], ["DepthToSpace", "Slice"], ["Slice", "DepthToSpace", "Slice"]])
@pytest.mark.parametrize(
    ("activation", "attributes"), [("Relu", {}), ("LeakyRelu", {"alpha": 0.3}), ("Sigmoid", {}), ("Tanh", {})]
)
def test_an_activation_goes_to_its_convolution(moves: list[str], activation: str, attributes: dict[str, float]) -> None:
    model = a_graph(moves, activation, **attributes)
    report = activation_first(model)
    assert operators(model) == ["Conv", activation, *moves]
    assert report.changed == [f"activation to conv, before {' and '.join(moves)}"]
    assert not report.refused
    the_same(model, a_graph(moves, activation, **attributes))


def test_what_follows_reads_what_was_moved() -> None:
    def two_layers() -> ir.Model:
        nodes = [
            oh.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
            oh.make_node("DepthToSpace", ["c"], ["d"], **INTERLEAVE),
            oh.make_node("Relu", ["d"], ["r"], name="relu"),
            oh.make_node("Conv", ["r", "v"], ["e"], name="next"),
            oh.make_node("DepthToSpace", ["e"], ["f"], **INTERLEAVE),
            oh.make_node("Tanh", ["f"], ["y"], name="tanh"),
        ]
        return graph_of(nodes, CONSTANTS | {"v": normal(4, 2, 3, 3)}, {"x": ["n", 6, 5, 5]})

    model = two_layers()
    assert len(activation_first(model).changed) == 2
    assert operators(model) == ["Conv", "Relu", "DepthToSpace", "Conv", "Tanh", "DepthToSpace"]
    the_same(model, two_layers())


@pytest.mark.parametrize("read", ["c", "m0", "m1"])
def test_a_value_that_is_given_out_is_refused(read: str) -> None:
    model = a_graph(["DepthToSpace", "Slice"], outputs=("y", read))
    report = activation_first(model)
    assert not report.changed
    assert [r.reason for r in report.refused] == ["a value between it and conv is also used elsewhere"]
    assert operators(model) == ["Conv", "DepthToSpace", "Slice", "Tanh"]


def test_a_value_that_is_read_twice_is_refused() -> None:
    nodes = [
        oh.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        oh.make_node("DepthToSpace", ["c"], ["d"], **INTERLEAVE),
        oh.make_node("Sigmoid", ["d"], ["s"], name="sigmoid"),
        oh.make_node("Mul", ["d", "s"], ["y"]),
    ]
    model = graph_of(nodes, CONSTANTS, {"x": ["n", 6, 5, 5]})
    report = activation_first(model)
    assert not report.changed
    assert len(report.refused) == 1


@pytest.mark.parametrize("maker", ["conv already", "an input", "a sum"])
def test_anything_else_is_none_of_its_business(maker: str) -> None:
    if maker == "conv already":
        model = a_graph([])
    else:
        source = "x" if maker == "an input" else "a"
        nodes = [
            oh.make_node("Add", ["x", "x"], ["a"]),
            oh.make_node("DepthToSpace", [source], ["d"], **INTERLEAVE),
            oh.make_node("Relu", ["d"], ["y"]),
        ]
        model = graph_of(nodes[source == "x" :], {}, {"x": ["n", 8, 5, 5]})
    before = operators(model)
    report = activation_first(model)
    assert not report.changed
    assert not report.refused
    assert operators(model) == before
