"""int8 behind a Concat: integers are joined, the numbers stay, and OpenVINO computes what the graph says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import sized_networks as nets
import torch
from onnx import helper
from small_graphs import graph_of, weights

from ganexport.bundling import bundle_from_source
from ganexport.precision.int8_layers import layers_of, named_nodes
from ganexport.precision.quantised_graph import quantise
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.rungs import rungs_into_bundle
from ganexport.precision.traced import plain_session
from ganexport.verification import verify_bundle
from ganruntime.bundle import read_bundle
from ganruntime.spec import Image, TensorSpec

torch.set_num_threads(1)
node = helper.make_node

BETWEEN: dict[str, list[Any]] = {
    "nothing": [],
    "ReLU": [node("Relu", ["c"], ["r"])],
    "a scalar Mul": [node("Mul", ["c", "half"], ["r"])],
    "a scalar Sub and ReLU": [node("Sub", ["c", "half"], ["s"]), node("Relu", ["s"], ["r"])],
    "LeakyReLU": [node("LeakyRelu", ["c"], ["r"], alpha=0.2)],
    "a Mul per channel": [node("Mul", ["c", "gains"], ["r"])],
}


def skipped(between: str) -> bytes:
    """A skip connection around a convolution, another around that, and what stands between them and the last one."""
    last = "r" if BETWEEN[between] else "c"
    made: bytes = graph_of(
        [
            node("Conv", ["x", "v"], ["a"], pads=[1] * 4, name="first"),
            node("LeakyRelu", ["a"], ["b"], alpha=0.2),
            node("Relu", ["a"], ["d"]),
            node("Concat", ["b", "d"], ["inner"], axis=1),
            node("Concat", ["inner", "x"], ["c"], axis=1),
            *BETWEEN[between],
            node("Conv", [last, "w"], ["y"], pads=[1] * 4, name="last"),
        ],
        {
            "v": weights(0, 4, 3, 3, 3),
            "w": weights(1, 5, 11, 3, 3),
            "half": np.array(0.5, np.float32),
            "gains": np.linspace(0.3, 0.9, 11, dtype=np.float32).reshape(1, 11, 1, 1),
        },
        {"x": (3, 8, 8)},
        {"y": (5, 8, 8)},
    )
    return made


def quantised(graph: bytes, inputs: dict[str, Any], *, symmetric: bool) -> bytes:
    model = ir.from_proto(onnx.load_model_from_string(graph))
    named_nodes(model)
    ranges = ranges_from_graph(ir.to_proto(model).SerializeToString(), inputs)
    # As if nothing had one sign: the grids of both forms are then the same.
    layers = [replace(layer, reads_one_sign=False) for layer in layers_of(model, ranges)]
    quantise(model, layers, {layer.reads: ranges[layer.reads].abs_max for layer in layers}, symmetric=symmetric)
    made = ir.to_proto(model)
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize("between", BETWEEN)
def test_joining_integers_changes_no_bit(between: str) -> None:
    inputs = {"x": weights(2, 6, 3, 8, 8)}
    joined, behind = (quantised(skipped(between), inputs, symmetric=symmetric) for symmetric in (False, True))
    np.testing.assert_array_equal(
        plain_session(joined).run(None, inputs)[0], plain_session(behind).run(None, inputs)[0]
    )
    graph = onnx.load_model_from_string(joined).graph
    made = {output: n for n in graph.node for output in n.output}
    joins = [n for n in graph.node if n.op_type == "Concat" and all(i.endswith("int8") for i in n.input)]
    if between in ("LeakyReLU", "a Mul per channel"):
        assert not joins
        return
    assert len(joins) == 2
    for n in graph.node:
        if n.op_type == "QuantizeLinear":
            source = made.get(n.input[0])
            while source is not None and source.op_type in ("Relu", "Mul", "Sub"):
                source = made.get(source.input[0])
            assert source is None or source.op_type != "Concat"
    read = {i for n in graph.node for i in n.input} | {o.name for o in graph.output}
    assert all(set(n.output) & read for n in graph.node)  # what was joined as floats is gone


def test_a_value_that_is_an_output_too_is_still_joined_as_floats() -> None:
    model = onnx.load_model_from_string(skipped("ReLU"))
    model.graph.output.append(helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["batch", 11, 8, 8]))
    inputs = {"x": weights(2, 2, 3, 8, 8)}
    session = plain_session(quantised(model.SerializeToString(), inputs, symmetric=False))
    assert session.run(["c"], inputs)[0].shape == (2, 11, 8, 8)


@pytest.mark.parametrize("between", BETWEEN)
def test_openvino_computes_what_the_graph_says(between: str) -> None:
    openvino = pytest.importorskip("openvino")
    inputs = {"x": weights(2, 6, 3, 8, 8)}
    graph = quantised(skipped(between), inputs, symmetric=False)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(graph), "CPU", settings)
    found = np.asarray(compiled([inputs["x"]])[0])
    expected = plain_session(graph).run(None, inputs)[0]
    # A value between two integers may be rounded the other way: one in a thousand, and of one step of 127.
    assert np.abs(found - expected).mean() <= 1e-4 * np.abs(expected).max()
    assert np.abs(found - expected).max() <= 2e-2 * np.abs(expected).max()


@pytest.mark.slow
def test_a_u_net_in_int8_is_verified_with_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    source = nets.source_of(nets.UNet(), "unet")
    shape = (3, 32, 32)
    spec = replace(
        source.spec,
        inputs=(TensorSpec("photo", "float32", shape, Image()),),
        outputs=(TensorSpec("image", "float32", shape, Image()),),
    )
    path = tmp_path / "unet.gan"
    bundle_from_source(replace(source, spec=spec), path, latents=32, uint8=False)
    rungs_into_bundle(path, ["int8"], latents=64, calibration_latents=64)
    report = verify_bundle(read_bundle(path), backend="openvino", variants=["fp32", "int8"], latents=64)
    assert {name: list(finding.problems) for name, finding in report.findings.items()} == {"fp32": [], "int8": []}
