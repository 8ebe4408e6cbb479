"""The reference evaluation of a typed graph: what it computes by its own definition, on any CPU.

Where no kernel runs a half type, a float32 graph stands in for the typed one: the same nodes, with every value that the
typed graph holds in fp16 or bf16 rounded to that type by a Cast and widened again. So values are rounded where they are
stored, and sums are kept in float32, as matrix units do it. The stand-in is made from the typed file itself, the one
that ships. Q/DQ graphs are run as they are written: integers times scales, in float32.

A verdict of this session says `reference`: it is evidence about the numbers of a file, and none that a backend runs it.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ganexport.precision.rounding import HALF_TYPES, HalfType, rounded
from ganexport.precision.traced import plain_session
from ganruntime.bundle import Variant
from ganruntime.bundle.manifest import REFERENCE
from ganruntime.errors import BackendError
from ganruntime.sessions.base import Arrays, Session
from ganruntime.sessions.onnxruntime import import_onnxruntime
from ganruntime.spec import GeneratorSpec

# Of values that are rounded already, these give values that are rounded already.
_EXACT = {
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Identity", "Gather",
    "GatherND", "GatherElements", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Relu", "MaxPool", "Max", "Min",
    "Neg", "Abs", "Pad", "Where", "Clip", "Sign",
}  # fmt: skip


class ReferenceSession(Session):
    """A typed or quantised graph, evaluated in float32 by ONNX Runtime without its rewrites. Takes any batch."""

    backend: ClassVar[str] = REFERENCE

    def __init__(
        self, spec: GeneratorSpec, variant: Variant, graph: bytes, *, buckets: tuple[int, ...], where: str = ""
    ) -> None:
        """Opens a graph.

        Raises:
            MissingDependencyError: onnxruntime is not installed.
            BackendError: the graph is malformed, or this ONNX Runtime does not round as it should.
        """
        super().__init__(spec, variant, "cpu", buckets)
        half = HALF_TYPES.get(variant.precision)
        if half is not None:
            require_rounding(half)
            graph = emulated(graph)
        self._session = plain_session(graph)
        self._where = where or variant.file
        self._version = import_onnxruntime().__version__
        self._closed = False

    def run(self, inputs: Arrays, out: Arrays) -> None:
        if self._closed:
            raise BackendError("the session is closed")
        names = [t.name for t in self.spec.outputs]
        try:
            results = self._session.run(names, {t.name: inputs[t.name] for t in self.spec.inputs})
        except Exception as error:
            raise BackendError(
                f"the reference evaluation of {self._where} failed", got=str(error).strip()[:400]
            ) from error
        for name, array in zip(names, results, strict=True):
            np.copyto(out[name], array)

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": self._version, "onnx": onnx.__version__, "numpy": np.__version__}

    def close(self) -> None:
        self._closed = True


def require_rounding(half: HalfType) -> None:
    """Shows that a pair of Casts rounds here, as NumPy rounds: a runtime that removed the pair would pass every check.

    Raises:
        BackendError: it does not.
    """
    # Over all exponents, ties included, and beyond the largest number of the type.
    x = np.ldexp(np.linspace(1.0, 2.0, 4097), np.arange(4097) % 40 - 24).astype(np.float32)
    x = np.concatenate([x, -x, x * np.float32(0.1), np.array([0.0, half.largest, 1 + 2.0**-half.digits], np.float32)])
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["product"]),
        *_rounding_pair("product", "pair", half),
        helper.make_node("Mul", ["pair", "one"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "rounding",
        [value("x", TensorProto.FLOAT, ["n"])],
        [value("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = plain_session(model.SerializeToString()).run(None, {"x": x})[0]
    if not np.array_equal(found, rounded(x, half)):
        raise BackendError(
            f"this ONNX Runtime does not round to {half.name} in a pair of Casts",
            got=f"{np.mean(found != rounded(x, half)):.0%} of the values differ from NumPy's",
            remedy="install a released onnxruntime: pip install --upgrade onnxruntime",
        )


def emulated(graph: bytes) -> bytes:
    """The float32 stand-in of a typed graph. Every value keeps its name.

    Raises:
        BackendError: the types of the graph cannot be inferred.
    """
    model = onnx.load_model_from_string(graph)
    types = _types_of(model)
    halves = {getattr(TensorProto, h.onnx_name): h for h in HALF_TYPES.values()}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        node = _in_float32(node, halves)
        made_in = {name: halves.get(types.get(name, TensorProto.FLOAT)) for name in node.output}
        reads = {halves.get(types.get(name, TensorProto.FLOAT)) for name in node.input if name}
        exact = node.op_type in _EXACT or (node.op_type == "Cast" and reads == set(made_in.values()))
        if exact:
            nodes.append(node)
            continue
        pairs = []
        for i, (name, half) in enumerate(made_in.items()):
            if half is not None:
                node.output[i] = f"{name}.unrounded"
                pairs += _rounding_pair(node.output[i], name, half)
        nodes += [node, *pairs]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for tensor in model.graph.initializer:
        if tensor.data_type in halves:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _rounding_pair(source: str, target: str, half: HalfType) -> list[onnx.NodeProto]:
    narrow = f"{target}.{half.name}"
    return [
        helper.make_node("Cast", [source], [narrow], to=getattr(TensorProto, half.onnx_name)),
        helper.make_node("Cast", [narrow], [target], to=TensorProto.FLOAT),
    ]


def _in_float32(node: onnx.NodeProto, halves: dict[int, HalfType]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in halves:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("t") and attribute.t.data_type in halves:
            array = numpy_helper.to_array(attribute.t).astype(np.float32)
            attribute.t.CopyFrom(numpy_helper.from_array(array, attribute.t.name))
    return copy


def _types_of(model: onnx.ModelProto) -> dict[str, int]:
    """{value name: its element type}, of every value."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise BackendError("the types of the graph cannot be inferred", got=str(error)[:300]) from error
    graph = inferred.graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    types |= {t.name: t.data_type for t in graph.initializer}
    unknown = [name for n in graph.node for name in n.output if name and not types.get(name)]
    if unknown:
        raise BackendError("the types of the graph cannot be inferred", got=", ".join(unknown[:5]))
    return types
