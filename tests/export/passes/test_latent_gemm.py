"""Rules 1 to 3 of convtranspose_to_gemm, and the two of narrow_convtranspose_to_subpixel and its twin for bf16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx.helper as oh
import onnx_ir as ir
import pytest
from hand_made_graphs import graph_of, normal, operators, run

from ganexport.passes.latent_gemm import convtranspose_to_gemm
from ganexport.passes.narrow_subpixel import bf16_convtranspose_to_subpixel, narrow_convtranspose_to_subpixel
from ganexport.passes.report import PassReport


def first_layer(*, unsqueezed: bool = True, bias: bool = True, size: int = 1, **attributes):
    nodes = [oh.make_node("Unsqueeze", ["x", "axes"], ["u"])] if unsqueezed else []
    inputs = ["u" if unsqueezed else "x", "w", *(["b"] if bias else [])]
    nodes.append(oh.make_node("ConvTranspose", inputs, ["y"], name="first", **attributes))
    constants = {"w": normal(7, 5, 4, 3), "axes": np.array([2, 3])} | ({"b": normal(5, seed=1)} if bias else {})
    if not unsqueezed:
        del constants["axes"]
    return graph_of(nodes, constants, {"x": ["n", 7] if unsqueezed else ["n", 7, size, size]})


def the_same(first, second, *shape: int) -> None:
    for batch in (1, 3):
        x = normal(batch, *shape, seed=batch)
        np.testing.assert_allclose(run(first, {"x": x})[0], run(second, {"x": x})[0], atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("attributes", [{}, {"strides": [3, 2]}, {"pads": [1, 0, 0, 1]}, {"pads": [1, 1, 1, 1]}])
def test_rule_1_one_pixel_is_a_product(bias: bool, attributes: dict[str, list[int]]) -> None:
    model = first_layer(unsqueezed=False, bias=bias, **attributes)
    assert convtranspose_to_gemm(model).changed
    assert operators(model) == ["Reshape", "Gemm", "Reshape"]
    the_same(model, first_layer(unsqueezed=False, bias=bias, **attributes), 7, 1, 1)


def test_rule_2_the_product_reads_the_latent() -> None:
    model = first_layer()
    convtranspose_to_gemm(model)
    gemm = next(node for node in model.graph if node.op_type == "Gemm")
    assert gemm.inputs[0] is model.graph.inputs[0]
    the_same(model, first_layer(), 7)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"dilations": [2, 2]}, "dilated"),
        ({"auto_pad": "VALID"}, "auto_pad"),
        ({"output_shape": [4, 3]}, "output_shape"),
        ({"output_padding": [1, 1], "strides": [2, 2]}, "output padding"),
    ],
)
def test_rule_3_refused(attributes: dict[str, object], reason: str) -> None:
    report = convtranspose_to_gemm(first_layer(**attributes))
    assert not report.changed
    assert reason in report.refused[0].reason


def test_more_than_one_pixel_is_none_of_its_business() -> None:
    report = convtranspose_to_gemm(first_layer(unsqueezed=False, size=2))
    assert not report.changed
    assert not report.refused


@pytest.mark.parametrize(
    ("rewrite", "channels", "rewritten"),
    [(narrow_convtranspose_to_subpixel, count, count <= 4) for count in (1, 3, 4, 5)]
    + [(bf16_convtranspose_to_subpixel, count, count < 64) for count in (1, 5, 63, 64)],
)
def test_narrow_layers_alone_take_the_subpixel_form(
    rewrite: Callable[[ir.Model], PassReport], channels: int, rewritten: bool
) -> None:
    def last_layer():
        node = oh.make_node("ConvTranspose", ["x", "w"], ["y"], name="last", strides=[2, 2], pads=[1] * 4)
        return graph_of([node], {"w": normal(6, channels, 4, 4)}, {"x": ["n", 6, 5, 5]})

    model = last_layer()
    report = rewrite(model)
    assert report.name == rewrite.__name__
    assert bool(report.changed) == rewritten == ("DepthToSpace" in operators(model))
    the_same(model, last_layer(), 6, 5, 5)
