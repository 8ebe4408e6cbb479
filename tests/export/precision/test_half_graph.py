"""Typed half graphs: types, borders, and an island for each rule."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_graphs import LATENT, dcgan, elementwise, graph_of, latents, rows, types_of, weights

from ganexport.precision.half_graph import HalfGraph, half_graph_from_model
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.rounding import BF16, FP16, HALF_TYPES, HalfType
from ganexport.precision.traced import plain_session
from ganruntime.errors import ExportError

node = helper.make_node
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def typed(graph: bytes, half: HalfType = FP16, scale: float = 1.0) -> HalfGraph:
    inputs = latents() if b"z" in [v.name.encode() for v in onnx.load_model_from_string(graph).graph.input] else None
    return half_graph_from_model(graph, ranges_from_graph(graph, inputs or rows(scale=scale)), half)


def island_ops(made: HalfGraph) -> dict[str, str]:
    return {island.op_type: island.reason for island in made.islands}


@pytest.mark.parametrize("half", HALF_TYPES.values(), ids=HALF_TYPES.keys())
def test_borders_are_float32_and_everything_between_but_the_head_is_half(half: HalfType) -> None:
    made = typed(dcgan(), half)
    model = onnx.load_model_from_string(made.graph)
    types = types_of(made.graph)
    assert [v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)] == [TensorProto.FLOAT] * 2
    assert {types[name] for name in ("flat", "map", "up1", "positive1", "up2")} == {TYPES[half.name]}
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    assert {k for k in kinds.values() if k != TensorProto.INT64} == {TYPES[half.name]}
    assert [n.op_type for n in model.graph.node].count("Cast") == 2
    assert [(i.node, i.op_type) for i in made.islands] == [("head", "Tanh")]
    assert model.opset_import[0].version >= half.opset
    assert made.half_nodes == 6
    assert len(made.graph) < 0.6 * len(dcgan())


@pytest.mark.parametrize("half", HALF_TYPES.values(), ids=HALF_TYPES.keys())
def test_pixel_norm_stays_in_fp32_with_its_square_and_epsilon(half: HalfType) -> None:
    graph = elementwise(
        [
            node("MatMul", ["x", "w"], ["h"], name="dense"),
            node("Mul", ["h", "h"], ["square"]),
            node("ReduceMean", ["square", "last"], ["mean"], keepdims=1),
            node("Add", ["mean", "epsilon"], ["safe"]),
            node("Sqrt", ["safe"], ["root"]),
            node("Div", ["h", "root"], ["unit"]),
            node("MatMul", ["unit", "w"], ["y"], name="out"),
        ],
        w=weights(0, LATENT, LATENT),
        last=np.array([1], np.int64),
        epsilon=np.array(1e-8, np.float32),
    )
    made = typed(graph, half)
    assert set(island_ops(made)) == {"Mul", "ReduceMean", "Add", "Sqrt", "Div"}
    assert {"square", "mean", "safe", "root"} <= {k for k, v in types_of(made.graph).items() if v == TensorProto.FLOAT}
    assert types_of(made.graph)["h"] == TYPES[half.name]


def test_instance_norm_exponentials_and_large_means_stay_in_fp32() -> None:
    graph = graph_of(
        [
            node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            node("InstanceNormalization", ["c", "g", "b"], ["n"]),
            node("Softplus", ["n"], ["s"]),
            node("ReduceMean", ["s", "places"], ["m"], keepdims=1),
            node("Add", ["s", "m"], ["a"]),
            node("Conv", ["a", "w"], ["y"], pads=[1, 1, 1, 1]),
        ],
        {
            "w": weights(0, 2, 2, 3, 3),
            "g": np.ones(2, np.float32),
            "b": np.zeros(2, np.float32),
            "places": np.array([2, 3], np.int64),
        },
        {"x": (2, 20, 20)},
        {"y": (2, 20, 20)},
    )
    made = half_graph_from_model(graph, ranges_from_graph(graph, {"x": weights(1, 2, 2, 20, 20)}), FP16)
    reasons = island_ops(made)
    assert reasons["InstanceNormalization"] == "a normalisation"
    assert reasons["ReduceMean"] == "a sum over 400 elements"
    assert set(reasons) == {"InstanceNormalization", "Softplus", "ReduceMean"}


def test_what_overflows_fp16_is_an_island_with_its_readers_and_bf16_holds_it() -> None:
    graph = elementwise(
        [
            node("MatMul", ["x", "w"], ["h"], name="dense"),
            node("Mul", ["h", "big"], ["loud"], name="loud"),
            node("LeakyRelu", ["loud"], ["leaky"], name="reader"),
            node("MatMul", ["leaky", "w"], ["y"], name="out"),
        ],
        w=weights(0, LATENT, LATENT, scale=0.05),
        big=np.array(60000.0, np.float32),
    )
    assert {"loud", "reader"} <= {i.node for i in typed(graph).islands}
    assert "reaches" in next(i.reason for i in typed(graph).islands if i.node == "loud")
    assert typed(graph, BF16).islands == ()


def test_a_divisor_that_underflows_and_an_epsilon_are_islands_in_fp16() -> None:
    graph = elementwise(
        [
            node("MatMul", ["x", "w"], ["h"], name="dense"),
            node("Add", ["h", "epsilon"], ["safe"], name="guard"),
            node("Relu", ["safe"], ["r"], name="reader"),
            node("MatMul", ["r", "w"], ["d"], name="divisor"),
            node("Reciprocal", ["d"], ["y"], name="inverse"),
        ],
        w=weights(0, LATENT, LATENT, scale=1e-4),
        epsilon=np.array(1e-6, np.float32),
    )
    reasons = {i.node: i.reason for i in typed(graph).islands}
    assert "1e-06" in reasons["guard"]
    assert "guard" not in {i.node for i in typed(graph, BF16).islands}
    assert "divided by" in reasons["divisor"]


def test_scales_of_a_resize_stay_float32_and_counts_are_not_halved() -> None:
    graph = graph_of(
        [
            node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            node("Resize", ["c", "", "scales"], ["r"], mode="nearest"),
            node("Conv", ["r", "w"], ["y"], pads=[1, 1, 1, 1]),
        ],
        {"w": weights(0, 2, 2, 3, 3), "scales": np.array([1, 1, 2, 2], np.float32)},
        {"x": (2, 4, 4)},
        {"y": (2, 8, 8)},
    )
    made = half_graph_from_model(graph, ranges_from_graph(graph, {"x": weights(1, 2, 2, 4, 4)}), FP16)
    kinds = {t.name: t.data_type for t in onnx.load_model_from_string(made.graph).graph.initializer}
    assert kinds["scales"] == TensorProto.FLOAT
    assert types_of(made.graph)["r"] == TensorProto.FLOAT16
    assert made.islands == ()


def test_a_weight_shared_with_an_island_is_kept_in_both_types() -> None:
    graph = elementwise(
        [
            node("MatMul", ["x", "w"], ["h"], name="dense"),
            node("Exp", ["h"], ["e"]),
            node("MatMul", ["e", "w"], ["m"], name="again"),
            node("Mul", ["m", "gain"], ["y"], name="head"),
            node("Pow", ["h", "gain"], ["unused"]),
        ],
        w=weights(0, LATENT, LATENT),
        gain=weights(1, LATENT),
    )
    made = typed(graph)
    kinds = {t.name: t.data_type for t in onnx.load_model_from_string(made.graph).graph.initializer}
    assert kinds["gain"] == TensorProto.FLOAT
    assert kinds["w_fp16"] == TensorProto.FLOAT16
    assert "w" not in kinds


def test_onnx_runtime_takes_the_fp16_graph_and_gives_nearly_the_same() -> None:
    made = typed(dcgan())
    inputs = latents(32)
    gap = plain_session(made.graph).run(None, inputs)[0] - plain_session(dcgan()).run(None, inputs)[0]
    assert 0 < np.abs(gap).max() < 5e-3


def test_graphs_with_branches_or_types_of_their_own_are_refused() -> None:
    body = helper.make_graph([node("Identity", ["x"], ["o"])], "b", [], [helper.make_empty_tensor_value_info("o")])
    graph = onnx.load_model_from_string(dcgan())
    graph.graph.node.append(node("If", ["c"], ["o2"], then_branch=body, else_branch=body, name="branch"))
    with pytest.raises(ExportError, match="branches") as caught:
        half_graph_from_model(graph.SerializeToString(), {}, FP16)
    assert "branch" in str(caught.value)
    with pytest.raises(ExportError, match="not all float32"):
        half_graph_from_model(typed(dcgan()).graph, {}, FP16)


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert typed(dcgan()).graph == typed(dcgan()).graph
