"""Rungs into a bundle: what is added, what it says of itself, what is chosen, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_graphs import dcgan, latents, spec, write_bundle

import ganruntime
from ganexport.parity import FLOORS
from ganexport.precision import calibration, half_rung
from ganexport.precision.half_graph import HalfGraph, half_graph_from_model
from ganexport.precision.proof import latents_for
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.rounding import HALF_TYPES
from ganexport.precision.rungs import RUNGS, images_to_run, rungs_into_bundle
from ganexport.verification import verify_bundle
from ganruntime.bundle import bundle_changed, read_bundle
from ganruntime.errors import BundleIntegrityError, InputError, ParityError
from ganruntime.generator import candidates
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

FEW = {"latents": 48, "calibration_latents": 64}


@pytest.fixture(scope="module")
def all_rungs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with every rung. Not to be written to."""
    path = write_bundle(tmp_path_factory.mktemp("bundles") / "small.gan")
    rungs_into_bundle(path, RUNGS, **FEW)
    return path


def test_every_rung_is_added_behind_fp32_with_its_verdicts(all_rungs: Path) -> None:
    bundle = read_bundle(all_rungs)
    assert [v.name for v in bundle.manifest.variants] == ["fp32", *RUNGS]
    for rung in RUNGS:
        variant = bundle.variant(rung)
        precision = rung.removesuffix("-symmetric")
        assert (variant.precision, variant.format, variant.file) == (precision, "onnx", f"model.{rung}.onnx")
        bundle.graph(variant)  # whole, and of this spec
        for verdict in variant.verdicts:
            assert verdict.passed
            assert (verdict.latents, verdict.batches) == (48, (1, 2, 3, 64, 257))
            assert verdict.errors["psnr_db"] >= verdict.errors["floor_psnr_db"] == FLOORS[precision].psnr_db
            assert verdict.errors["mean_psnr_db"] >= verdict.errors["psnr_db"]
            assert 0.9 < verdict.errors["ssim"] <= verdict.errors["mean_ssim"] <= 1.0
            assert verdict.errors["finite"] == 1.0
            assert "model.onnx" in verdict.reference


def test_verdicts_say_where(all_rungs: Path) -> None:
    bundle = read_bundle(all_rungs)
    places = {v.name: [verdict.place for verdict in v.verdicts] for v in bundle.manifest.variants}
    assert places["fp16"] == [("reference", "cpu"), ("onnxruntime", "cpu")]
    assert places["int8"] == [("onnxruntime", "cpu")]
    assert places["bf16"][0] == ("reference", "cpu")
    for rung, status in (("fp16", "verified"), ("int8", "verified")):
        assert bundle.variant(rung).status == status
    if len(places["bf16"]) == 1:  # an ONNX Runtime with bfloat16 kernels for the CPU would verify it
        assert bundle.variant("bf16").status == "reference"
        assert "onnxruntime cpu" in bundle.manifest.reports["precision"]["bf16"]["not_run"]


def test_auto_takes_fp32_and_a_reference_alone_is_never_chosen(all_rungs: Path) -> None:
    bundle = read_bundle(all_rungs)
    assert candidates(bundle, "onnx", "auto")[0].name == "fp32"
    assert all(v.status == "verified" for v in candidates(bundle, "onnx", "auto"))
    with ganruntime.load(all_rungs, "cpu", buckets=(4,)) as generator:
        assert generator.describe()["variant"] == "fp32"
        expected = generator.generate(6, seed=3)
    for rung in ("fp16", "int8"):
        with ganruntime.load(all_rungs, "cpu", precision=rung, buckets=(4,)) as generator:
            assert generator.describe()["precision"] == rung
            drawn = generator.generate(6, seed=3)
        assert 0 < np.abs(drawn.astype(int) - expected).max() < 30 or rung == "fp16"
        np.testing.assert_allclose(drawn.astype(int), expected, atol=1 if rung == "fp16" else 30)


