"""A look into an ONNX file before a native library parses it: is it whole, and does it point outside itself?

Walks the protobuf wire format (https://protobuf.dev/programming-guides/encoding) along the few fields of onnx.proto
that can hold a tensor, and skips the rest by length. It needs no onnx package, and trusts no length that it reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from ganruntime.errors import BundleIntegrityError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEPTH_LIMIT = 64
_KEY_LIMIT = 1 << 32

# message -> {field number: message of that field}, from onnx.proto (IR version 3 to 14): every way to a tensor.
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_TENSOR_NAME, _TENSOR_EXTERNAL_DATA, _TENSOR_DATA_LOCATION = 8, 13, 14

Field = tuple[int, int, int, memoryview]


def metadata_of(data: bytes, name: str) -> dict[str, str]:
    """Checks an ONNX file and returns its `metadata_props`.

    Args:
        data: the whole file.
        name: how the file is called, for the error.

    Raises:
        BundleIntegrityError: the file is not a protobuf message with a graph, is truncated, is nested too deeply, has
            a metadata key twice, or keeps tensors in external files.
    """
    if data[4:8] == b"ORTM":
        # Bytes that protobuf may read as a model and ONNX Runtime as its own format, in which nothing was checked.
        raise _error(name, "is in ONNX Runtime's own format")
    metadata: dict[str, str] = {}
    has_graph = False
    # Iterators, not lists of messages: a file of ten million empty nodes must not fill the memory.
    stack: list[tuple[str, memoryview, Iterator[Field]]] = []

    def enter(message: str, view: memoryview) -> None:
        if len(stack) > _DEPTH_LIMIT:
            raise _error(name, f"is nested more than {_DEPTH_LIMIT} levels deep")
        stack.append((message, view, fields_of(view, name)))

    enter("Model", memoryview(data))
    while stack:
        message, view, fields = stack[-1]
        field = next(fields, None)
        if field is None:
            stack.pop()
            continue
        number, wire, value, piece = field
        if wire == _BYTES and number in _MESSAGES[message]:
            has_graph |= message == "Model" and number == _MODEL_GRAPH
            enter(_MESSAGES[message][number], piece)
        elif message == "Tensor" and (number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value)):
            raise BundleIntegrityError(
                f"{name}: tensor {_tensor_name(view, name)!r} is kept in an external file",
                expected="tensors inside the file",
                remedy="export again with the weights embedded (ganexport to-onnx does so)",
            )
        elif message == "Model" and wire == _BYTES and number == _MODEL_METADATA:
            key, text = _entry(piece, name)
            if key in metadata:
                raise _error(name, f"has the metadata key {key[:80]!r} twice")
            metadata[key] = text
    if not has_graph:
        raise _error(name, "holds no graph")
    return metadata


def _entry(view: memoryview, name: str) -> tuple[str, str]:
    """A StringStringEntryProto: key 1, value 2."""
    texts = {
        n: bytes(piece).decode("utf-8", "replace") for n, wire, _, piece in fields_of(view, name) if wire == _BYTES
    }
    return texts.get(1, ""), texts.get(2, "")


def _tensor_name(view: memoryview, name: str) -> str:
    for number, wire, _, piece in fields_of(view, name):
        if number == _TENSOR_NAME and wire == _BYTES:
            return bytes(piece).decode("utf-8", "replace")
    return ""


def fields_of(view: memoryview, name: str) -> Iterator[Field]:
    """Yields (field number, wire type, integer value, bytes) of one message. Raises `BundleIntegrityError`."""
    position, end = 0, len(view)
    nothing = view[:0]
    while position < end:
        key, position = _varint(view, position, name)
        number, wire = key >> 3, key & 7
        # Readers keep 32 bits of a key: a larger one would be another field to them than it is here.
        if number == 0 or key >= _KEY_LIMIT:
            raise _error(name, "has a field number out of range")
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
