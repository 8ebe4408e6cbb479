"""Second moments: those of the fast path are what a loop over every place gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper
from small_graphs import graph_of, weights

from ganexport.precision.moments import moments_from_graph

node = helper.make_node
Float64 = NDArray[np.float64]


def moments(graph: bytes, inputs: dict[str, NDArray[Any]], *names: str) -> dict[str, list[Float64]]:
    model = ir.from_proto(onnx.load_model_from_string(graph))
    return moments_from_graph(graph, inputs, [n for n in model.graph if n.name in names])


def conv(channels: int, kernel: tuple[int, int], **attributes: Any) -> bytes:
    out = attributes.get("group", 1) * 2
    w = weights(0, out, channels // attributes.get("group", 1), *kernel)
    nodes = [node("LeakyRelu", ["x"], ["r"], alpha=0.2), node("Conv", ["r", "w"], ["y"], name="layer", **attributes)]
    return graph_of(nodes, {"w": w}, {"x": (channels, 7, 9)}, {"y": (out, "h", "w")})


def every_place(
    x: NDArray[Any], kernel: tuple[int, int], strides: list[int], dilations: list[int], pads: list[int]
) -> Float64:
    """The slow twin: one window after the other, [C · taps, C · taps]."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    windows = []
    for image in padded:
        for i in range(0, padded.shape[2] - reach[0] + 1, strides[0]):
            for j in range(0, padded.shape[3] - reach[1] + 1, strides[1]):
                window = image[:, i : i + reach[0] : dilations[0], j : j + reach[1] : dilations[1]]
                windows.append(window.reshape(-1))
    read = np.stack(windows)
    return np.asarray(read.T @ read / len(read), np.float64)


@pytest.mark.parametrize(
    ("kernel", "strides", "dilations", "pads"),
    [
        ((3, 3), [1, 1], [1, 1], [1, 1, 1, 1]),
        ((2, 2), [1, 1], [1, 1], [1, 0, 0, 1]),
        ((3, 2), [2, 1], [1, 2], [0, 2, 1, 0]),
        ((1, 1), [1, 1], [1, 1], [0, 0, 0, 0]),
    ],
)
def test_windows_of_a_convolution(
    kernel: tuple[int, int], strides: list[int], dilations: list[int], pads: list[int]
) -> None:
    graph = conv(4, kernel, strides=strides, dilations=dilations, pads=pads)
    x = weights(1, 6, 4, 7, 9, scale=1.0)
    (found,) = moments(graph, {"x": x}, "layer")["layer"]
    read = np.where(x > 0, x, np.float32(0.2) * x)
    np.testing.assert_allclose(found, every_place(read, kernel, strides, dilations, pads), rtol=1e-4, atol=1e-5)


def test_wide_layers_come_in_runs_of_whole_channels() -> None:
    x = weights(2, 9, 40, 7, 9, scale=1.0)
    found = moments(conv(40, (3, 3), pads=[1] * 4), {"x": x}, "layer")["layer"]
    assert [len(m) for m in found] == [28 * 9, 12 * 9]
    whole = every_place(np.where(x > 0, x, np.float32(0.2) * x), (3, 3), [1, 1], [1, 1], [1] * 4)
    np.testing.assert_allclose(found[1], whole[28 * 9 :, 28 * 9 :], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "graph",
    [
        conv(4, (3, 3), group=2, pads=[1] * 4),
        conv(4, (3, 3), auto_pad="SAME_UPPER"),
    ],
    ids=["in groups", "padded automatically"],
)
def test_convolutions_that_are_not_followed_are_left_out(graph: bytes) -> None:
    assert moments(graph, {"x": weights(3, 2, 4, 7, 9)}, "layer") == {}


def test_dense_layers_and_graph_inputs() -> None:
    graph = graph_of(
        [node("Gemm", ["x", "v"], ["a"], name="first"), node("MatMul", ["a", "w"], ["y"], name="second")],
        {"v": weights(4, 300, 6), "w": weights(5, 6, 3)},
        {"x": (300,)},
        {"y": (3,)},
    )
    x = weights(6, 512, 300)
    found = moments(graph, {"x": x}, "first", "second")
    assert [len(m) for m in found["first"]] == [256, 44]
    np.testing.assert_allclose(found["first"][1], x[:, 256:].T @ x[:, 256:] / 512, rtol=1e-4, atol=1e-5)
    a = x @ weights(4, 300, 6)
    np.testing.assert_allclose(found["second"][0], a.T @ a / 512, rtol=1e-3, atol=1e-3)


def test_a_layer_of_which_too_little_was_seen_is_left_out() -> None:
    graph = graph_of(
        [node("Gemm", ["x", "v"], ["y"], name="layer")], {"v": weights(4, 40, 6)}, {"x": (40,)}, {"y": (6,)}
    )
    assert moments(graph, {"x": weights(6, 79, 40)}, "layer") == {}
    assert [len(m) for m in moments(graph, {"x": weights(6, 80, 40)}, "layer")["layer"]] == [40]


def test_of_many_places_a_part_is_drawn_evenly_and_always_the_same() -> None:
    x = weights(7, 400, 4, 7, 9, scale=1.0)
    graph = conv(4, (3, 3), pads=[1] * 4)
    (found,) = moments(graph, {"x": x}, "layer")["layer"]
    (again,) = moments(graph, {"x": x}, "layer")["layer"]
    assert np.array_equal(found, again)
    whole = every_place(np.where(x > 0, x, np.float32(0.2) * x), (3, 3), [1, 1], [1, 1], [1] * 4)
    # 21 of 63 places of each of 400 images: what is drawn differs from the whole by what sampling does.
    assert 0 < np.abs(found - whole).max() < 0.1 * np.diag(whole).max()