def test_the_report_names_islands_layers_and_methods(all_rungs: Path) -> None:
    report = read_bundle(all_rungs).manifest.reports["precision"]
    assert [i["op_type"] for i in report["fp16"]["islands"]] == ["DepthToSpace", "Slice", "Tanh"]
    int8 = report["int8"]
    assert {q["op_type"] for q in int8["quantised"]} <= {"Conv", "Gemm"}
    assert set(int8["tried_psnr_db"]) == {"minmax", "headroom", "percentile", "entropy", "squared error"}
    assert 0 < int8["int8_share"] <= 1
    assert all(t["value"] > 0 for t in int8["thresholds"].values())
    assert len(int8["quantised"]) + len(int8["left_in_fp32"]) + len(int8["too_small"]) == 3
    for rung in RUNGS:
        assert report[rung]["calibration"] == {"latents": 64, "seed": calibration.SEED}
        assert report[rung]["gate"]["latents"] == 48


def test_bf16_has_the_forms_that_are_fast_in_it(all_rungs: Path) -> None:
    """Its few channels in sub-pixel form, each activation beside its convolution; fp16 has the last layer alone so."""
    bundle = read_bundle(all_rungs)
    kinds = {
        rung: [n.op_type for n in onnx.load_from_string(bundle.graph(bundle.variant(rung))).graph.node]
        for rung in ("bf16", "fp16")
    }
    assert [k for k in kinds["bf16"] if k != "Cast"] == [
        *("Gemm", "Relu", "Reshape"),
        *("Conv", "Relu", "DepthToSpace", "Slice"),
        *("Conv", "Tanh", "DepthToSpace", "Slice"),
    ]
    assert kinds["fp16"].count("ConvTranspose") == kinds["fp16"].count("Conv") == 1


