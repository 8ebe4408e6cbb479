"""Q/DQ graphs against integer arithmetic, and ONNX Runtime's int8 kernels against the graph as it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from small_graphs import LATENT, dcgan, elementwise, graph_of, latents, rows, weights

from ganexport.precision.int8_layers import Layer, layers_of, named_nodes
from ganexport.precision.optimised import optimised_model
from ganexport.precision.quantised_graph import quantise
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.sensitivity import WEIGHT_LEVELS
from ganexport.precision.thresholds import means_from_graph
from ganexport.precision.traced import plain_session

node = helper.make_node


def quantised(
    graph: bytes, inputs: dict[str, Any], levels: int = WEIGHT_LEVELS, only: str = "", symmetric: bool = True
) -> bytes:
    model = ir.from_proto(onnx.load_model_from_string(graph))
    named_nodes(model)
    ranges = ranges_from_graph(ir.to_proto(model).SerializeToString(), inputs)
    layers = [layer for layer in layers_of(model, ranges) if only in layer.node]
    thresholds = {layer.reads: ranges[layer.reads].abs_max for layer in layers}
    quantise(model, layers, thresholds, levels, symmetric=symmetric)
    made = ir.to_proto(model)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def kernels_session(graph: bytes, tmp_path: Any) -> tuple[Any, list[str]]:
    """ONNX Runtime as users run it, and the operators that it made of the graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session, [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("op_type", ["Gemm", "MatMul"])
def test_a_dense_layer_is_integers_times_scales(op_type: str, transposed: int) -> None:
    w = weights(0, LATENT, LATENT)
    attributes = {"transB": 1} if op_type == "Gemm" and transposed else {}
    graph = elementwise([node(op_type, ["x", "w"], ["y"], **attributes)], w=w)
    x = rows(50)["x"]
    found = plain_session(quantised(graph, {"x": x})).run(None, {"x": x})[0]
    per_output = w if attributes else w.T  # [M, K]
    step = np.float32(np.abs(x).max() / 127)
    scales = np.abs(per_output).max(axis=1) / WEIGHT_LEVELS
    sums = np.clip(np.rint(x / step), -128, 127) @ np.rint(per_output / scales[:, None]).T
    np.testing.assert_allclose(found, sums * step * scales, rtol=1e-5, atol=1e-6)


def test_one_file_for_all_backends() -> None:
    """Zero points are 0 and all is int8: TensorRT takes nothing else, and refuses int32 behind a DequantizeLinear."""
    model = optimised_model(dcgan(), latents(), ("convtranspose_to_subpixel",))
    graph = onnx.load_model_from_string(quantised(ir.to_proto(model).SerializeToString(), latents())).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len([n for n in pairs if n.op_type == "QuantizeLinear"]) >= 3
    for n in pairs:
        assert constants[n.input[2]].dtype == np.int8
        assert not constants[n.input[2]].any()
        assert (constants[n.input[1]] > 0).all()
    assert not any(t.data_type == TensorProto.INT32 for t in graph.initializer)
    assert not any(n.op_type == "ConvTranspose" for n in graph.node)
    # Nothing of the fp32 weights is left behind.
    used = {name for n in graph.node for name in n.input}
    assert {t.name for t in graph.initializer} <= used
    biases = [n.input[2] for n in graph.node if n.op_type in ("Conv", "Gemm") and len(n.input) > 2]
    assert all(constants[b].dtype == np.float32 for b in biases)


def test_what_a_relu_made_has_all_256_integers_and_half_the_error() -> None:
    graph = graph_of(
        [node("Relu", ["x"], ["r"]), node("Gemm", ["r", "w"], ["y"], name="dense")],
        {"w": weights(0, LATENT, LATENT)},
        {"x": (LATENT,)},
        {"y": (LATENT,)},
    )
    inputs = rows(400)
    exact = plain_session(graph).run(None, inputs)[0]
    errors = {}
    for symmetric in (True, False):
        made = onnx.load_model_from_string(quantised(graph, inputs, symmetric=symmetric))
        constants = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
        pair = next(n for n in made.graph.node if n.op_type == "QuantizeLinear")
        peak = np.maximum(inputs["x"], 0).max()
        assert int(constants[pair.input[2]]) == (0 if symmetric else -128)
        assert float(constants[pair.input[1]]) == pytest.approx(peak / (127 if symmetric else 255))
        # With exact weights, so that the activations' rounding stands alone.
        next(n for n in made.graph.node if n.op_type == "Gemm").input[1] = "w"
        made.graph.initializer.append(numpy_helper.from_array(weights(0, LATENT, LATENT), "w"))
        found = plain_session(made.SerializeToString()).run(None, inputs)[0]
        errors[symmetric] = float(np.square(found - exact).mean())
    assert errors[False] < 0.35 * errors[True]


def test_a_value_of_two_signs_keeps_zero_at_zero() -> None:
    graph = elementwise([node("Gemm", ["x", "w"], ["y"], name="dense")], w=weights(0, LATENT, LATENT))
    made = onnx.load_model_from_string(quantised(graph, rows(20), symmetric=False))
    zeros = [numpy_helper.to_array(t) for t in made.graph.initializer if t.name.startswith("int8_")]
    assert [int(z) for z in zeros] == [0]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_corrected_bias_takes_back_what_rounding_shifts_the_mean_by(groups: int) -> None:
    graph = graph_of(
        [node("Conv", ["x", "w", "b"], ["y"], name="conv", group=groups)],
        {"w": weights(0, 6, 4 // groups, 1, 1), "b": weights(1, 6)},
        {"x": (4, 5, 5)},
        {"y": (6, 5, 5)},
    )
    inputs = {"x": np.abs(weights(3, 40, 4, 5, 5)) + 1}
    exact = plain_session(graph).run(None, inputs)[0].mean(axis=(0, 2, 3))
    means = means_from_graph(graph, inputs, ["x"])
    np.testing.assert_allclose(means["x"], inputs["x"].mean(axis=(0, 2, 3)), rtol=1e-6)
    gaps = []
    for known in (None, means):
        model = ir.from_proto(onnx.load_model_from_string(graph))
        layers = layers_of(model, ranges_from_graph(graph, inputs))
        # Eight levels, so that rounding is far above the arithmetic's own.
        quantise(model, layers, {"x": float(inputs["x"].max())}, 8, known)
        found = plain_session(ir.to_proto(model).SerializeToString()).run(None, inputs)[0].mean(axis=(0, 2, 3))
        gaps.append(float(np.abs(found - exact).max()))
    assert gaps[1] < 0.1 * gaps[0]


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_pair_before_relu_and_moves_of_data_changes_no_bit(symmetric: bool) -> None:
    """ReLU and the second pair see values of the grid only; so the first layer may run in int8 from end to end."""
    graph = graph_of(
        [
            node("Conv", ["x", "w", "b"], ["c"], name="first"),
            node("DepthToSpace", ["c"], ["d"], blocksize=2, mode="CRD"),
            node("Slice", ["d", "starts", "ends", "axes"], ["s"]),
            node("Relu", ["s"], ["r"]),
            node("Conv", ["r", "v"], ["y"], name="second"),
        ],
        {
            "w": weights(0, 8, 3, 2, 2),
            "b": weights(1, 8),
            "v": weights(2, 4, 2, 3, 3),
            "starts": np.array([1, 1], np.int64),
            "ends": np.array([9, 9], np.int64),
            "axes": np.array([2, 3], np.int64),
        },
        {"x": (3, 6, 6)},
        {"y": (4, 6, 6)},
    )
    inputs = {"x": weights(3, 9, 3, 6, 6)}
    whole = onnx.load_model_from_string(quantised(graph, inputs, symmetric=symmetric))
    by_output = {n.output[0]: n for n in whole.graph.node}
    assert by_output["d"].input[0] == "c_as_r_dequantised"
    without = onnx.ModelProto()
    without.CopyFrom(whole)
    next(n for n in without.graph.node if n.output[0] == "d").input[0] = "c"
    one = plain_session(whole.SerializeToString()).run(None, inputs)[0]
    other = plain_session(without.SerializeToString()).run(None, inputs)[0]
    np.testing.assert_array_equal(one, other)


def test_a_leaky_relu_between_two_layers_gets_no_pair_before_it() -> None:
    graph = elementwise(
        [node("Gemm", ["x", "w"], ["a"]), node("LeakyRelu", ["a"], ["b"]), node("Gemm", ["b", "w"], ["y"])],
        w=weights(0, LATENT, LATENT),
    )
    made = onnx.load_model_from_string(quantised(graph, rows())).graph
    assert [n.input[0] for n in made.node if n.op_type == "LeakyRelu"] == ["a"]


def test_a_shared_weight_and_a_shared_input_are_quantised_for_each_layer() -> None:
    graph = elementwise(
        [node("Gemm", ["x", "w"], ["a"]), node("Gemm", ["x", "w"], ["b"], transB=1), node("Add", ["a", "b"], ["y"])],
        w=weights(0, LATENT, LATENT),
    )
    inputs = rows(40)
    made = quantised(graph, inputs)
    nodes = [n.op_type for n in onnx.load_model_from_string(made).graph.node]
    assert (nodes.count("QuantizeLinear"), nodes.count("DequantizeLinear")) == (1, 3)
    gap = plain_session(made).run(None, inputs)[0] - plain_session(graph).run(None, inputs)[0]
    assert 0 < np.abs(gap).max() < 0.1


def test_only_chosen_layers_change() -> None:
    made = onnx.load_model_from_string(quantised(dcgan(), latents(), only="dense")).graph
    assert [n.op_type for n in made.node].count("QuantizeLinear") == 1
    assert "kernel1" in {t.name for t in made.initializer}


def test_layers_and_their_multiplications() -> None:
    model = ir.from_proto(onnx.load_model_from_string(dcgan()))
    assert [layer.op_type for layer in layers_of(model, ranges_from_graph(dcgan(), latents(2)))] == ["Gemm"]
    model = optimised_model(dcgan(), latents(), ("convtranspose_to_subpixel",))
    named_nodes(model)
    found = layers_of(model, ranges_from_graph(ir.to_proto(model).SerializeToString(), latents(2)))
    assert found[0] == Layer("dense", "Gemm", "z", 8 * 96)
    # [6, 4, 4] -> 24 channels of 5 × 5 before the crop, 2 × 2 taps of 6 channels each.
    assert found[1].multiplications == 24 * 5 * 5 * 6 * 2 * 2


def extreme_conv(levels: int) -> tuple[bytes, dict[str, NDArray[np.float32]]]:
    """A convolution whose pairs of products are as large as int8 allows: every one at the end of its range."""
    channels = 64
    random = np.random.default_rng(0)
    w = np.where(random.random((16, channels, 3, 3)) < 0.9, 1.0, -1.0).astype(np.float32)
    v = weights(5, 4, 16, 1, 1)
    graph = graph_of(
        [
            node("Conv", ["x", "w", "b"], ["c"], name="first", pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["r"]),
            node("Conv", ["r", "v"], ["y"], name="second"),
        ],
        {"w": w, "b": weights(6, 16), "v": v},
        {"x": (channels, 6, 6)},
        {"y": (4, 6, 6)},
    )
    inputs = {"x": random.uniform(0.9, 1.0, (3, channels, 6, 6)).astype(np.float32)}
    return quantised(graph, inputs, levels), inputs


def test_int8_kernels_never_saturate_in_16_bits(tmp_path: Any) -> None:
    """x86 without VNNI adds u8·s8 products in pairs in 16 bits: with 64 levels no sum can reach the end."""
    assert 2 * 255 * WEIGHT_LEVELS <= np.iinfo(np.int16).max < 2 * 255 * 127
    graph, inputs = extreme_conv(WEIGHT_LEVELS)
    session, operators = kernels_session(graph, tmp_path)
    assert "QLinearConv" in operators
    found, written = session.run(None, inputs)[0], plain_session(graph).run(None, inputs)[0]
    # One level of the value between the layers, through the second layer.
    assert np.abs(found - written).max() < 0.02 * np.abs(written).max()


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_generator_runs_in_int8_kernels_and_gives_what_the_graph_says(tmp_path: Any, symmetric: bool) -> None:
    inputs = latents(64)
    model = optimised_model(dcgan(), inputs, ("convtranspose_to_subpixel",))
    graph = quantised(ir.to_proto(model).SerializeToString(), inputs, symmetric=symmetric)
    session, operators = kernels_session(graph, tmp_path)
    assert "QLinearConv" in operators
    gap = session.run(None, inputs)[0] - plain_session(graph).run(None, inputs)[0]
    fp32 = plain_session(dcgan()).run(None, inputs)[0]
    cost = plain_session(graph).run(None, inputs)[0] - fp32
    assert np.sqrt(np.square(gap).mean()) < 0.3 * np.sqrt(np.square(cost).mean())
