"""The weights of the double's engines, which are ONNX graphs: rounded, taken out, and their types."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper


def round_weights_to_tf32(model: Any) -> None:
    """Weights with 10 bits of mantissa, rounded to nearest: the error of TF32 kernels, half of it at least."""
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        bits = numpy_helper.to_array(tensor).copy().view(np.uint32)
        rounded = ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def weights_of(model: Any) -> dict[str, Any]:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    return {t.name: t for t in model.graph.initializer if t.data_type in floats}


def zero_weights(model: Any, names: tuple[str, ...] | None) -> None:
    """Takes weights out: those named, or all of them."""
    for name, tensor in weights_of(model).items():
        if names is None or name in names:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), name))


def types_of(model: Any) -> dict[str, str]:
    inferred = onnx.shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.output]
    names = {1: "float32", 10: "float16", 16: "bfloat16", 7: "int64"}
    return {v.name: names.get(v.type.tensor_type.elem_type, "") for v in values}


def multiplies_integers(graph: Any, node: Any) -> bool:
    """Whether both factors of a node come from int8, through DequantizeLinear."""
    makers = {name: n for n in graph.node for name in n.output}
    both = [makers.get(name) for name in node.input[:2]]
    return len(both) == 2 and all(maker is not None and maker.op_type == "DequantizeLinear" for maker in both)
