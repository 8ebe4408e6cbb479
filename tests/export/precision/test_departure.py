"""The node where a candidate departs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import LATENT, dcgan, elementwise, latents, rows, weights

from ganexport.precision.departure import first_departure
from ganexport.precision.half_graph import half_graph_from_model
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.rounding import FP16


def with_constant(graph: bytes, name: str, by: float) -> bytes:
    model = onnx.load_model_from_string(graph)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            array = numpy_helper.to_array(tensor).copy()
            array.flat[0] += by
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return model.SerializeToString()


@pytest.mark.parametrize(("constant", "name"), [("dense", "dense"), ("kernel1", "first"), ("kernel2", "last")])
def test_a_wrong_weight_is_found_at_the_layer_that_has_it(constant: str, name: str) -> None:
    found = first_departure(dcgan(), with_constant(dcgan(), constant, 5.0), "fp32", latents(), 40.0)
    assert found is not None
    assert found.node == name
    assert found.before_db == 200.0
    assert name in found.sentence()


def test_equal_graphs_depart_nowhere() -> None:
    assert first_departure(dcgan(), dcgan(), "fp32", latents(), 40.0) is None


def test_a_half_graph_within_the_floor_names_its_noisiest_node() -> None:
    half = half_graph_from_model(dcgan(), ranges_from_graph(dcgan(), latents()), FP16).graph
    found = first_departure(dcgan(), half, "fp16", latents(), 20.0)
    assert found is not None
    assert 40 < found.snr_db < 90


def test_an_overflow_is_named_where_it_begins() -> None:
    node = helper.make_node
    graph = elementwise(
        [
            node("MatMul", ["x", "w"], ["a"], name="fine"),
            node("MatMul", ["a", "loud"], ["b"], name="overflows"),
            node("LeakyRelu", ["b"], ["c"], name="after"),
            node("MatMul", ["c", "quiet"], ["y"], name="end"),
        ],
        w=weights(0, LATENT, LATENT),
        loud=np.eye(LATENT, dtype=np.float32) * 6e4,
        quiet=np.eye(LATENT, dtype=np.float32) / 6e4,
    )
    half = half_graph_from_model(graph, ranges_from_graph(graph, rows(scale=1e-3)), FP16).graph
    assert "overflows" not in [n.name for n in onnx.load_model_from_string(half).graph.node if n.op_type == "Cast"]
    found = first_departure(graph, half, "fp16", {"x": np.full((1, LATENT), 30.0, np.float32)}, 55.0)
    assert found is not None
    assert (found.node, found.snr_db) == ("overflows", -np.inf)
    assert "not finite" in found.sentence()
    assert TensorProto.FLOAT16 in {t.data_type for t in onnx.load_model_from_string(half).graph.initializer}
