"""A look into an ONNX file before a native library parses it: is it whole, and does it point outside itself?

Walks the protobuf wire format (https://protobuf.dev/programming-guides/encoding) along the few fields of onnx.proto
that can hold a tensor, and skips the rest by length. It needs no onnx package, and trusts no length that it reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from ganruntime.errors import BundleIntegrityError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEPTH_LIMIT = 64
_EXTERNAL = 1

# message -> {field number: message of that field}, from onnx.proto (IR version 3 to 14).
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 14: "Entry", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
    "Entry": {},
}
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14


def metadata_of(data: bytes, name: str) -> dict[str, str]:
    """Checks an ONNX file and returns its `metadata_props`.

    Args:
        data: the whole file.
        name: how the file is called, for the error.

    Raises:
        BundleIntegrityError: the file is not a protobuf message with a graph, is truncated, is nested too deeply, or
            keeps tensors in external files.
    """
    metadata: dict[str, str] = {}
    has_graph = False
    stack: list[tuple[str, memoryview, int]] = [("Model", memoryview(data), 0)]
    while stack:
        message, view, depth = stack.pop()
        if depth > _DEPTH_LIMIT:
            raise _error(name, f"is nested more than {_DEPTH_LIMIT} levels deep")
        children = _MESSAGES[message]
        entry: dict[int, str] = {}
        for number, wire, value, piece in _fields(view, name):
            if number in children and wire == _BYTES:
                has_graph |= message == "Model" and number == 7
                stack.append((children[number], piece, depth + 1))
            elif message == "Tensor" and (
                number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value == _EXTERNAL)
            ):
                raise BundleIntegrityError(
                    f"{name}: tensor {_tensor_name(view, name)!r} is kept in an external file",
                    expected="tensors inside the file",
                    remedy="export again with the weights embedded (ganexport to-onnx does so)",
                )
            elif message == "Entry" and wire == _BYTES:
                entry[number] = bytes(piece).decode("utf-8", "replace")
        if message == "Entry" and 1 in entry:
            metadata[entry[1]] = entry.get(2, "")
    if not has_graph:
        raise _error(name, "holds no graph")
    return metadata


def _tensor_name(view: memoryview, name: str) -> str:
    for number, wire, _, piece in _fields(view, name):
        if number == _TENSOR_NAME and wire == _BYTES:
            return bytes(piece).decode("utf-8", "replace")
    return ""


def _fields(view: memoryview, name: str) -> Iterator[tuple[int, int, int, memoryview]]:
    """Yields (field number, wire type, integer value, bytes) of one message."""
    position, end = 0, len(view)
    nothing = view[:0]
    while position < end:
        key, position = _varint(view, position, name)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _error(name, "has a field number 0")
        if wire == _VARINT:
            value, position = _varint(view, position, name)
            yield number, wire, value, nothing
            continue
        if wire == _BYTES:
            length, position = _varint(view, position, name)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _error(name, f"has a field of unknown wire type {wire}")
        if length > end - position:
            raise _error(name, "is truncated")
        yield number, wire, 0, view[position : position + length]
        position += length


def _varint(view: memoryview, position: int, name: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise _error(name, "is truncated")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _error(name, "has a number of more than ten bytes")


def _error(name: str, problem: str) -> BundleIntegrityError:
    return BundleIntegrityError(f"{name}: {problem}", expected="a whole ONNX file", remedy="export the bundle again")
