"""The graph of the search gives what the Q/DQ graph gives that would be written, for every choice of layers."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small_graphs
from onnx import helper

from ganexport.passes.subpixel import convtranspose_to_subpixel
from ganexport.precision.int8_layers import layers_of, named_nodes
from ganexport.precision.quantised_graph import nearest_weights, quantise
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.switched_graph import SwitchedGraph
from ganexport.precision.thresholds import means_from_graph
from ganexport.precision.traced import TracedGraph, plain_session

node = helper.make_node


def dcgan() -> tuple[bytes, tuple[int, ...]]:
    model = ir.from_proto(onnx.load_model_from_string(small_graphs.dcgan()))
    convtranspose_to_subpixel(model)
    return ir.to_proto(model).SerializeToString(), (small_graphs.LATENT,)


def joined() -> tuple[bytes, tuple[int, ...]]:
    """A shared weight, a shared input, a layer without a bias, MatMul, and a Concat behind a ReLU."""
    graph = small_graphs.graph_of(
        [
            node("Relu", ["x"], ["p"]),
            node("Conv", ["p", "v", "b"], ["a1"], pads=[1] * 4, name="first"),
            node("Conv", ["p", "v"], ["a2"], pads=[1] * 4, name="second"),
            node("Concat", ["a1", "a2"], ["c"], axis=1),
            node("Relu", ["c"], ["r"]),
            node("Conv", ["r", "w", "d"], ["e"], name="third"),
            node("Flatten", ["e"], ["f"]),
            node("MatMul", ["f", "m"], ["y"], name="last"),
        ],
        {
            "v": small_graphs.weights(0, 4, 3, 3, 3),
            "b": small_graphs.weights(1, 4),
            "w": small_graphs.weights(2, 2, 8, 1, 1),
            "d": small_graphs.weights(3, 2),
            "m": small_graphs.weights(4, 2 * 36, 5),
        },
        {"x": (3, 6, 6)},
        {"y": (5,)},
    )
    return graph, (3, 6, 6)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("made", [dcgan, joined])
def test_every_choice_of_layers_gives_what_its_graph_gives(made: object, symmetric: bool) -> None:
    assert callable(made)
    graph, shape = made()
    model = ir.from_proto(onnx.load_model_from_string(graph))
    named_nodes(model)
    base = ir.to_proto(model).SerializeToString()
    (name,) = [value.name for value in onnx.load_model_from_string(base).graph.input]
    inputs = {name: small_graphs.weights(5, 12, *shape, scale=1.0)}
    layers = layers_of(model, ranges_from_graph(base, inputs))
    values = list(dict.fromkeys(layer.reads for layer in layers))
    traced = TracedGraph(base, [v for v in values if v not in inputs]).run(inputs) | inputs
    # Some of what is read lies beyond.
    thresholds = {value: 0.7 * float(np.abs(traced[value]).max()) for value in values}
    means = means_from_graph(base, inputs, values)
    nodes = {str(n.name): n for n in model.graph}
    weights = {layer.node: nearest_weights(nodes[layer.node], 64) for layer in layers}
    switched = SwitchedGraph(base, layers, weights, means, symmetric=symmetric)
    outputs = [value.name for value in onnx.load_model_from_string(base).graph.output]
    fresh = {name: small_graphs.weights(6, 5, *shape, scale=1.0)}
    seen = set()
    for on in itertools.product([False, True], repeat=len(layers)):
        kept = [layer for layer, is_on in zip(layers, on, strict=True) if is_on]
        whole = ir.from_proto(onnx.load_model_from_string(base))
        if kept:
            quantise(whole, kept, thresholds, means=means, weights=weights, symmetric=symmetric)
        (expected,) = plain_session(ir.to_proto(whole).SerializeToString()).run(outputs, fresh)
        (found,) = switched.run(outputs, fresh, {layer.node for layer in kept}, thresholds)
        # A constant weight is packed once and one that is fed is not: sums may come in another order, and then a value
        # in the middle of two steps goes the other way.
        step = np.abs(expected).max() / 64
        assert np.quantile(np.abs(found - expected), 0.9) <= 1e-5 * np.abs(expected).max()
        assert np.abs(found - expected).max() <= step
        seen.add(found.tobytes())
    assert len(seen) == 2 ** len(layers)
