"""An ONNX graph as plain data, read without the onnx package: engines are built where it is not installed.

Field numbers are those of onnx.proto (IR version 3 to 14). Weights stay where they are in the file; only their names,
types and shapes are read, and the values of those that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.bundle.onnx_wire import fields_of
from ganruntime.errors import BundleIntegrityError

# TensorProto.DataType -> the names that this project uses.
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8e4m3fn",
    18: "float8e4m3fnuz",
    19: "float8e5m2",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4e2m1",
}
_NUMPY = {"float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64"}
_TENSOR_VALUES = {4, 5, 6, 7, 9, 10, 11}  # every field of TensorProto that holds values
_DEPTH_LIMIT = 16
STANDARD_DOMAINS = ("", "ai.onnx")

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Tensor:
    """A constant of the graph: an initializer, or the value of an attribute."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: tuple[tuple[int, int, bytes | memoryview], ...] = field(repr=False)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def values(self) -> NDArray[np.generic] | None:
        """The values, for NumPy's plain types; None for others, and where they are not as many as the shape says."""
        dtype = np.dtype(np.bool_) if self.dtype == "bool" else np.dtype(self.dtype) if self.dtype in _NUMPY else None
        if dtype is None:
            return None
        flat = [_content_values(number, value, piece, dtype) for number, value, piece in self.content]
        joined = np.concatenate(flat) if flat else np.empty(0, dtype)
        return joined.reshape(self.shape) if joined.size == self.size else None


def _content_values(number: int, value: int, piece: bytes | memoryview, dtype: np.dtype[Any]) -> NDArray[np.generic]:
    if number == 9:  # raw_data
        return np.frombuffer(piece, dtype.newbyteorder("<")).astype(dtype)
    if number in (4, 10):  # float_data, double_data, packed or one at a time
        return np.frombuffer(piece, "<f4" if number == 4 else "<f8").astype(dtype)
    numbers = _varints(piece) if len(piece) else np.array([_signed(value)])
    # float16 stands in int32_data as its bits.
    return numbers.astype(np.uint16).view(dtype) if dtype == np.float16 else numbers.astype(dtype)


@dataclass(frozen=True)
class Node:
    """`index`: its place among the nodes of its graph; `where`: the path to that graph, empty for the top one."""

    index: int
    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    where: str = ""

    def input(self, position: int) -> str:
        """The name of an input, empty where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def __str__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        inside = f" in {self.where}" if self.where else ""
        return f"node {self.index}{name}{inside} ({self.operator})"


@dataclass(frozen=True)
class Graph:
    """One graph: {name: (dtype, shape)} of what is known of its tensors, its constants, its nodes in order."""

    nodes: tuple[Node, ...]
    inputs: Mapping[str, tuple[str, Shape | None]]
    outputs: Mapping[str, tuple[str, Shape | None]]
    known: Mapping[str, tuple[str, Shape | None]]
    initializers: Mapping[str, Tensor]

    @cached_property
    def producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def constant(self, name: str) -> Tensor | None:
        """The tensor behind a name that is known before the graph runs: an initializer, or a Constant node's value."""
        if name in self.initializers:
            return self.initializers[name]
        node = self.producers.get(name)
        if node is not None and node.operator == "Constant" and isinstance(node.attributes.get("value"), Tensor):
            value: Tensor = node.attributes["value"]
            return value
        return None

    def is_constant(self, name: str) -> bool:
        """Whether a name is known before the graph runs. An input that is left out counts as known."""
        node = self.producers.get(name)
        return not name or name in self.initializers or (node is not None and node.operator == "Constant")


@dataclass(frozen=True)
class Model:
    """An ONNX file: {domain: opset version}, its graph, and the functions that it defines for itself."""

    opsets: Mapping[str, int]
    graph: Graph
    functions: Mapping[tuple[str, str], Graph]

    @property
    def opset(self) -> int:
        return max((self.opsets[d] for d in STANDARD_DOMAINS if d in self.opsets), default=1)

    def graphs(self) -> Iterator[Graph]:
        """The graph, those in its nodes' attributes, and those of the functions."""
        stack = [self.graph, *self.functions.values()]
        while stack:
            graph = stack.pop()
            yield graph
            for node in graph.nodes:
                stack += [value for value in node.attributes.values() if isinstance(value, Graph)]


def model_from_onnx(data: bytes, name: str) -> Model:
    """Reads an ONNX file.

    Args:
        data: the whole file.
        name: how the file is called, for the error.

    Raises:
        BundleIntegrityError: the file is truncated, or not an ONNX model.
    """
    try:
        return _Reader(name).model(memoryview(data))
    except (ValueError, UnicodeDecodeError, IndexError) as error:
        raise BundleIntegrityError(f"{name}: cannot be read", got=str(error), expected="a whole ONNX file") from error


