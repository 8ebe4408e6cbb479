"""fp32-cpu and bf16-cpu: the graph in other forms, held to what its precision is held to, served by the backends that
they are for, and refused where there is nothing to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from small_graphs import graph_of, spec, weights, write_bundle

import ganruntime
from ganexport.commands import main
from ganexport.parity import FLOORS
from ganexport.passes.pipeline import CPU_PASSES
from ganexport.passes.report import PassReport
from ganexport.precision import fp32_form
from ganexport.precision.rungs import FORMS, RUNGS, images_to_run, rungs_into_bundle
from ganexport.verification import verify_bundle
from ganruntime.bundle import read_bundle
from ganruntime.errors import InputError, ParityError

node = helper.make_node
CPU_FORMS = ("fp32-cpu", "bf16-cpu")
WIDE, SIDE = 96, 8
FEW = {"latents": 8, "calibration_latents": 16, "batches": (1, 3)}


def wide() -> bytes:
    """A dense layer, a 3 × 3 convolution of so many channels that Winograd's form pays, and a last layer of few; the
    graph tells the shapes of its values."""
    graph = graph_of(
        [
            node("Gemm", ["z", "dense"], ["flat"], name="dense"),
            node("Reshape", ["flat", "folded"], ["map"]),
            node("Conv", ["map", "kernel", "bias"], ["wide"], pads=[1] * 4, name="wide"),
            node("LeakyRelu", ["wide"], ["leaky"], alpha=0.2),
            node("ConvTranspose", ["leaky", "last"], ["up"], strides=[2, 2], pads=[1] * 4, name="last"),
            node("Tanh", ["up"], ["image"], name="head"),
        ],
        {
            "dense": weights(0, 8, WIDE * SIDE**2),
            "folded": np.array([-1, WIDE, SIDE, SIDE], np.int64),
            "kernel": weights(1, WIDE, WIDE, 3, 3, scale=0.03),
            "bias": weights(2, WIDE, scale=0.1),
            "last": weights(3, WIDE, 3, 4, 4, scale=0.05),
        },
        {"z": (8,)},
        {"image": (3, 2 * SIDE, 2 * SIDE)},
    )
    return bytes(onnx.shape_inference.infer_shapes(onnx.load_model_from_string(graph)).SerializeToString())


@pytest.fixture(scope="module")
def both_forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both. Not to be written to."""
    path = write_bundle(tmp_path_factory.mktemp("bundles") / "wide.gan", wide())
    # A floor is for the one that has floors.
    rungs_into_bundle(path, CPU_FORMS, floors={"psnr_db": 38.0}, **FEW)  # type: ignore[arg-type]
    return path


def test_each_is_held_to_what_its_precision_is_held_to(both_forms: Path) -> None:
    bundle = read_bundle(both_forms)
    assert [(v.name, v.precision) for v in bundle.manifest.variants] == [
        ("fp32", "fp32"),
        ("fp32-cpu", "fp32"),
        ("bf16-cpu", "bf16"),
    ]
    same, half = (bundle.variant(name).verdicts[0] for name in CPU_FORMS)
    assert same.passed
    assert half.passed
    assert (same.place, half.place) == (("onnxruntime", "cpu"), ("reference", "cpu"))
    assert 0 < same.errors["max_abs"] <= same.bound == pytest.approx(1e-5)
    assert "floor_psnr_db" not in same.errors
    assert FLOORS["bf16"].psnr_db < half.errors["floor_psnr_db"] == 38.0 <= half.errors["psnr_db"] < 80


