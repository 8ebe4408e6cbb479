"""Balance of modulated layers: the same function, and channels that are less unlike."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper
from small_graphs import graph_of, latents, weights

from ganexport.precision.int8_layers import layers_of, named_nodes
from ganexport.precision.modulation_balance import balance_modulated
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.traced import TracedGraph, plain_session

node = helper.make_node
CHANNELS = 6


def modulated(*, group: int = 1, read_twice: bool = False, per_pixel: bool = False) -> bytes:
    """z -> a map and a style; the map times the style through a convolution, demodulated by the style's squares."""
    style_shape = [-1, CHANNELS, 4, 4] if per_pixel else [-1, CHANNELS, 1, 1]
    nodes = [
        node("Gemm", ["z", "to_map"], ["flat"]),
        node("Reshape", ["flat", "map_shape"], ["map"]),
        node("Gemm", ["z", "to_style", "style_bias"], ["s"]),
        node("Reshape", ["s", "style_shape"], ["style"]),
        node("Mul", ["style", "map"], ["modulated"]),
        node("Conv", ["modulated", "w", "b"], ["out"], pads=[1] * 4, group=group, name="layer"),
        node("ReduceMean", ["style", "axes"], ["square"], keepdims=1),
        node("Mul", ["out", "square"], ["once"]),
        node("Add", ["once", "modulated" if read_twice else "once"], ["image"]),
    ]
    strengths = np.array([8, 1, 1, 0.5, 0.2, 0.1], np.float32)
    width = CHANNELS * (16 if per_pixel else 1)
    constants = {
        "to_map": weights(0, 8, CHANNELS * 16),
        "map_shape": np.array([-1, CHANNELS, 4, 4], np.int64),
        "to_style": weights(1, 8, width) * np.repeat(strengths, width // CHANNELS),
        "style_bias": np.repeat(strengths, width // CHANNELS),
        "style_shape": np.array(style_shape, np.int64),
        "w": weights(2, CHANNELS, CHANNELS // group, 3, 3),
        "b": weights(3, CHANNELS),
        "axes": np.array([1, 2, 3], np.int64),
    }
    return graph_of(nodes, constants, {"z": (8,)}, {"image": (CHANNELS, 4, 4)})


def balanced(graph: bytes, only: tuple[str, ...] = ("layer",)) -> tuple[bytes, list[str]]:
    model = ir.from_proto(onnx.load_model_from_string(graph))
    named_nodes(model)
    data = ir.to_proto(model).SerializeToString()
    ranges = ranges_from_graph(data, latents(2))
    layers = [layer for layer in layers_of(model, ranges) if layer.node in only]
    changed = balance_modulated(model, data, layers, ranges, latents(64, seed=20))
    return ir.to_proto(model).SerializeToString(), changed


def strengths_of(graph: bytes) -> NDArray[np.float64]:
    read: Any = TracedGraph(graph, ["modulated"]).run(latents(64, seed=21))["modulated"]
    return np.asarray(np.sqrt(np.square(read.astype(np.float64)).mean(axis=(0, 2, 3))), np.float64)


def test_it_is_the_same_function_with_channels_that_are_less_unlike() -> None:
    before = modulated()
    after, changed = balanced(before)
    assert changed == ["layer"]
    for batch in (1, 3, 7):
        given = latents(batch, seed=batch)
        expected, found = (plain_session(g).run(None, given)[0] for g in (before, after))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    unlike = [float(np.log(strengths_of(graph)).std()) for graph in (before, after)]
    assert unlike[1] == pytest.approx(0.6 * unlike[0], rel=0.1)  # what is left of the power 0.4


@pytest.mark.parametrize(
    "graph",
    [modulated(group=2), modulated(read_twice=True), modulated(per_pixel=True)],
    ids=["in groups", "read by others too", "no style but a map"],
)
def test_what_is_no_modulated_layer_stays_as_it_is(graph: bytes) -> None:
    after, changed = balanced(graph)
    assert changed == []
    assert len(onnx.load_model_from_string(after).graph.node) == len(onnx.load_model_from_string(graph).graph.node)


def test_layers_that_are_not_asked_for_stay_as_they_are() -> None:
    assert balanced(modulated(), only=())[1] == []


def test_a_channel_that_is_always_zero_gets_no_gain() -> None:
    model = onnx.load_model_from_string(modulated())
    for tensor in model.graph.initializer:
        if tensor.name == "to_map":
            array = onnx.numpy_helper.to_array(tensor).copy().reshape(8, CHANNELS, 16)
            array[:, 2] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.reshape(8, -1), "to_map"))
    before = model.SerializeToString()
    after, changed = balanced(before)
    assert changed == ["layer"]
    given = latents(3)
    expected, found = (plain_session(g).run(None, given)[0] for g in (before, after))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