def test_the_same_bundle_and_settings_give_the_same_files(all_rungs: Path, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again.gan")
    rungs_into_bundle(again, RUNGS, **FEW)
    first, second = read_bundle(all_rungs), read_bundle(again)
    for rung in RUNGS:
        name = f"model.{rung}.onnx"
        assert first.manifest.files[name] == second.manifest.files[name]


def test_verify_runs_every_rung_and_bf16_by_reference(all_rungs: Path) -> None:
    report = verify_bundle(read_bundle(all_rungs), batches=(1, 3))
    assert set(report.findings) == {"fp32", *RUNGS}
    for rung in RUNGS:
        assert report.findings[rung].problems == []
    assert report.findings["fp16"].verdict.backend == "onnxruntime"
    assert report.findings["bf16"].verdict.backend in ("reference", "onnxruntime")


def test_verify_finds_a_rung_that_was_spoiled(all_rungs: Path, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "spoiled.gan")
    rungs_into_bundle(path, ["int8"], **FEW)
    bundle = read_bundle(path)
    model = onnx.load_model_from_string(bundle.graph(bundle.variant("int8")))
    integers = next(t for t in model.graph.initializer if t.name.endswith("_int8"))
    array = numpy_helper.to_array(integers).copy()
    array[0] = -array[0]
    integers.CopyFrom(numpy_helper.from_array(array, integers.name))
    with bundle_changed(path) as draft:
        draft.add("model.int8.onnx", model.SerializeToString())
    report = verify_bundle(read_bundle(path), variants=["int8"], batches=(3,))
    assert any("PSNR" in p for p in report.findings["int8"].problems)


def test_a_floor_that_cannot_be_met_writes_nothing_and_names_the_node(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "small.gan")
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(ParityError) as caught:
        rungs_into_bundle(path, ["bf16"], floors={"psnr_db": 120.0}, **FEW)
    message = str(caught.value)
    assert "PSNR" in message
    assert "under the floor 120 dB" in message
    assert "departs" in message
    assert any(name in message for name in ("dense", "first", "last"))
    assert (path / "manifest.json").read_bytes() == before
    assert not (path / "model.bf16.onnx").exists()


def test_all_or_none(tmp_path: Path) -> None:
    """fp16 holds 60 dB here, bf16 does not: neither is added."""
    path = write_bundle(tmp_path / "small.gan")
    with pytest.raises(ParityError, match="bf16"):
        rungs_into_bundle(path, ["fp16", "bf16"], floors={"psnr_db": 62.0}, **FEW)
    assert [v.name for v in read_bundle(path).manifest.variants] == ["fp32"]


def test_int8_leaves_costly_layers_in_fp32_until_the_floor_is_met(tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "small.gan")
    easy = rungs_into_bundle(path, ["int8"], floors={"psnr_db": 20.0, "ssim": 0.0}, **FEW)[0]
    assert easy.report["left_in_fp32"] == []
    assert easy.report["int8_share"] == 1.0
    reached = easy.findings[0].verdict.errors["psnr_db"]
    asked = reached + 3.0
    hard = rungs_into_bundle(path, ["int8"], floors={"psnr_db": asked, "ssim": 0.0}, **FEW)[0]
    assert 1 <= len(hard.report["left_in_fp32"]) < 3
    assert hard.report["left_in_fp32"][0]["cost_db"] > 0
    assert hard.findings[0].verdict.errors["psnr_db"] >= asked
    assert read_bundle(path).variant("int8").verdicts[-1].errors["floor_psnr_db"] == asked
    with pytest.raises(ParityError, match="nothing is left of int8") as caught:
        rungs_into_bundle(path, ["int8"], floors={"psnr_db": 130.0}, **FEW)
    assert "--floor psnr=" in str(caught.value)
    assert " departs: " in str(caught.value)


def test_a_graph_that_overflows_beyond_its_calibration_is_refused_at_the_first_bad_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blind(graph: bytes, ranges: object, half: object) -> HalfGraph:
        """Typed with the ranges of latents a million times smaller: no island where one is due."""
        tiny = {k: v * np.float32(1e-6) for k, v in latents().items()}
        return half_graph_from_model(graph, ranges_from_graph(graph, tiny), HALF_TYPES["fp16"])

    model = onnx.load_model_from_string(dcgan())
    for tensor in model.graph.initializer:
        scale = {"dense": 3e4, "dense_bias": 1.0, "kernel1": 1 / 3e4}.get(tensor.name)
        if scale is not None:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(scale), tensor.name))
    path = write_bundle(tmp_path / "loud.gan", model.SerializeToString())
    rungs_into_bundle(path, ["fp16"], **FEW)  # with the right ranges the loud layer is an island
    assert "dense" in [i["node"] for i in read_bundle(path).manifest.reports["precision"]["fp16"]["islands"]]
    monkeypatch.setattr(half_rung, "half_graph_from_model", blind)
    with pytest.raises(ParityError) as caught:
        rungs_into_bundle(path, ["fp16"], **FEW)
    assert "dense (Gemm) departs: values that are not finite" in str(caught.value)


def test_a_bundle_that_was_exported_anew_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path / "small.gan")
    real = half_rung.require_floors

    def exported_anew(*arguments: object) -> None:
        write_bundle(path, dcgan(gain=1.5))
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(half_rung, "require_floors", exported_anew)
    with pytest.raises(BundleIntegrityError, match="exported anew"):
        rungs_into_bundle(path, ["fp16"], **FEW)
    assert [v.name for v in read_bundle(path).manifest.variants] == ["fp32"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rungs": ["fp8"]}, "no rung is called 'fp8'"),
        ({"rungs": ["fp16"], "floors": {"beauty": 1.0}}, "a floor is not known"),
        ({"rungs": ["fp16"], "seed": calibration.SEED}, "other latents than those"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rungs_into_bundle(tmp_path / "none.gan", **arguments)  # type: ignore[arg-type]


def test_large_generators_are_proven_over_fewer_latents() -> None:
    def of(side: int) -> GeneratorSpec:
        image = TensorSpec("image", "float32", (3, side, side), Image())
        return GeneratorSpec("sized", spec().inputs, (image,))

    assert [latents_for(of(side)) for side in (32, 128, 256, 512, 1024)] == [4096, 4096, 1024, 256, 256]
    assert images_to_run(of(32), ["fp16", "int8", "fp16"], 10) == 3 * 5 * 10


def test_a_manifest_with_rungs_is_canonical_json(all_rungs: Path) -> None:
    text = (all_rungs / "manifest.json").read_text()
    assert json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n" == text
