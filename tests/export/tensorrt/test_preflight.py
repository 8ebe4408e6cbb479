"""The preflight: each rule on a graph that breaks it and on one that does not, and the table of operators itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import parser
from tensorrt_bundles import onnx_generator
from to_trt_command import run

from ganexport.tensorrt.operator_support import support_table, text_from_version, version_from_text
from ganexport.tensorrt.preflight import Preflight, preflight_from_onnx
from ganruntime.bundle import BundleDraft, bundle_changed
from ganruntime.errors import InputError


def preflight(
    nodes: str, target: str = "11.4", *, opset: int = 18, inputs: str = "float[N, 3, 8, 8] x", weights: str = ""
) -> Preflight:
    text = f'<ir_version: 10, opset_import: ["": {opset}, "ours": 1, "trt.plugins": 1]>\n'
    text += f"g ({inputs}) => (float[N, 3, 8, 8] y)\n" + (f"<{weights}>" if weights else "") + f"{{ {nodes} }}"
    return preflight_from_onnx(parser.parse_model(text).SerializeToString(), version_from_text(target))


def rules(found: Preflight) -> dict[str, str]:
    return {finding.rule: finding.severity for finding in found.findings}


SCALES = {"weights": "float[4] s = {1.,1.,2.,2.}"}
SYMMETRIC = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
RESIZE = 'y = Resize <mode = "{}", coordinate_transformation_mode = "{}", antialias = {}> (x, , s)'
CAST_AROUND = "h = Cast <to = {}> (x) i = {}(h, {}) y = Cast <to = 1> (i)"
GRID = "float[N, 3, 8, 8] x, float[N, 8, 8, 2] grid"
GRID_3D = "float[N, 3, 4, 8, 8] x, float[N, 4, 8, 8, 3] grid"


# (nodes, other arguments, {rule: severity}) of what is found
CASES = [
    ("y = Relu(x)", {}, {}),
    ("y = Unique(x)", {}, {"operator": "fails"}),
    ("y = NoSuchOperator(x)", {}, {"operator": "fails"}),
    ("y = Swish(x)", {"target": "10.16", "opset": 24}, {"operator": "fails"}),
    ("y = Swish(x)", {"target": "11.0", "opset": 24}, {}),
    ("y = RMSNormalization(x, w)", {"target": "10.14", "opset": 23, "weights": "float[8] w"}, {"operator": "fails"}),
    ("y = RMSNormalization(x, w)", {"target": "10.15", "opset": 23, "weights": "float[8] w"}, {}),
    ("y = DFT(x)", {"target": "11.1"}, {"operator": "fails"}),
    ("y = DFT(x)", {"target": "11.2.1"}, {}),
    # 3-D grids
    ("y = GridSample(x, grid)", {"inputs": GRID_3D, "target": "11.1", "opset": 16}, {"grid-sample-3d": "fails"}),
    ("y = GridSample(x, grid)", {"inputs": GRID_3D, "target": "11.2.1", "opset": 16}, {}),
    ("y = GridSample(x, grid)", {"inputs": GRID, "opset": 18, "target": "10.13"}, {}),
    # opset 20 has other names for the modes
    ("y = GridSample(x, grid)", {"inputs": GRID, "opset": 20, "target": "10.13"}, {"grid-sample-opset-20": "wrong"}),
    ("y = GridSample(x, grid)", {"inputs": GRID, "opset": 20}, {"grid-sample-opset-20": "caution"}),
    (
        'y = GridSample <mode = "cubic"> (x, grid)',
        {"inputs": GRID, "opset": 20, "target": "11.1"},
        {"grid-sample-opset-20": "wrong"},
    ),
    ("y = GridSample <mode = \"nearest\"> (x, grid)", {"inputs": GRID, "opset": 20, "target": "10.13"}, {}),
    # randomness
    ("n = RandomNormalLike(x) y = Add(x, n)", {}, {"random-node": "wrong"}),
    ("n = RandomUniform <shape = [1]> () y = Add(x, n)", {}, {"random-node": "wrong"}),
    ("y = Bernoulli(x)", {}, {"operator": "fails"}),
    ("y, m = Dropout(x, r, on)", {"weights": "float r = {0.5}, bool on = {1}"}, {"dropout": "fails"}),
    ("y, m = Dropout(x, r, off)", {"weights": "float r = {0.5}, bool off = {0}"}, {}),
    ("y = Dropout(x)", {}, {}),
    # norms in fp16
    (
        CAST_AROUND.format(10, "InstanceNormalization", "s, s"),
        {"weights": "float16[3] s"},
        {"instance-norm-fp16": "wrong"},
    ),
    ("y = InstanceNormalization(x, s, s)", {"weights": "float[3] s"}, {}),
    (CAST_AROUND.format(10, "LayerNormalization", "s"), {"weights": "float16[8] s"}, {"norm-fp16": "caution"}),
    (CAST_AROUND.format(16, "LayerNormalization", "s"), {"weights": "bfloat16[8] s"}, {}),
    # resize
    (RESIZE.format("cubic", "half_pixel", 0), SCALES, {"resize": "fails"}),
    (RESIZE.format("linear", "half_pixel", 1), SCALES, {"resize": "fails"}),
    (RESIZE.format("linear", "tf_crop_and_resize", 0), SCALES, {"resize": "fails"}),
    (RESIZE.format("linear", "asymmetric", 0), SCALES, {}),
    # what must be constant
    (
        "y = ReduceSum(x, axes)",
        {"inputs": "float[N, 3, 8, 8] x, int64[1] axes"},
        {"constant-input": "fails", "fixed-batch": "fails"},
    ),
    ("s = Shape(x) y = ReduceSum(x, s)", {}, {"constant-input": "caution"}),
    ("y = ReduceSum(x, axes)", {"weights": "int64[1] axes = {1}"}, {}),
    ("y = ReduceSum(x)", {}, {}),
    # attributes
    ("y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)", {}, {"attribute": "fails"}),
    ("y = MaxPool <kernel_shape = [2, 2], dilations = [1, 1]> (x)", {}, {}),
    ("y = MaxPool <kernel_shape = [2]> (x)", {}, {"pooling": "fails"}),
    ("m, i = MaxPool <kernel_shape = [2, 2]> (x) y = Cast <to = 1> (i)", {}, {"output": "fails"}),
    ("y, i = MaxPool <kernel_shape = [2, 2]> (x)", {}, {}),
    ("y = ScatterND <reduction = \"add\"> (x, i, x)", {"weights": "int64[1, 1] i = {0}"}, {"attribute": "fails"}),
    ("y = DeformConv <pads = [0, 1, 0, 0]> (x, w, x)", {"weights": "float[1, 3, 1, 1] w"}, {"deform-conv": "fails"}),
    # quantisation
    (SYMMETRIC, {"weights": "float s = {0.1}, int8 z = {0}"}, {}),
    (SYMMETRIC, {"weights": "float s = {0.1}, int8 z = {3}"}, {"zero-point": "fails"}),
    (SYMMETRIC, {"weights": "float s = {0.1}, uint8 z = {0}"}, {"uint8": "fails"}),
    # types
    ("i = Cast <to = 6> (x) s = Sin(i) y = Cast <to = 1> (s)", {}, {"dtype": "fails"}),
    ("i = Cast <to = 7> (x) s = Add(i, i) y = Cast <to = 1> (s)", {}, {}),
    ("d = Cast <to = 11> (x) s = Sin(d) y = Cast <to = 1> (s)", {}, {"float64": "caution"}),
    ("u = Cast <to = 2> (x) t = Transpose(u) y = Cast <to = 1> (t)", {}, {"uint8": "fails"}),
    ("h = Cast <to = 16> (x) m = Mish(h) y = Cast <to = 1> (m)", {}, {"dtype": "fails"}),
    ("y = Cast <to = 1> (x)", {"inputs": "int16[N, 3, 8, 8] x"}, {"dtype": "fails"}),
    # the graph
    ("y = Relu(x)", {"inputs": "float[4, 3, 8, 8] x"}, {"fixed-batch": "fails"}),
    ("y = Relu(x)", {"opset": 8}, {"opset": "fails"}),
    ("y = Relu(x)", {"opset": 24, "target": "10.12"}, {"opset": "caution"}),
    ("y = Relu(x)", {"opset": 25, "target": "11.4"}, {}),
    ("y = Relu(x)", {"target": "11.5"}, {"release": "caution"}),
    ("y = Relu(x)", {"target": "11.4.1.7"}, {}),
    # other domains
    ("y = ours.thing(x)", {}, {"custom-operator": "fails"}),
    ("y = trt.plugins.thing(x)", {}, {"custom-operator": "caution"}),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "changes", "expected"), CASES, ids=[f"{i}-{c[0][:40]}" for i, c in enumerate(CASES)])
def test_rules(nodes: str, changes: dict[str, object], expected: dict[str, str]) -> None:
    found = preflight(nodes, **changes)  # type: ignore[arg-type]
    assert rules(found) == expected, found.findings
    assert found.ok == (not {"fails", "wrong"} & set(expected.values()))
    for finding in found.findings:
        assert finding.remedy
        assert finding.source


BRANCH = """
c = Constant <value = bool {1}> ()
i = If (c) <then_branch = t () => (float[N, 3, 8, 8] a) { a = Relu(x) },
            else_branch = e () => (float[N, 3, 8, 8] b) { b = Tanh(x) }>
