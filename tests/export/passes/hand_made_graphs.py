"""Small ONNX graphs, written by hand, and a way to run them: what the passes are tried on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto

Array = NDArray[np.generic]


def graph_of(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, Array],
    inputs: Mapping[str, list[object]],
    outputs: tuple[str, ...] = ("y",),
    opset: int = 18,
) -> ir.Model:
    """A model whose inputs and outputs are float32."""
    graph = oh.make_graph(
        nodes,
        "small",
        [oh.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [oh.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(a, order="C"), name) for name, a in constants.items()],
    )
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def run(model: ir.Model, inputs: Mapping[str, Array]) -> list[Array]:
    """What the graph computes, checked by onnx first, with every rewrite of the runtime switched off."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)