def test_the_manifest_says_what_was_changed_and_what_was_run(both_forms: Path) -> None:
    bundle = read_bundle(both_forms)
    for name in CPU_FORMS:
        graph = onnx.load_model_from_string(bundle.graph(bundle.variant(name))).graph
        kinds = [n.op_type for n in graph.node]
        assert "ConvTranspose" not in kinds
        assert "wide" not in [n.name for n in graph.node]
        assert kinds.count("MatMul") == 5  # the product, and two transforms on each side
        report = bundle.manifest.reports["precision"][name]
        changed = {done["name"]: done["changed"] for done in report["passes"]}
        assert changed["conv_to_winograd"]
        assert report["gate"] == {"latents": 8, "seed": 0x70726F6F, "batches": [1, 3]}
        assert {v.batches for v in bundle.variant(name).verdicts} == {(1, 3)}
    reports = bundle.manifest.reports["precision"]
    assert [done["name"] for done in reports["fp32-cpu"]["passes"]] == list(CPU_PASSES)
    assert reports["fp32-cpu"]["floors"] is None
    assert reports["bf16-cpu"]["floors"]["psnr_db"] == 38.0


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_form_of_fp32_is_served_like_the_plain_graph(both_forms: Path, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    found = verify_bundle(read_bundle(both_forms), backend=backend, variants=("fp32-cpu",), batches=(1, 3))
    verdict = found.verdicts["fp32-cpu"]
    assert verdict.passed
    assert (verdict.place, verdict.batches, verdict.bound) == ((backend, "cpu"), (1, 3), 1e-5)
    drawn = {}
    for name in ("fp32", "fp32-cpu"):
        with ganruntime.load(both_forms, "cpu", backend=backend, precision=name, buckets=(1, 4)) as generator:
            assert generator.describe()["variant"] == name
            drawn[name] = generator.outputs({"z": generator.latents(5, seed=3)})["image"]
    assert 0 < np.abs(drawn["fp32"] - drawn["fp32-cpu"]).max() <= 1e-5


def test_the_form_of_bf16_is_run_by_openvino_in_bf16(both_forms: Path) -> None:
    pytest.importorskip("openvino")
    found = verify_bundle(read_bundle(both_forms), backend="openvino", variants=("bf16-cpu",), batches=(1, 3))
    errors = found.verdicts["bf16-cpu"].errors
    assert found.verdicts["bf16-cpu"].passed
    assert 38.0 <= errors["psnr_db"] < 80


def test_fp32_is_what_is_taken_unless_a_form_is_named(both_forms: Path) -> None:
    for precision in ("auto", "fp32"):
        with ganruntime.load(both_forms, "cpu", backend="onnxruntime", precision=precision, buckets=(1,)) as generator:
            assert generator.describe()["variant"] == "fp32"


def test_a_form_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fp32_form.model_in_form

    def spoiled(*arguments: object) -> tuple[ir.Model, list[PassReport]]:
        model, reports = real(*arguments)  # type: ignore[arg-type]
        dense = model.graph.initializers["dense"]
        assert dense.const_value is not None
        dense.const_value = ir.tensor(dense.const_value.numpy() * np.float32(1.001), name="dense")
        return model, reports

    path = write_bundle(tmp_path / "wide.gan", wide())
    before = (path / "manifest.json").read_bytes()
    monkeypatch.setattr(fp32_form, "model_in_form", spoiled)
    with pytest.raises(ParityError, match="does not compute what the fp32 graph computes") as raised:
        rungs_into_bundle(path, ["fp32-cpu"], **FEW)  # type: ignore[arg-type]
    assert "expected: at most 1e-05 apart" in str(raised.value)
    assert (path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("rung", [*CPU_FORMS, "fp32-cuda"])
def test_where_no_layer_has_another_form_nothing_is_written(tmp_path: Path, rung: str) -> None:
    nodes = [
        node("Gemm", ["z", "dense"], ["flat"], name="dense"),
        node("Reshape", ["flat", "folded"], ["map"]),
        node("Tanh", ["map"], ["image"], name="head"),
    ]
    constants = {"dense": weights(0, 8, 3 * 256), "folded": np.array([-1, 3, 16, 16], np.int64)}
    path = write_bundle(tmp_path / "dense.gan", graph_of(nodes, constants, {"z": (8,)}, {"image": (3, 16, 16)}))
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(InputError, match=f"small has no layer for which {rung} has another form") as raised:
        rungs_into_bundle(path, ["bf16", rung], **FEW)  # type: ignore[arg-type]
    assert f"leave {rung} out" in str(raised.value)
    assert (path / "manifest.json").read_bytes() == before


def test_a_floor_for_the_form_of_fp32_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fp32-cpu has no floor"):
        rungs_into_bundle(tmp_path / "none.gan", ["fp32-cpu"], floors={"psnr_db": 90.0})
    with pytest.raises(InputError, match="fp32-cuda and fp32-cpu have no floor"):
        rungs_into_bundle(tmp_path / "none.gan", ["fp32-cuda", "fp32-cpu"], floors={"psnr_db": 90.0})


def test_a_half_form_is_proven_twice_like_every_half_rung() -> None:
    assert images_to_run(spec(), CPU_FORMS, 10) == 3 * 5 * 10
    assert images_to_run(spec(), CPU_FORMS, 10, (1, 3)) == 3 * 2 * 10


def test_the_command_takes_every_rung_and_form() -> None:
    from ganexport.commands.precision import command

    (rungs,) = [p for p in command.params if p.name == "rungs"]
    assert sorted(rungs.type.choices) == sorted((*RUNGS, *FORMS))  # type: ignore[attr-defined]


def test_a_form_without_floors_has_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_bundle(tmp_path / "small.gan")
    with pytest.raises(SystemExit) as ended:
        main(["precision", str(path), "fp32-cuda", "--latents", "8", "--batch", "1,3", "--calibration-latents", "16"])
    said = capsys.readouterr().out
    assert not ended.value.code
    assert "worst PSNR" not in said
    assert "fp32-cuda: at most" in said
    assert said.strip().endswith("added fp32-cuda")
