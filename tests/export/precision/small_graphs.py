"""Small generators as ONNX graphs and as bundles, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ganexport.golden import SEED, golden_from_reference
from ganexport.precision.traced import plain_session
from ganruntime.bundle import GoldenRecord, Variant, Verdict, bundle_written
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec

LATENT, MAPS, SIZE = 8, 6, 16
Array = NDArray[np.float32]


def weights(seed: int, *shape: int, scale: float = 0.4) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def graph_of(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    inputs: dict[str, tuple[Any, ...]],
    outputs: dict[str, tuple[Any, ...]],
    opset: int = 18,
) -> bytes:
    """An ONNX file of float32 inputs and outputs; shapes are without the batch."""

    def values(shapes: dict[str, tuple[Any, ...]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["batch", *v]) for k, v in shapes.items()]

    initializers = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    for i, node in enumerate(nodes):
        node.name = node.name or f"n{i}_{node.op_type}"
    graph = helper.make_graph(list(nodes), "small", values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def spec() -> GeneratorSpec:
    latent = TensorSpec("z", "float32", (LATENT,), Latent())
    return GeneratorSpec("small", (latent,), (TensorSpec("image", "float32", (3, SIZE, SIZE), Image()),))


def dcgan(gain: float = 1.0) -> bytes:
    """Gemm, Reshape, ConvTranspose + ReLU twice, Tanh: [N, 8] -> [N, 3, 16, 16]. `gain` scales the last layer."""
    node = helper.make_node
    nodes = [
        node("Gemm", ["z", "dense", "dense_bias"], ["flat"], name="dense"),
        node("Relu", ["flat"], ["positive"]),
        node("Reshape", ["positive", "folded"], ["map"]),
        node("ConvTranspose", ["map", "kernel1", "bias1"], ["up1"], strides=[2, 2], pads=[1, 1, 1, 1], name="first"),
        node("Relu", ["up1"], ["positive1"]),
        node("ConvTranspose", ["positive1", "kernel2"], ["up2"], strides=[2, 2], pads=[1, 1, 1, 1], name="last"),
        node("Tanh", ["up2"], ["image"], name="head"),
    ]
    constants = {
        "dense": weights(0, LATENT, MAPS * 16),
        "dense_bias": weights(1, MAPS * 16, scale=0.1),
        "folded": np.array([-1, MAPS, 4, 4], np.int64),
        "kernel1": weights(2, MAPS, MAPS, 4, 4, scale=0.2),
        "bias1": weights(3, MAPS, scale=0.1),
        "kernel2": weights(4, MAPS, 3, 4, 4, scale=0.2) * np.float32(gain),
    }
    return graph_of(nodes, constants, {"z": (LATENT,)}, {"image": (3, SIZE, SIZE)})


def elementwise(nodes: Sequence[onnx.NodeProto], **constants: NDArray[Any]) -> bytes:
    """A graph from x [N, 8] to y [N, 8] by way of `x` and `y`."""
    return graph_of(nodes, constants, {"x": (LATENT,)}, {"y": (LATENT,)})


def rows(n: int = 16, seed: int = 9, scale: float = 1.0) -> dict[str, Array]:
    return {"x": weights(seed, n, LATENT, scale=scale)}


def latents(n: int = 16, seed: int = 9) -> dict[str, Array]:
    return {"z": weights(seed, n, LATENT, scale=1.0)}


def types_of(graph: bytes) -> dict[str, int]:
    """{value: element type} of a typed graph."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph), strict_mode=True).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}


def write_bundle(path: Path, graph: bytes | None = None) -> Path:
    """A bundle of `dcgan`, with golden samples, verified as far as the manifest goes."""
    of, file = spec(), graph or dcgan()
    session = plain_session(file)
    golden = golden_from_reference(of, lambda inputs: {"image": session.run(["image"], inputs)[0]}, latents=64)
    held = Verdict(True, "onnxruntime", "cpu", {"onnxruntime": "1.0"}, "small", 64, (1, 2), 1e-5, {"max_abs": 0.0})
    with bundle_written(path, of) as draft:
        draft.add("model.onnx", file)
        draft.add("golden.npz", golden.to_bytes())
        draft.golden = GoldenRecord("golden.npz", SEED, golden.latents, "ONNX Runtime")
        draft.put_variant(Variant("fp32", "fp32", "onnx", "model.onnx", (held,)))
    return path
