"""The wire reader against the onnx package: the same nodes, attributes, constants, shapes and types."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper, parser
from tensorrt_bundles import onnx_generator

from ganexport.tensorrt.graph_nodes import DTYPES, Graph, Tensor, model_from_onnx
from ganexport.tensorrt.node_types import main_type, types_of
from ganruntime.errors import BundleIntegrityError

MODEL = onnx_generator(labelled=True)


def test_dtype_names_are_those_of_onnx() -> None:
    known = {number: name.lower() for name, number in TensorProto.DataType.items() if number in DTYPES}
    renamed = {"float": "float32", "double": "float64"}
    assert {n: renamed.get(name, name) for n, name in known.items()} == DTYPES


def test_nodes_inputs_and_constants() -> None:
    expected = onnx.load_from_string(MODEL).graph
    graph = model_from_onnx(MODEL, "m").graph
    assert [(n.name, n.operator, list(n.inputs), list(n.outputs)) for n in graph.nodes] == [
        (n.name, n.op_type, list(n.input), list(n.output)) for n in expected.node
    ]
    assert graph.inputs == {"z": ("float32", (None, 16)), "label": ("int64", (None,))}
    assert graph.outputs == {"image": ("float32", (None, 1, 8, 8))}
    assert set(graph.initializers) == {t.name for t in expected.initializer}
    for tensor in expected.initializer:
        values = graph.initializers[tensor.name].values()
        assert values is not None
        np.testing.assert_array_equal(values, numpy_helper.to_array(tensor))
    (grow,) = (n for n in graph.nodes if n.operator == "ConvTranspose")
    assert grow.attributes == {"strides": (2, 2), "pads": (1, 1, 1, 1)}
    assert str(grow) == "node 4 'grow' (ConvTranspose)"
    assert graph.producers["image"].operator == "Tanh"
    assert [n.name for n in graph.consumers["up"]] == ["squash"]
    assert model_from_onnx(MODEL, "m").opset == 18


@given(
    st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.int32, np.int8, np.uint8, np.bool_]),
    st.lists(st.integers(0, 4), max_size=4),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_values_in_every_form(kind: type[np.generic], shape: list[int], raw: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    array = (random.standard_normal(shape) * 100).astype(kind)
    name = TensorProto.DataType.Name(helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    if raw:
        tensor = numpy_helper.from_array(array, "t")
    else:
        tensor = helper.make_tensor("t", TensorProto.DataType.Value(name), shape, array.reshape(-1).tolist())
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    output = helper.make_tensor_value_info("y", tensor.data_type, shape)
    model = helper.make_model(helper.make_graph([node], "g", [], [output]))
    graph = model_from_onnx(model.SerializeToString(), "m").graph
    found = graph.constant("y")
    assert found is not None
    assert found.shape == tuple(shape)
    values = found.values()
    assert values is not None
    assert values.dtype == array.dtype
    np.testing.assert_array_equal(values, array)
    assert types_of(graph)["y"] == str(array.dtype)


def test_every_kind_of_attribute() -> None:
    body = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])
    node = helper.make_node(
        "Custom",
        ["x", "", "y"],
        ["z"],
        domain="ours",
        one=-3,
        ratio=0.5,
        mode="linear",
        tensor=numpy_helper.from_array(np.arange(3)),
        branch=body,
        floats=[1.0, -2.5],
        ints=[1, -2, 2**40],
        strings=["a", "b"],
    )
    node.attribute.append(helper.make_attribute("none", [], attr_type=onnx.AttributeProto.INTS))
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    (found,) = model_from_onnx(model.SerializeToString(), "m").graph.nodes
    assert (found.domain, found.inputs, found.input(1), found.input(7)) == ("ours", ("x", "", "y"), "", "")
    tensor, branch = found.attributes["tensor"], found.attributes["branch"]
    assert isinstance(tensor, Tensor)
    assert isinstance(branch, Graph)
    assert [str(n) for n in branch.nodes] == ["node 0 in Custom (Identity)"]
    rest = {k: v for k, v in found.attributes.items() if k not in ("tensor", "branch")}
    assert rest == {
        "one": -3,
        "ratio": 0.5,
        "mode": "linear",
        "floats": (1.0, -2.5),
        "ints": (1, -2, 2**40),
        "strings": ("a", "b"),
        "none": (),
    }


def test_functions_are_read() -> None:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 18, "ours": 1]>
        g (float[N, 4] x) => (float[N, 4] y) { y = ours.twice(x) }
        <domain: "ours", opset_import: ["": 18]>
        twice (a) => (b) { b = Add(a, a) }
        """
    )
    found = model_from_onnx(model.SerializeToString(), "m")
    assert found.opsets == {"": 18, "ours": 1}
    assert [n.operator for n in found.functions["ours", "twice"].nodes] == ["Add"]
    assert [n.operator for graph in found.graphs() for n in graph.nodes] == ["Add", "twice"]


