"""What a typed graph asks of each node, and what an engine's layers are found to have got instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from imaginary_machine import Machine
from onnx import parser
from tensorrt_bundles import add_half, half_generator, onnx_generator

from ganexport.commands import main
from ganexport.tensorrt.asked import asked_of_graph
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.readback import Layer, ReadBack, check_precisions, layer_from_text
from ganruntime.errors import EngineError

HALF = asked_of_graph(half_generator())
FP32 = asked_of_graph(onnx_generator())
# x is quantised, multiplied in int8 with quantised weights, and quantised again.
QUANTISED = """
<ir_version: 8, opset_import: ["": 18]>
g (float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y)
<float s = {0.1}, int8 z = {0}, int8[4, 4, 1, 1] w, float[4, 4, 1, 1] w2> {
  [quantise] q = QuantizeLinear (x, s, z)
  [expand] d = DequantizeLinear (q, s, z)
  [weights] dw = DequantizeLinear (w, s, z)
  [conv] c = Conv (d, dw)
  [requantise] q2 = QuantizeLinear (c, s, z)
  [expand2] d2 = DequantizeLinear (q2, s, z)
  [plain] p = Conv (d2, w2)
  [squash] y = Tanh (p)
}
"""
INT8 = asked_of_graph(parser.parse_model(QUANTISED).SerializeToString())


def layer_text(
    name: str, kind: str, got: str, *, nodes: tuple[str, ...] = (), kernel: str = "", release: int = 11
) -> str:
    keys = {"Format/Datatype": got} if release == 10 else {"Format": "kLINEAR", "DataType": got}
    layer = {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"Name": "in", "Dimensions": [-1, 3], **keys}],
        "Outputs": [{"Name": "out", "Dimensions": [-1, 3], **keys}],
        "TacticName": kernel,
        "Metadata": "\x1e".join(f"[ONNX Layer: {n}]" for n in nodes),
    }
    return json.dumps(layer)


def test_what_graphs_ask() -> None:
    assert FP32.anywhere == {"fp32"}
    assert FP32.products == {"project": "fp32", "grow": "fp32"}
    assert HALF.products == {"project": "fp16", "grow": "fp16"}
    assert HALF.nodes["project"] == {"fp16"}
    assert HALF.nodes["project_in"] == {"fp32", "fp16"}
    assert HALF.nodes["squash"] == {"fp32"}
    assert HALF.anywhere == {"fp32", "fp16"}
    assert INT8.products == {"conv": "int8", "plain": "fp32"}
    assert INT8.nodes["conv"] == {"fp32", "int8"}
    assert INT8.nodes["squash"] == {"fp32"}


# (graph, layer as the inspector tells it, what differs)
CASES = [
    (HALF, layer_text("project", "gemm", "Half", nodes=("project",)), set()),
    (HALF, layer_text("project", "gemm", "Half", nodes=("project",), release=10), set()),
    # asked for fp16, silently got fp32 (roboflow/rf-detr#1453)
    (HALF, layer_text("project", "gemm", "Float", nodes=("project",)), {"fp32", "fp16"}),
    (HALF, layer_text("project", "gemm", "Float", nodes=("project",), release=10), {"fp32", "fp16"}),
    # an island that must be fp32 was pulled into fp16
    (HALF, layer_text("squash", "pointwise", "Half", nodes=("squash",)), {"fp16"}),
    (HALF, layer_text("squash", "pointwise", "Float", nodes=("squash",)), set()),
    # fused over the border: both are asked, but the product must be in fp16
    (HALF, layer_text("fused", "kgen", "Float", nodes=("grow", "grow_out", "squash")), {"fp16"}),
    (HALF, layer_text("fused", "kgen", "Row major linear FP16 format", nodes=("grow", "grow_out", "squash")), set()),
    # names joined as TensorRT joins them, without metadata
    (HALF, layer_text("grow + grow_out", "conv", "Half"), set()),
    (HALF, layer_text("grow + grow_out", "conv", "BF16"), {"bf16", "fp16"}),
    # copies convert between their neighbours
    (HALF, layer_text("Reformatting CopyNode for Input Tensor 0 to squash", "Reformat", "Half"), set()),
    (HALF, layer_text("Reformatting CopyNode for Input Tensor 0 to squash", "Reformat", "Int8"), {"int8"}),
    # layers of nodes that are not told: anything that the graph has, and nothing else
    (HALF, layer_text("{ForeignNode[a...b]}", "Myelin", "Half"), set()),
    (FP32, layer_text("{ForeignNode[a...b]}", "Myelin", "Half"), {"fp16"}),
    # TF32 in fp32 islands
    (HALF, layer_text("squash", "gemm", "Float", nodes=("squash",), kernel="sm80_tf32f32"), {"tf32"}),
    (FP32, layer_text("grow", "conv", "Float", nodes=("grow",), kernel="sm80_xmma_tf32f32"), {"tf32"}),
    # explicit quantisation
    (INT8, layer_text("conv", "conv", "Int8", nodes=("conv", "requantise")), set()),
    (INT8, layer_text("conv", "conv", "Float", nodes=("conv",)), {"int8"}),
    (INT8, layer_text("plain", "conv", "Float", nodes=("plain",)), set()),
    (INT8, layer_text("plain", "conv", "Half", nodes=("plain",)), {"fp16", "fp32"}),
    # shapes and indices have no precision
    (HALF, layer_text("shape", "shape", "Int64", nodes=("project",)), set()),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "text", "differs"), CASES, ids=[str(i) for i in range(len(CASES))])
def test_what_differs(asked: object, text: str, differs: set[str]) -> None:
    layer = layer_from_text(text, asked)  # type: ignore[arg-type]
    assert layer.differs(tf32=False) == differs
    if differs:
        with pytest.raises(EngineError, match="1 of 1 layers in another precision than fp16") as caught:
            check_precisions((layer,), "fp16")
        assert layer.name in str(caught.value)
    else:
        check_precisions((layer, Layer("x", frozenset({"fp32"}), "", asked=frozenset({"fp32"}))), "fp16")


def test_tf32_is_allowed_where_fp32_is_asked_and_nowhere_else() -> None:
    text = layer_text("grow", "conv", "Float", nodes=("grow",), kernel="sm80_xmma_tf32f32")
    assert layer_from_text(text, FP32).differs(tf32=True) == set()
    assert layer_from_text(text, HALF).differs(tf32=True) == {"tf32", "fp16"}


def test_layers_go_to_json_and_back() -> None:
    layers = tuple(layer_from_text(text, asked) for asked, text, _ in CASES)
    readback = ReadBack(layers, 4096)
    assert ReadBack.from_json(json.loads(json.dumps(readback.to_json()))) == readback


def test_an_inspector_that_tells_nothing_is_no_proof(machine: Machine, bundle_path: Path) -> None:
    machine.says_no_types = True
    with pytest.raises(EngineError, match="does not tell which precision the layers got"):
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))


@pytest.mark.parametrize("version", ["10.16.1.11+double", "11.4.0.106+double"])
def test_half_in_an_fp32_engine_is_found_on_both_majors(
    version: str, bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(version=version, forces_half=True).install(monkeypatch)
    with pytest.raises(EngineError, match="4 of 4 layers in another precision than fp32"):
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,)))


# --- the report -------------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["to-trt", *map(str, words)])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_json_tells_of_every_layer(machine: Machine, bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_half(bundle_path)
    code, out, err = run(capsys, bundle_path, "--precision", "fp16", "--batch", "1,4", "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["ok"] is True
    assert report["file"].endswith(".plan")
    assert report["engine"]["batches"] == [1, 4]
    assert report["proof"]["passed"] is True
    layers = {layer["nodes"][0]: layer for layer in report["layers"]}
    assert set(layers) == {
        "project_in", "project", "project_out", "fold", "grow_in", "grow", "grow_out", "squash",
    }  # fmt: skip
    assert (layers["grow"]["asked"], layers["grow"]["precisions"]) == (["fp16"], ["fp16"])
    assert (layers["squash"]["asked"], layers["squash"]["precisions"]) == (["fp32"], ["fp32"])
    assert all(layer["differs"] == [] for layer in report["layers"])


def test_json_of_an_engine_that_is_refused(
    machine: Machine, bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.forces_tf32 = True
    code, out, err = run(capsys, bundle_path, "--batch", "1", "--json")
    assert code == 1
    assert "2 of 4 layers in another precision than fp32" in err
    report = json.loads(out)
    assert report["ok"] is False
    assert "another precision than fp32" in report["error"]
    assert {la["nodes"][0]: la["differs"] for la in report["layers"]} == {
        "project": ["tf32"], "fold": [], "grow": ["tf32"], "squash": [],
    }  # fmt: skip
