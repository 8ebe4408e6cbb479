"""The look into an ONNX file: nothing external gets past it, and no bytes break it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_bundles import small_model, small_spec

from ganruntime.bundle import onnx_wire
from ganruntime.bundle.onnx_wire import metadata_of
from ganruntime.errors import BundleIntegrityError

SPEC = small_spec()
MODEL = small_model(SPEC).SerializeToString()


def varint(value: int) -> bytes:
    result = b""
    while value > 0x7F:
        result += bytes([value & 0x7F | 0x80])
        value >>= 7
    return result + bytes([value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


# The table of messages


def children(message: Descriptor) -> dict[int, str]:
    """Fields of an ONNX message through which a TensorProto can be reached."""

    def reaches(descriptor: Descriptor, seen: frozenset[str]) -> bool:
        if descriptor.name == "TensorProto":
            return True
        if descriptor.full_name in seen:
            return False
        below = [f.message_type for f in descriptor.fields if f.message_type is not None]
        return any(reaches(d, seen | {descriptor.full_name}) for d in below)

    messages = {f.number: f.message_type for f in message.fields if f.message_type is not None}
    return {n: d.name.removesuffix("Proto") for n, d in messages.items() if reaches(d, frozenset())}


def test_the_walk_knows_every_way_to_a_tensor() -> None:
    """Held against the protobuf descriptors of the onnx package, so that a new field does not stay unnoticed."""
    names, todo = set(), ["Model"]
    while todo:
        name = todo.pop()
        if name in names:
            continue
        names.add(name)
        found = children(getattr(onnx, f"{name}Proto").DESCRIPTOR)
        # What lies in a tensor itself (its external_data) is judged, not walked.
        assert found == onnx_wire._MESSAGES[name], name
        todo += found.values()
    assert names == set(onnx_wire._MESSAGES)


def test_the_field_numbers_are_those_of_onnx() -> None:
    tensor, model = TensorProto.DESCRIPTOR.fields_by_name, onnx.ModelProto.DESCRIPTOR.fields_by_name
    assert tensor["name"].number == onnx_wire._TENSOR_NAME
    assert tensor["external_data"].number == onnx_wire._TENSOR_EXTERNAL_DATA
    assert tensor["data_location"].number == onnx_wire._TENSOR_DATA_LOCATION
    assert model["graph"].number == onnx_wire._MODEL_GRAPH
    assert model["metadata_props"].number == onnx_wire._MODEL_METADATA


# What is whole


def test_metadata_comes_out_as_onnx_put_it_in() -> None:
    assert metadata_of(MODEL, "m") == {"ganexport.spec": SPEC.dumps()}
    model = small_model(SPEC)
    helper.set_model_props(model, {"a": "", "ключ": "значение", "big": "x" * 300_000})
    assert metadata_of(model.SerializeToString(), "m") == {"a": "", "ключ": "значение", "big": "x" * 300_000}
    assert metadata_of(small_model(SPEC, with_spec=False).SerializeToString(), "m") == {}


def test_fields_that_onnx_does_not_have_yet_are_skipped() -> None:
    unknown = (
        field(900, b"later")
        + varint(901 << 3)
        + varint(2**64 - 1)
        + varint(902 << 3 | 1)
        + b"8bytes!!"
        + varint(903 << 3 | 5)
        + b"4by!"
    )
    assert metadata_of(unknown + MODEL + unknown, "m") == metadata_of(MODEL, "m")


# External data, wherever it can hide


def external_tensor(name: str = "weights") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def in_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def in_attribute(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_attribute_list(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Custom", [], ["c"])
    node.attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(tensor)
    model.graph.node.append(node)


def subgraph(tensor: TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "inner", [], [], [tensor])


def in_subgraph(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=subgraph(tensor)))


def in_subgraph_of_a_subgraph(model: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph([helper.make_node("If", ["c"], ["d"], then_branch=subgraph(tensor))], "outer", [], [])
    model.graph.node.append(helper.make_node("Loop", ["c"], ["d"], body=inner))


def in_graph_list(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Custom", [], ["c"])
    node.attribute.add(name="many", type=onnx.AttributeProto.GRAPHS).graphs.append(subgraph(tensor))
    model.graph.node.append(node)


def sparse(values: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[9])


INSIDE = numpy_helper.from_array(np.zeros(4, np.int64), "inside")


def in_sparse_values(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.append(sparse(tensor, INSIDE))


def in_sparse_indices(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.append(sparse(INSIDE, tensor))


def in_sparse_attribute(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSOR).sparse_tensor.CopyFrom(sparse(tensor, INSIDE))
    model.graph.node.append(node)


def in_sparse_attribute_list(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Custom", [], ["c"])
    attribute = node.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSORS)
    attribute.sparse_tensors.append(sparse(tensor, INSIDE))
    model.graph.node.append(node)


def in_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    model.functions.append(helper.make_function("d", "f", [], ["c"], [node], []))


def in_function_default(model: onnx.ModelProto, tensor: TensorProto) -> None:
    function = helper.make_function("d", "f", [], [], [], [])
    function.attribute_proto.append(helper.make_attribute("value", tensor))
    model.functions.append(function)


def in_training(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().initialization.initializer.append(tensor)


def in_training_algorithm(model: onnx.ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().algorithm.initializer.append(tensor)


HIDING_PLACES = [f for name, f in list(globals().items()) if name.startswith("in_")]


@pytest.mark.parametrize("hide", HIDING_PLACES)
@pytest.mark.parametrize("parts", ["both", "location only", "entries only"])
def test_an_external_tensor_is_found_and_named(
    hide: Callable[[onnx.ModelProto, TensorProto], None], parts: str
) -> None:
    tensor = external_tensor()
    if parts == "location only":
        tensor.ClearField("external_data")
    if parts == "entries only":
        tensor.ClearField("data_location")
    model = small_model(SPEC)
    hide(model, tensor)
    with pytest.raises(BundleIntegrityError, match=r"x\.gan: tensor 'weights' is kept in an external file"):
        metadata_of(model.SerializeToString(), "x.gan")


@pytest.mark.parametrize("hide", HIDING_PLACES)
def test_a_tensor_inside_is_no_reason_to_refuse(hide: Callable[[onnx.ModelProto, TensorProto], None]) -> None:
    model = small_model(SPEC)
    inside = numpy_helper.from_array(np.zeros(4, np.float32), "weights")
    inside.data_location = TensorProto.DEFAULT
    hide(model, inside)
    assert metadata_of(model.SerializeToString(), "m") == metadata_of(MODEL, "m")


LOCATION_KEY, ENTRIES_KEY = 14 << 3, 13 << 3 | 2


@pytest.mark.parametrize(
    "disguised",
    [
        # protobuf keeps 32 bits of an enum and 32 bits of a key.
        varint(LOCATION_KEY) + varint(1 + 2**32),
        varint(LOCATION_KEY) + varint(1 + 2**63),
        varint(LOCATION_KEY) + b"\x81\x80\x80\x80\x80\x80\x80\x80\x80\x02",
        varint(LOCATION_KEY) + b"\x81\x80\x00",
        varint(LOCATION_KEY + 2**32) + varint(1),
        varint(LOCATION_KEY + 2**34) + varint(1),
        bytes([LOCATION_KEY | 0x80, 0x80, 0x00]) + varint(1),
        varint(LOCATION_KEY) + varint(1) + varint(LOCATION_KEY) + varint(0),
        varint(ENTRIES_KEY + 2**32) + varint(0),
        varint(ENTRIES_KEY) + varint(0),
    ],
)
def test_an_external_tensor_in_disguise_is_found(disguised: bytes) -> None:
    tensor = varint(1 << 3) + varint(4) + varint(2 << 3) + varint(1) + field(8, b"weights") + disguised
    with pytest.raises(BundleIntegrityError):
        metadata_of(MODEL + field(7, field(5, tensor)), "m")


def test_graphs_that_protobuf_would_merge_are_all_seen() -> None:
    second = field(7, field(5, external_tensor().SerializeToString()))
    for data in (MODEL + second, second + MODEL):
        with pytest.raises(BundleIntegrityError, match="external"):
            metadata_of(data, "m")


# What is not whole


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no graph"),
        (b"\x00", "field number"),
        (varint(8 << 3 | 2) + b"\x00", "no graph"),
        (varint(7 << 3) + b"\x01", "no graph"),
        (varint(7 << 3 | 2), "truncated"),
        (varint(7 << 3 | 2) + b"\xff", "truncated"),
        (varint(7 << 3 | 2) + varint(2**31), "truncated"),
        (varint(7 << 3 | 2) + varint(2**63), "truncated"),
        (varint(7 << 3 | 2) + varint(2**64 - 1), "truncated"),
        (varint(7 << 3 | 2) + b"\xff" * 10 + b"\x01", "ten bytes"),
        (b"\xff" * 11, "ten bytes"),
        (varint(1 << 3 | 1) + b"1234567", "truncated"),
        (varint(1 << 3 | 5) + b"123", "truncated"),
        (varint(1 << 3 | 3), "wire type"),
        (varint(1 << 3 | 4), "wire type"),
        (varint(1 << 3 | 6), "wire type"),
        (varint(1 << 3 | 7), "wire type"),
        (varint(2**32), "out of range"),
        (b"PK\x03\x04" + b"\x00" * 40, "wire type|truncated|field number"),
        (b"\x18\x00\x00\x00ORTM" + MODEL, "own format"),
        (MODEL + field(14, field(1, b"ganexport.spec") + field(2, b"another")), "twice"),
    ],
)
def test_what_is_no_whole_onnx_file(data: bytes, problem: str) -> None:
    with pytest.raises(BundleIntegrityError, match=problem) as error:
        metadata_of(data, "x.gan: model.onnx")
    assert "x.gan: model.onnx" in str(error.value)


def test_every_truncation_is_found_or_harmless() -> None:
    """Cut at any byte: an error, or a message that is whole as far as it goes and still has its graph."""
    small = helper.make_model(helper.make_graph([], "g", [], [], [numpy_helper.from_array(np.arange(3.0), "w")]))
    data = small.SerializeToString()
    whole = []
    for end in range(len(data)):
        try:
            metadata_of(data[:end], "m")
        except BundleIntegrityError:
            continue
        whole.append(end)
        assert onnx.ModelProto.FromString(data[:end]).HasField("graph")
    # The graph is the last but one field: after it a cut can fall between fields, and into no other place.
    assert len(whole) <= 2


def test_nesting_has_a_limit() -> None:
    def nested(depth: int) -> bytes:
        graph = b""
        for _ in range(depth):
            graph = field(1, field(5, field(6, graph)))
        return field(7, graph)

    assert metadata_of(nested(20), "m") == {}
    with pytest.raises(BundleIntegrityError, match="nested"):
        metadata_of(nested(30), "m")
    with pytest.raises(BundleIntegrityError, match="nested"):
        metadata_of(nested(20_000), "m")


def test_many_empty_nodes_fill_no_memory() -> None:
    data = field(7, field(1, b"") * 30_000)
    tracemalloc.start()
    try:
        assert metadata_of(data, "m") == {}
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# Fuzz: BundleIntegrityError or an answer, never anything else, in time that grows with the length


@settings(deadline=2000, max_examples=400)
@given(st.binary(max_size=600))
def test_random_bytes(data: bytes) -> None:
    check_any(data)


fields = st.recursive(
    st.binary(max_size=12),
    lambda inner: st.lists(
        st.tuples(st.sampled_from([1, 2, 5, 6, 7, 8, 10, 11, 13, 14, 15, 20, 22, 23, 25]), inner), max_size=4
    ).map(lambda items: b"".join(field(n, data) for n, data in items)),
    max_leaves=20,
)


@settings(deadline=2000, max_examples=300)
@given(fields)
def test_random_messages(data: bytes) -> None:
    check_any(field(7, data))


@settings(deadline=2000, max_examples=300)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), max_size=8),
    end=st.integers(0, len(MODEL)),
)
def test_random_edits_of_a_real_model(edits: list[tuple[int, int]], end: int) -> None:
    data = bytearray(MODEL)
    for position, value in edits:
        data[position] = value
    check_any(bytes(data[:end]))


def check_any(data: bytes) -> None:
    try:
        found = metadata_of(data, "x.gan: model.onnx")
    except BundleIntegrityError as error:
        message = str(error)
    else:
        assert all(isinstance(k, str) and isinstance(v, str) for k, v in found.items())
        return
    assert message.startswith("x.gan: model.onnx")
