"""Rules 1 to 3 of dense_to_channels_last."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest
from hand_made_graphs import graph_of, normal, operators, run

from ganexport.passes.dense_layout import dense_to_channels_last

WEIGHT, BIAS = normal(7, 5 * 3 * 2), normal(5 * 3 * 2, seed=1)


def first_layers(
    relu: str = "after",
    *,
    bias: object = BIAS,
    transposed: bool = False,
    shape: tuple[int, ...] = (-1, 5, 3, 2),
    reader: str = "Conv",
    outputs: tuple[str, ...] = ("y",),
    transA: int = 0,
) -> ir.Model:
    constants = {"w": WEIGHT.T if transposed else WEIGHT, "s": np.array(shape, np.int64)}
    constants["v"] = normal(4, 5, 2, 2) if reader == "Conv" else normal(5, 4, 2, 2)
    constants |= {"b": np.asarray(bias)} if bias is not None else {}
    given = ["x", "w", *(["b"] if bias is not None else [])]
    nodes: list[onnx.NodeProto] = [
        oh.make_node("Gemm", given, ["g"], name="dense", transB=int(transposed), transA=transA)
    ]
    if relu == "before":
        nodes.append(oh.make_node("Relu", ["g"], ["r"], name="relu"))
    nodes.append(oh.make_node("Reshape", [nodes[-1].output[0], "s"], ["p"], name="pixels"))
    if relu == "after":
        nodes.append(oh.make_node("Relu", ["p"], ["r"], name="relu"))
    last = nodes[-1].output[0]
    nodes.append(oh.make_node(reader, [last, "v"], ["y"]) if "Conv" in reader else oh.make_node(reader, [last], ["y"]))
    return graph_of(nodes, constants, {"x": [7, "n"] if transA else ["n", 7]}, outputs)


def the_same(one: ir.Model, other: ir.Model) -> None:
    for n in (1, 3):
        inputs = {"x": normal(n, 7, seed=n)}
        for a, b in zip(run(one, inputs), run(other, inputs), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("reader", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("relu", ["after", "before", "none"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [BIAS, None, np.float32([0.5]), BIAS[None]], ids=["bias", "none", "one", "a row"])
def test_a_dense_layer_gives_its_channels_last(reader: str, relu: str, transposed: bool, bias: object) -> None:
    kind = {"reader": reader, "transposed": transposed, "bias": bias}
    model = first_layers(relu, **kind)  # type: ignore[arg-type]
    report = dense_to_channels_last(model)
    activation = [] if relu == "none" else ["Max"]
    assert operators(model) == ["Gemm", *activation, "Reshape", "Transpose", reader]
    assert report.changed == ["dense: 5 channels of 3 × 2, channels last"]
    assert not report.refused
    the_same(model, first_layers(relu, **kind))  # type: ignore[arg-type]


def test_a_batch_that_is_copied_stays_copied() -> None:
    model = first_layers(shape=(0, 5, 3, 2))
    assert dense_to_channels_last(model).changed
    the_same(model, first_layers(shape=(0, 5, 3, 2)))


@pytest.mark.parametrize("read", ["g", "p"])
def test_a_value_that_is_given_out_is_refused(read: str) -> None:
    model = first_layers(outputs=("y", read))
    report = dense_to_channels_last(model)
    assert not report.changed
    assert [r.reason for r in report.refused] == ["a value behind it is also used elsewhere"]
    the_same(model, first_layers(outputs=("y", read)))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({"bias": normal(1, 1).repeat(3, axis=0)}, "its bias is not one for each column"),
        ({"transA": 1}, "its input is transposed"),
    ],
)
def test_what_cannot_be_reordered_is_refused(kind: dict[str, object], reason: str) -> None:
    model = first_layers(**kind)  # type: ignore[arg-type]
    report = dense_to_channels_last(model)
    assert not report.changed
    assert [r.reason for r in report.refused] == [reason]


def test_weights_that_are_computed_are_refused() -> None:
    nodes = [
        oh.make_node("Neg", ["u"], ["w"]),
        oh.make_node("Gemm", ["x", "w"], ["g"], name="dense"),
        oh.make_node("Reshape", ["g", "s"], ["p"]),
        oh.make_node("Conv", ["p", "v"], ["y"]),
    ]
    constants = {"s": np.array([-1, 5, 3, 2]), "v": normal(4, 5, 2, 2)}
    report = dense_to_channels_last(graph_of(nodes, constants, {"x": ["n", 7], "u": [7, 30]}))
    assert [r.reason for r in report.refused] == ["its weight is computed, not constant"]


@pytest.mark.parametrize(
    "kind",
    [{"reader": "Tanh"}, {"shape": (-1, 30, 1, 1), "reader": "Tanh"}, {"shape": (-1, 1, 5, 6), "reader": "Tanh"}],
)
def test_anything_else_is_none_of_its_business(kind: dict[str, object]) -> None:
    model = first_layers(**kind)  # type: ignore[arg-type]
    before = operators(model)
    report = dense_to_channels_last(model)
    assert not report.changed
    assert not report.refused
    assert operators(model) == before
