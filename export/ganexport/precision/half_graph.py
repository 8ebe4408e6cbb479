"""Typed half graphs: weights and activations in fp16 or bf16, islands in fp32, Casts where the two meet.

Inputs and outputs stay as the spec has them, float32, with a Cast at the border. Every value of the fp32 graph keeps
its name, so that the two can be compared value by value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from ganexport.passes.constants import constant_of, new_initializer
from ganexport.precision.islands import Island, islands_of
from ganexport.precision.ranges import ValueRange, is_float_value, touches_float
from ganexport.precision.rounding import HalfType, rounded
from ganexport.precision.signature import signature_of
from ganruntime.errors import ExportError


@dataclass(frozen=True)
class HalfGraph:
    """A typed graph and what was decided.

    islands: what stayed in fp32. half_nodes: how many nodes compute in the half type, casts not counted.
    flushed_weights: the share of nonzero weights that the half type rounds to 0.
    """

    graph: bytes
    islands: tuple[Island, ...]
    half_nodes: int
    flushed_weights: float


def half_graph_from_model(graph: bytes, ranges: Mapping[str, ValueRange], half: HalfType) -> HalfGraph:
    """The typed graph of an fp32 ONNX file.

    Args:
        ranges: from `ranges_from_graph`, of the same file.

    Raises:
        ExportError: the graph has branches, loops or functions; it is quantised or typed already.
    """
    proto = onnx.load_model_from_string(graph)
    _require_plain(proto)
    opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    if opset < half.opset:
        metadata = [(p.key, p.value) for p in proto.metadata_props]
        proto = onnx.version_converter.convert_version(proto, half.opset)
        del proto.metadata_props[:]
        for key, value in metadata:
            proto.metadata_props.add(key=key, value=value)
    model = ir.from_proto(proto)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    islands = islands_of(model, ranges, half)
    writer = _Writer(model, ranges, half)
    nodes = [n for n in list(model.graph) if touches_float(n, ranges)]
    for node in nodes:
        writer.type_node(node, in_half=node not in islands)
    writer.restore_outputs()
    typed = ir.to_proto(model)
    del typed.graph.value_info[:]  # their types are those of the fp32 graph
    onnx.checker.check_model(typed, full_check=True)
    return HalfGraph(
        typed.SerializeToString(deterministic=True),
        tuple(islands.values()),
        len(nodes) - len(islands),
        writer.flushed / writer.nonzero if writer.nonzero else 0.0,
    )


def _require_plain(model: onnx.ModelProto) -> None:
    nested = [n for n in model.graph.node if any(a.HasField("g") or a.graphs for a in n.attribute)]
    if nested or model.functions:
        raise ExportError(
            "the graph has branches, loops or functions, which are not typed",
            got=", ".join(f"{n.op_type} ({n.name})" for n in nested[:4]) or "functions",
            remedy="write them as tensor operations (torch.where), and export again",
        )
    typed = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    halves = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
    other = [t.name for t in model.graph.initializer if t.data_type in halves]
    other += [f"{n.name} (Cast)" for n in model.graph.node for a in n.attribute if a.name == "to" and a.i in halves]
    if typed or other:
        raise ExportError(
            "the graph is not all float32",
            got=", ".join([f"{n.op_type} ({n.name})" for n in typed[:3]] + other[:3]),
            expected="the fp32 graph of the bundle",
        )


class _Writer:
    """Types the nodes of one graph, and puts a Cast where a value is read in another type than it was made in."""

    def __init__(self, model: ir.Model, ranges: Mapping[str, ValueRange], half: HalfType) -> None:
        self.graph, self.ranges, self.half = model.graph, ranges, half
        self.half_type = ir.DataType[half.onnx_name]
        self.opset = model.opset_imports.get("", half.opset)
        self.flushed = self.nonzero = 0
        self._made_in_half: set[ir.Value] = set()
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._constants: dict[ir.Value, ir.Value] = {}

    def type_node(self, node: ir.Node, *, in_half: bool) -> None:
        signature = signature_of(node, self.opset)
        for i, value in enumerate(node.inputs):
            if value is None or not (is_float_value(value, self.ranges) or value in self._made_in_half):
                continue
            fixed = signature is None or signature.is_fixed_float(signature.inputs[i])
            self._read(node, i, value, in_half=in_half and not fixed)
        if not in_half:
            return
        assert signature is not None
        for i, value in enumerate(node.outputs):
            if is_float_value(value, self.ranges) and not signature.is_fixed_float(signature.outputs[i]):
                self._made_in_half.add(value)
                value.type = ir.TensorType(self.half_type)
        if node.op_type == "Cast":  # from float32 to float32: islands hold all others
            node.attributes["to"] = ir.AttrInt64("to", self.half_type.value)

    def _read(self, node: ir.Node, index: int, value: ir.Value, *, in_half: bool) -> None:
        if constant_of(value) is not None:
            if in_half:
                node.replace_input_with(index, self._half_constant(value))
        elif in_half != (value in self._made_in_half):
            node.replace_input_with(index, self._cast(value, self.half_type if in_half else ir.DataType.FLOAT))

    def _half_constant(self, value: ir.Value) -> ir.Value:
        if value not in self._constants:
            array = constant_of(value)
            assert array is not None
            nonzero = array != 0
            self.nonzero += int(nonzero.sum())
            self.flushed += int((nonzero & (rounded(array.astype(np.float32), self.half) == 0)).sum())
            made = new_initializer(self.graph, f"{value.name}_{self.half.name}", array.astype(self.half.dtype))
            self._constants[value] = made
        return self._constants[value]

    def _cast(self, value: ir.Value, to: ir.DataType) -> ir.Value:
        """One Cast per value and type, right behind the node that makes the value."""
        if (value, to) not in self._casts:
            suffix = self.half.name if to == self.half_type else "fp32"
            cast = ir.node("Cast", [value], {"to": to.value}, name=f"{value.name}_to_{suffix}")
            made = cast.outputs[0]
            made.name = f"{value.name}_{suffix}"
            made.type, made.shape = ir.TensorType(to), value.shape
            producer = value.producer()
            if producer is not None:
                self.graph.insert_after(producer, cast)
            else:
                self.graph.insert_before(next(iter(self.graph)), cast)
            self._casts[value, to] = made
        return self._casts[value, to]

    def restore_outputs(self) -> None:
        """Outputs in float32 again, under their own names."""
        for index, value in enumerate(self.graph.outputs):
            if value not in self._made_in_half:
                continue
            name, shape = value.name, value.shape
            producer = value.producer()
            assert producer is not None
            back = self._cast(value, ir.DataType.FLOAT)
            value.name, back.name = f"{name}_{self.half.name}", name
            back.shape = shape
            self.graph.outputs[index] = back
        for name in [n for n, v in self.graph.initializers.items() if not v.uses() and not v.is_graph_output()]:
            del self.graph.initializers[name]
