"""Rules 1 to 3 of convtranspose_to_subpixel: every geometry, against ConvTranspose itself."""

from __future__ import annotations

import itertools

import numpy as np
import onnx.helper as oh
import pytest
from hand_made_graphs import graph_of, normal, operators, run

from ganexport.passes.subpixel import convtranspose_to_subpixel

KERNELS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (3, 4), (5, 2))
PADS = ((0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (0, 1, 1, 0), (2, 1, 0, 1), (3, 0, 0, 3))


def transposed(
    kernel: tuple[int, int], stride: int, pads: tuple[int, ...], extra: int, groups: int, bias: bool = True
) -> tuple:
    node = oh.make_node(
        "ConvTranspose",
        ["x", "w", "b"] if bias else ["x", "w"],
        ["y"],
        name="up",
        strides=[stride, stride],
        pads=list(pads),
        output_padding=[extra, extra],
        group=groups,
    )
    constants = {"w": normal(4, 6 // groups, *kernel, seed=1)} | ({"b": normal(6, seed=2)} if bias else {})
    return graph_of([node], constants, {"x": ["n", 4, "h", "w_"]}), normal(2, 4, 5, 7, seed=3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_rules_1_and_2_every_geometry(kernel: tuple[int, int], stride: int) -> None:
    rewritten = 0
    for pads, extra, groups in itertools.product(PADS, (0, 1, 2), (1, 2)):
        out = [
            (s - 1) * stride + k - pads[i] - pads[i + 2] + extra
            for i, (s, k) in enumerate(zip((5, 7), kernel, strict=True))
        ]
        if extra >= stride or min(out) < 1:
            continue
        model, x = transposed(kernel, stride, pads, extra, groups)
        (before,) = run(model, {"x": x})
        report = convtranspose_to_subpixel(model)
        if report.refused:
            assert "wider than its kernel reaches" in report.refused[0].reason
            continue
        rewritten += 1
        assert "ConvTranspose" not in operators(model)
        assert ("DepthToSpace" in operators(model)) == (stride > 1)
        (after,) = run(model, {"x": x})
        assert after.shape == before.shape
        np.testing.assert_allclose(
            after, before, rtol=1e-5, atol=3e-5, err_msg=f"{kernel} {stride} {pads} {extra} {groups}"
        )
    assert rewritten >= 2


def test_the_dcgan_layer_takes_two_taps_and_crops_one_pixel() -> None:
    model, _ = transposed((4, 4), 2, (1, 1, 1, 1), 0, 1, bias=False)
    convtranspose_to_subpixel(model)
    assert operators(model) == ["Conv", "DepthToSpace", "Slice"]
    conv = next(iter(model.graph))
    assert conv.inputs[1].shape == [24, 4, 2, 2]
    assert list(conv.attributes["pads"].as_ints()) == [1, 1, 1, 1]


def test_other_sizes_than_the_traced_one_stay_right() -> None:
    model, _ = transposed((4, 4), 2, (1, 1, 1, 1), 1, 1)
    reference, _ = transposed((4, 4), 2, (1, 1, 1, 1), 1, 1)
    convtranspose_to_subpixel(model)
    for height, width, batch in ((1, 1, 1), (9, 2, 3), (4, 16, 7)):
        x = normal(batch, 4, height, width, seed=height)
        np.testing.assert_allclose(run(model, {"x": x})[0], run(reference, {"x": x})[0], atol=1e-5)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"dilations": [2, 2]}, "dilated"),
        ({"strides": [2, 1]}, "strides differ"),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, "auto_pad"),
        ({"output_shape": [10, 14], "strides": [2, 2]}, "output_shape"),
    ],
)
def test_rule_3_refused(attributes: dict[str, object], reason: str) -> None:
    node = oh.make_node("ConvTranspose", ["x", "w"], ["y"], name="up", **attributes)
    model = graph_of([node], {"w": normal(4, 6, 3, 3)}, {"x": ["n", 4, "h", "v"]})
    x = normal(1, 4, 5, 7)
    (before,) = run(model, {"x": x})
    report = convtranspose_to_subpixel(model)
    assert not report.changed
    assert reason in report.refused[0].reason
    np.testing.assert_array_equal(run(model, {"x": x})[0], before)


def test_rule_3_refused_in_one_dimension_and_with_computed_weights() -> None:
    node = oh.make_node("ConvTranspose", ["x", "w"], ["y"], name="up")
    flat = graph_of([node], {"w": normal(4, 6, 3)}, {"x": ["n", 4, "l"]})
    assert "1 spatial dimension" in convtranspose_to_subpixel(flat).refused[0].reason
    given = graph_of([node], {}, {"x": ["n", 4, "h", "v"], "w": [4, 6, 3, 3]})
    assert "computed" in convtranspose_to_subpixel(given).refused[0].reason


def test_only_those_that_are_named() -> None:
    nodes = [
        oh.make_node("ConvTranspose", ["x", "w"], ["a"], name="first", strides=[2, 2], pads=[1, 1, 1, 1]),
        oh.make_node("ConvTranspose", ["a", "w"], ["b"], name="second", strides=[2, 2], pads=[1, 1, 1, 1]),
        oh.make_node("ConvTranspose", ["b", "w"], ["y"], name="third", dilations=[2, 2]),
    ]
    x = normal(2, 4, 3, 3)
    for only, forms, refused in (
        ({"second"}, ["ConvTranspose", "Conv", "DepthToSpace", "Slice", "ConvTranspose"], 0),
        ({"third"}, ["ConvTranspose"] * 3, 1),
        (set(), ["ConvTranspose"] * 3, 0),
    ):
        model = graph_of(nodes, {"w": normal(4, 4, 4, 4)}, {"x": ["n", 4, "h", "v"]})
        (before,) = run(model, {"x": x})
        report = convtranspose_to_subpixel(model, only=only)
        assert operators(model) == forms
        assert len(report.refused) == refused
        np.testing.assert_allclose(run(model, {"x": x})[0], before, rtol=0, atol=1e-4 * np.abs(before).max())