TYPED = """
<ir_version: 10, opset_import: ["": 21]>
g (float[N, 4] x, int64[N] label) => (float[N, 4] y)
<float[4, 4] w, float[2, 4] table, int8 zero = {0}, float scale = {0.1}> {
  half = Cast <to = 10> (x)
  w16 = Cast <to = 10> (w)
  product = MatMul (half, w16)
  shape = Shape (product)
  zeros = ConstantOfShape (shape)
  big = Greater (product, half)
  chosen = Where (big, product, half)
  like = CastLike (zeros, chosen)
  sum = Add (chosen, like)
  rows = Gather (table, label)
  quantised = QuantizeLinear (x, scale, zero)
  back = DequantizeLinear (quantised, scale, zero)
  top, place = TopK (x, shape)
  widened = Cast <to = 1> (sum)
  all = Sum (widened, rows, back)
  y = Tanh (all)
}
"""


def test_types_are_those_that_onnx_infers() -> None:
    model = parser.parse_model(TYPED)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    expected = {v.name: DTYPES[v.type.tensor_type.elem_type] for v in inferred.graph.value_info}
    graph = model_from_onnx(model.SerializeToString(), "m").graph
    found = types_of(graph)
    # `place`, whose rank nothing tells, is not inferred by every release of onnx.
    assert {name: found[name] for name in expected} == expected
    assert len(expected) >= 13
    assert (found["quantised"], found["back"], found["place"]) == ("int8", "float32", "int64")
    types = {n.outputs[0]: main_type(n, found) for n in graph.nodes}
    assert (types["chosen"], types["rows"], types["back"], types["zeros"]) == ("float16", "float32", "int8", "float32")


@given(st.integers(0, len(MODEL) - 1))
@settings(max_examples=60, deadline=None)
def test_truncated_files_are_refused_or_read(length: int) -> None:
    with contextlib.suppress(BundleIntegrityError):
        found = model_from_onnx(MODEL[:length], "broken.onnx")
        assert len(found.graph.nodes) <= 6


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_bytes_break_it(data: bytes) -> None:
    with contextlib.suppress(BundleIntegrityError):
        model_from_onnx(data, "noise")


def test_the_error_names_the_file() -> None:
    with pytest.raises(BundleIntegrityError, match=r"broken\.onnx: is truncated"):
        model_from_onnx(MODEL[:-3], "broken.onnx")


def test_a_file_without_a_graph_is_refused() -> None:
    with pytest.raises(BundleIntegrityError, match="holds no graph"):
        model_from_onnx(b"", "empty.onnx")


def test_graphs_nested_without_end_are_refused() -> None:
    graph = helper.make_graph([], "g", [], [])
    for _ in range(20):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    with pytest.raises(BundleIntegrityError, match="nested more than"):
        model_from_onnx(helper.make_model(graph).SerializeToString(), "deep.onnx")