"""


def test_if_transpose_resize_on_the_releases_that_get_it_wrong() -> None:
    nodes = BRANCH + 't = Transpose <perm = [0, 1, 3, 2]> (i) y = Resize <mode = "linear"> (t, , s)'
    weights = "float[4] s = {1.,1.,2.,2.}"
    for target, expected in (("11.1", True), ("11.2.1", True), ("11.3", False), ("10.16", False)):
        assert ("if-transpose-resize" in rules(preflight(nodes, target, weights=weights))) == expected
    assert rules(preflight(BRANCH + "y = Relu(i)", "11.1")) == {"control-flow": "caution"}


def test_nodes_inside_branches_and_functions_are_judged() -> None:
    found = preflight(BRANCH.replace("Tanh", "Det") + "y = Relu(i)")
    (finding,) = (f for f in found.findings if f.rule == "operator")
    assert finding.node == "node 0 in If (Det)"
    text = """
    <ir_version: 8, opset_import: ["": 18, "ours": 1]>
    g (float[N, 4] x) => (float[N, 4] y) { y = ours.odd(x) }
    <domain: "ours", opset_import: ["": 18]>
    odd (a) => (b) { b = Unique(a) }
    """
    found = preflight_from_onnx(parser.parse_model(text).SerializeToString(), (11, 4))
    assert [(f.rule, f.node) for f in found.findings] == [("operator", "node 0 in function ours.odd (Unique)")]


def test_a_generator_of_this_project_passes_on_every_release() -> None:
    for version in ((10, 12), (10, 16), (11, 0), (11, 4)):
        found = preflight_from_onnx(onnx_generator(labelled=True), version)
        assert found.findings == ()
        assert [row.operator for row in found.operators] == [
            "Add",
            "ConvTranspose",
            "Gather",
            "Gemm",
            "Reshape",
            "Tanh",
        ]
        assert {row.verdict for row in found.operators} == {"supported"}
        assert found.operators[2].types == ("fp32",)


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_knows_every_operator_of_onnx_that_its_sources_do() -> None:
    table = support_table((11, 4))
    # Older than opset 25, which is as far as the sources go; deprecated ones are in none of them.
    names = {
        s.name for s in onnx.defs.get_all_schemas() if s.domain == "" and s.since_version <= 25 and not s.deprecated
    }
    later = {
        s.name
        for s in onnx.defs.get_all_schemas_with_history()
        if s.domain == ""
        and min(x.since_version for x in onnx.defs.get_all_schemas_with_history() if x.name == s.name) > 24
    }
    assert names - later - set(table.rows) == set()


def test_the_table_is_well_formed() -> None:
    table = support_table((11, 4))
    codes = {"fp32", "fp16", "bf16", "fp8", "fp4", "int4", "int8", "int32", "int64", "uint8", "bool"}
    assert len(table.rows) > 190
    assert len(table.sources) == 4
    assert len(table.read) == len("2026-11-21")
    for name, row in table.rows.items():
        assert set(row) <= {"types", "since", "later", "supported"}, name
        if row.get("supported", True):
            for types in (row["types"], *row.get("later", {}).values()):
                assert types is None or set(types.split()) <= codes, name
        for release in (*([row["since"]] if "since" in row else []), *row.get("later", {})):
            version_from_text(release)
    for operator in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Tanh", "Reshape", "Resize", "DepthToSpace"):
        for version in ((10, 12), (11, 4)):
            support = support_table(version).operator(operator)
            assert support is not None
            assert support.supported
            assert support.types is not None
            assert {"fp32", "fp16", "bf16"} <= support.types


def test_what_later_releases_add() -> None:
    def types(version: tuple[int, ...]) -> frozenset[str] | None:
        support = support_table(version).operator("GridSample")
        assert support is not None
        return support.types

    assert types((11, 2)) == types((10, 12)) == {"fp32", "fp16"}
    assert types((11, 2, 1)) == types((11, 4)) == {"fp32", "fp16", "bf16"}


@pytest.mark.parametrize("text", ["10.11", "12.0", "9.3", "11", "eleven", "11.x", "", "11.4.0.1.2", "11.-4", "١١.٤"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--target is not a TensorRT release") as caught:
        version_from_text(text)
    assert "10.12" in str(caught.value)


def test_targets_go_to_text_and_back() -> None:
    for text in ("10.12", "11.4", "11.2.1", "10.16.1.11"):
        assert text_from_version(version_from_text(text)) == text


# --- the command ------------------------------------------------------------------------------------------------------


def with_graph(path: Path, change: str) -> None:
    """Puts a graph with a node that TensorRT does not take, or computes wrongly, into a bundle."""
    model = onnx.load_from_string(onnx_generator())
    model.graph.node[-1].op_type = change
    with bundle_changed(path) as draft:
        put_graph(draft, model)


def put_graph(draft: BundleDraft, model: onnx.ModelProto) -> None:
    draft.add("model.onnx", model.SerializeToString())


def test_check_passes_and_says_what_was_checked(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, bundle_path, "--check", "--target", "10.12", "--target", "11.4")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "opset 18, 4 nodes" in lines[0]
    assert lines[1] == "profiles: 1, 8, 64, 1..64"
    assert lines[3].split() == ["operator", "nodes", "types", "TensorRT", "10.12", "TensorRT", "11.4"]
    assert [line.split() for line in lines[5:9]] == [
        [operator, "1", "fp32", "supported", "supported"] for operator in ("ConvTranspose", "Gemm", "Reshape", "Tanh")
    ]
    assert "TensorRT 11.4: nothing in this graph is known to fail; only building the engine shows that it runs" in lines


def test_check_fails_with_the_node_and_the_remedy(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_graph(bundle_path, "Det")
    code, out, _ = run(capsys, bundle_path, "--check", "--target", "11.4")
    assert code == 1
    assert "TensorRT 11.4: fails (cannot be built): node 3 'squash' (Det)" in out
    assert "remedy: replace the module that makes this node" in out
    assert "source: onnx/onnx-tensorrt" in out
    assert "TensorRT 11.4: 1 thing must change first" in out
    assert "Det                1  fp32   fails" in out


def test_check_as_json(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_graph(bundle_path, "Bernoulli")
    code, out, _ = run(capsys, bundle_path, "--check", "--target", "10.16", "--target", "11.4", "--json")
    report = json.loads(out)
    assert code == 1
    assert report["ok"] is False
    assert [t["tensorrt"] for t in report["targets"]] == ["10.16", "11.4"]
    (finding,) = report["targets"][1]["findings"]
    assert (finding["severity"], finding["rule"], finding["operator"]) == ("fails", "operator", "Bernoulli")
    assert {row["operator"]: row["verdict"] for row in report["targets"][0]["operators"]}["Bernoulli"] == "fails"


def test_check_without_a_target(
    bundle_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, machine: object
) -> None:
    machine.version = "10.16.1.11+double"  # type: ignore[attr-defined]
    sys.modules["tensorrt"].__version__ = "10.16.1.11+double"
    assert "TensorRT 10.16.1: nothing" in run(capsys, bundle_path, "--check")[1]
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "TensorRT 11.4: nothing" in run(capsys, bundle_path, "--check")[1]


def test_check_of_a_precision_takes_that_graph(bundle_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, bundle_path, "--check", "--precision", "fp16")
    assert code == 1
    assert "has no fp16 graph" in err
    assert "got:      fp32 (fp32)" in err
    code, out, _ = run(capsys, bundle_path, "--check", "--precision", "tf32", "--target", "11.4")
    assert code == 0
    assert "model.onnx (fp32)" in out


def test_check_imports_neither_torch_nor_onnx_nor_tensorrt(bundle_path: Path) -> None:
    code = (
        "import sys\n"
        "from ganexport.commands import main\n"
        "try:\n"
        f"    main(['to-trt', {str(bundle_path)!r}, '--check', '--target', '11.4'])\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'cuda', 'gantrain', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
