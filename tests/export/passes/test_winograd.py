"""Rules 1 to 3 of conv_to_winograd, and the algorithms that it is made of."""

from __future__ import annotations

import numpy as np
import onnx.helper as oh
import pytest
from hand_made_graphs import graph_of, normal, operators, run

from ganexport.passes.bilinear import correlation
from ganexport.passes.winograd import conv_to_winograd, cost_ratio

ALWAYS = float("inf")
BIAS = normal(6, seed=2)


def convolution(
    height: int | str = 8, width: int | str = 12, *, bias: bool = True, weight: tuple[int, ...] = (6, 5, 3, 3), **given
):
    attributes = {"pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1} | given
    node = oh.make_node("Conv", ["x", "w", "b"] if bias else ["x", "w"], ["y"], name="conv", **attributes)
    constants = {"w": normal(*weight, seed=1)} | ({"b": BIAS} if bias else {})
    return graph_of([node], constants, {"x": ["n", weight[1] * attributes["group"], height, width]})


@pytest.mark.parametrize(("outputs", "taps"), [(m, r) for m in (1, 2, 3, 4, 6) for r in (2, 3) if m + r <= 9])
def test_a_minimal_algorithm_is_the_correlation(outputs: int, taps: int) -> None:
    a, g, b = correlation(outputs, taps)
    assert len(b) == outputs + taps - 1
    x, weights = np.random.default_rng(0).normal(size=outputs + taps - 1), np.random.default_rng(1).normal(size=taps)
    direct = [x[i : i + taps] @ weights for i in range(outputs)]
    np.testing.assert_allclose(a @ ((g @ weights) * (b @ x)), direct, atol=1e-12)


def test_more_products_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match="9 products"):
        correlation(7, 3)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (16, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_rule_1_the_same_in_any_batch(height: int, width: int, bias: bool) -> None:
    model, direct = convolution(height, width, bias=bias), convolution(height, width, bias=bias)
    report = conv_to_winograd(model, ALWAYS)
    assert len(report.changed) == 1
    assert "Conv" not in operators(model)
    for batch in (1, 2, 5):
        x = normal(batch, 5, height, width, seed=batch)
        (after,), (before,) = run(model, {"x": x}), run(direct, {"x": x})
        assert after.shape == before.shape
        np.testing.assert_allclose(after, before, atol=3e-5)


def test_rule_1_rows_and_columns_are_not_mixed_up() -> None:
    model, direct = convolution(8, 8), convolution(8, 8)
    conv_to_winograd(model, ALWAYS)
    x = np.zeros((1, 5, 8, 8), np.float32)
    x[0, 2, 1, 6] = 1.0  # its own kernel, turned round, and nothing beyond it
    np.testing.assert_allclose(run(model, {"x": x})[0], run(direct, {"x": x})[0], atol=1e-5)


def test_rule_1_a_bias_may_be_computed() -> None:
    nodes = [
        oh.make_node("Neg", ["b"], ["c"]),
        oh.make_node("Conv", ["x", "w", "c"], ["y"], pads=[1] * 4),
    ]
    given = {"w": normal(6, 5, 3, 3), "b": BIAS}
    models = [graph_of(nodes, given, {"x": ["n", 5, 4, 4]}) for _ in range(2)]
    assert conv_to_winograd(models[0], ALWAYS).changed
    x = normal(2, 5, 4, 4, seed=7)
    np.testing.assert_allclose(run(models[0], {"x": x})[0], run(models[1], {"x": x})[0], atol=3e-5)


def test_float64_says_how_exact_it_is() -> None:
    """The bound of a pass is 1e-5 of the largest output; many channels come closest to it."""
    model = convolution(8, 8, bias=False, weight=(64, 256, 3, 3))
    conv_to_winograd(model, ALWAYS)
    x, w = normal(1, 256, 8, 8, seed=3), normal(64, 256, 3, 3, seed=1).astype(np.float64)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    exact = np.einsum("nchwab,kcab->nkhw", windows, w, optimize=True)
    assert np.abs(run(model, {"x": x})[0] - exact).max() < 1e-5 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (convolution("h", "w_"), "not known"),
        (convolution(8, 10), "not multiples of 4"),
        (convolution(), "by count"),
    ],
)
def test_rule_2_refused(model, reason: str) -> None:
    report = conv_to_winograd(model)
    assert not report.changed
    assert reason in report.refused[0].reason


@pytest.mark.parametrize(
    "other",
    [
        {"strides": [2, 2]},
        {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
        {"pads": [0, 0, 0, 0]},
        {"group": 2},
        {"weight": (6, 5, 1, 1), "pads": [0, 0, 0, 0]},
    ],
)
def test_rule_3_none_of_its_business(other: dict) -> None:
    report = conv_to_winograd(convolution(bias=False, **other), ALWAYS)
    assert not report.changed
    assert not report.refused


def test_what_pays_by_count_is_what_was_measured_to_pay() -> None:
    """Of StyleGAN2's layers on two AVX-512 cores: 0.41, 0.44, 0.68 and 1.42 of the direct convolution's time."""
    pays = [cost_ratio(512, 512, 8, 8), cost_ratio(512, 512, 16, 16), cost_ratio(256, 256, 32, 32)]
    assert pays == sorted(pays)
    assert pays[-1] < 0.7 < 1 < cost_ratio(128, 128, 64, 64)