class _Reader:
    def __init__(self, name: str) -> None:
        self._name = name

    def model(self, view: memoryview) -> Model:
        opsets: dict[str, int] = {}
        graph: Graph | None = None
        functions: dict[tuple[str, str], Graph] = {}
        for number, _, _, piece in fields_of(view, self._name):
            if number == 7:
                graph = self.graph(piece)
            elif number == 8:
                domain, version = self._opset(piece)
                opsets[domain] = version
            elif number == 25:
                key, body = self._function(piece)
                functions[key] = body
        if graph is None:
            raise BundleIntegrityError(f"{self._name}: holds no graph", expected="a whole ONNX file")
        return Model(opsets, graph, functions)

    def _opset(self, view: memoryview) -> tuple[str, int]:
        domain, version = "", 0
        for number, _, value, piece in fields_of(view, self._name):
            if number == 1:
                domain = _text(piece)
            elif number == 2:
                version = value
        return domain, version

    def _function(self, view: memoryview) -> tuple[tuple[str, str], Graph]:
        name, domain = "", ""
        pieces: list[memoryview] = []
        for number, _, _, piece in fields_of(view, self._name):
            if number == 1:
                name = _text(piece)
            elif number == 7:
                pieces.append(piece)
            elif number == 10:
                domain = _text(piece)
        nodes = [self.node(piece, index, f"function {domain}.{name}", 1) for index, piece in enumerate(pieces)]
        return (domain, name), Graph(tuple(nodes), {}, {}, {}, {})

    def graph(self, view: memoryview, where: str = "", depth: int = 0) -> Graph:
        if depth > _DEPTH_LIMIT:
            raise BundleIntegrityError(f"{self._name}: graphs are nested more than {_DEPTH_LIMIT} levels deep")
        nodes: list[Node] = []
        sides: dict[int, dict[str, tuple[str, Shape | None]]] = {11: {}, 12: {}, 13: {}}
        initializers: dict[str, Tensor] = {}
        for number, _, _, piece in fields_of(view, self._name):
            if number == 1:
                nodes.append(self.node(piece, len(nodes), where, depth))
            elif number == 5:
                tensor = self._tensor(piece)
                initializers[tensor.name] = tensor
            elif number in sides:
                name, dtype, shape = self._value_info(piece)
                sides[number][name] = (dtype, shape)
        inputs = {n: t for n, t in sides[11].items() if n not in initializers}
        return Graph(tuple(nodes), inputs, sides[12], sides[13] | sides[12] | sides[11], initializers)

    def node(self, view: memoryview, index: int, where: str, depth: int) -> Node:
        inputs: list[str] = []
        outputs: list[str] = []
        texts = {3: "", 4: "", 7: ""}
        attributes: list[memoryview] = []
        for number, _, _, piece in fields_of(view, self._name):
            if number == 1:
                inputs.append(_text(piece))
            elif number == 2:
                outputs.append(_text(piece))
            elif number in texts:
                texts[number] = _text(piece)
            elif number == 5:
                attributes.append(piece)
        label = f"{where}/{texts[3] or texts[4]}".lstrip("/")
        return Node(
            index=index,
            name=texts[3],
            operator=texts[4],
            domain=texts[7],
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            attributes=dict(self._attribute(a, label, depth) for a in attributes),
            where=where,
        )

    def _attribute(self, view: memoryview, where: str, depth: int) -> tuple[str, Any]:
        name = ""
        single: Any = None
        several: list[Any] = []
        is_list = False
        for number, _, value, piece in fields_of(view, self._name):
            if number == 1:
                name = _text(piece)
            elif number == 2:
                single = float(np.frombuffer(piece, "<f4")[0])
            elif number == 3:
                single = _signed(value)
            elif number == 4:
                single = bytes(piece).decode("utf-8", "replace")
            elif number == 5:
                single = self._tensor(piece)
            elif number == 6:
                single = self.graph(piece, where, depth + 1)
            elif number == 7:
                is_list = True
                several += [float(v) for v in np.frombuffer(piece, "<f4")]
            elif number == 8:
                is_list = True
                several += _varints(piece).tolist() if len(piece) else [_signed(value)]
            elif number == 9:
                is_list = True
                several.append(bytes(piece).decode("utf-8", "replace"))
            elif number == 20 and value in (6, 7, 8):  # floats, ints, strings, also where there are none of them
                is_list = True
        return name, tuple(several) if is_list else single

    def _tensor(self, view: memoryview) -> Tensor:
        name, dtype = "", 0
        shape: list[int] = []
        content: list[tuple[int, int, bytes | memoryview]] = []
        for number, _, value, piece in fields_of(view, self._name):
            if number == 1:
                shape += _varints(piece).tolist() if len(piece) else [_signed(value)]
            elif number == 2:
                dtype = value
            elif number == 8:
                name = _text(piece)
            elif number in _TENSOR_VALUES:
                content.append((number, value, piece))
        return Tensor(name, DTYPES.get(dtype, f"type {dtype}"), tuple(shape), tuple(content))

    def _value_info(self, view: memoryview) -> tuple[str, str, Shape | None]:
        name, dtype = "", ""
        shape: Shape | None = None
        for number, _, _, piece in fields_of(view, self._name):
            if number == 1:
                name = _text(piece)
            elif number == 2:
                for kind, _, _, tensor in fields_of(piece, self._name):
                    if kind == 1:  # a tensor, and no sequence, map or optional
                        dtype, shape = self._tensor_type(tensor)
        return name, dtype, shape

    def _tensor_type(self, view: memoryview) -> tuple[str, Shape | None]:
        dtype = ""
        shape: Shape | None = None
        for number, _, value, piece in fields_of(view, self._name):
            if number == 1:
                dtype = DTYPES.get(value, f"type {value}")
            elif number == 2:
                shape = tuple(self._dimension(d) for n, _, _, d in fields_of(piece, self._name) if n == 1)
        return dtype, shape

    def _dimension(self, view: memoryview) -> int | None:
        for number, _, value, _ in fields_of(view, self._name):
            if number == 1:
                return _signed(value)
        return None


def _text(piece: memoryview) -> str:
    return bytes(piece).decode("utf-8", "replace")


def _signed(value: int) -> int:
    """A varint as int64: two's complement in 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _varints(piece: bytes | memoryview) -> NDArray[np.int64]:
    values, value, shift = [], 0, 0
    for byte in bytes(piece):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(_signed(value))
            value, shift = 0, 0
        elif shift > 63:
            raise ValueError("a packed number of more than ten bytes")
    return np.array(values, np.int64)
