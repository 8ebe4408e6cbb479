"""Verifying bundles: what is sound passes, what was exchanged fails and is remembered, what cannot run says why."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import altered_graphs
import numpy as np
import onnx
import onnxruntime
import pytest

from ganexport.bundling import Exported
from ganexport.gate import BATCHES
from ganexport.golden import GoldenSamples
from ganexport.graph import evaluate_from_module, inference_copy
from ganexport.source import Source
from ganexport.verification import Reference, images_to_run, verify_bundle
from ganruntime.bundle import EngineRecord, GoldenRecord, Variant, bundle_changed, read_bundle
from ganruntime.errors import BackendError, BundleFormatError, BundleIntegrityError, InputError
from ganruntime.generator import load

SOME_BATCHES = (3, 64, 257)  # without 1 and 2, which take most of the time


def reference_of(source: Source) -> Reference:
    module = inference_copy(source.module, source.spec)
    return Reference(evaluate_from_module(module, source.spec), "eager")


def with_engine(bundle: Path) -> Path:
    """Adds an engine that this machine cannot run."""
    record = EngineRecord("10.12.0.36", "9.0", "NVIDIA H100", "570.1", "12.8", (1, 8), 64, 100.0)
    with bundle_changed(bundle) as draft:
        draft.add("engines/lively.plan", b"not for this machine")
        draft.put_variant(Variant("h100", "fp32", "tensorrt", "engines/lively.plan", (), record))
    return bundle


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without TensorRT, wherever the tests run."""
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)


def test_a_sound_bundle_passes_every_check(exported_once: Exported) -> None:
    bundle = read_bundle(exported_once.path)
    steps: list[int] = []
    report = verify_bundle(bundle, progress=steps.append)
    assert report.passed
    assert report.checks == {"noise gives the golden latents": [], "the runtime draws the golden images": []}
    assert report.not_run == {}
    verdict = report.verdicts["fp32"]
    assert (verdict.latents, verdict.batches, verdict.bound) == (1024, BATCHES, 1e-5)
    assert verdict.reference == bundle.manifest.golden.reference
    assert 0 < verdict.errors["max_abs"] < 1e-5
    assert sum(steps) == images_to_run(bundle, 1024, BATCHES, (), False) == 5 * 1024


def test_against_its_network_a_sound_bundle_passes_on_fresh_latents(
    exported_once: Exported, source_once: Source
) -> None:
    bundle = read_bundle(exported_once.path)
    report = verify_bundle(bundle, reference=reference_of(source_once), latents=200, seed=12345)
    assert report.passed
    assert report.verdicts["fp32"].latents == 200
    assert report.verdicts["fp32"].reference == "eager"


@pytest.mark.parametrize("name", altered_graphs.ALTERATIONS)
def test_an_exchanged_graph_fails(lively_bundle: Path, name: str) -> None:
    bundle = read_bundle(altered_graphs.with_other_graph(lively_bundle, altered_graphs.ALTERATIONS[name]))
    report = verify_bundle(bundle, batches=SOME_BATCHES)
    assert not report.passed
    finding = report.findings["fp32"]
    assert not finding.verdict.passed
    assert finding.problems
    expected = worst_of_all_batches(bundle.read("model.onnx"), GoldenSamples.from_arrays(bundle.golden(), bundle.spec))
    assert finding.verdict.errors["max_abs"] == pytest.approx(expected, rel=1e-6, abs=1e-7)
    if name == "collapsed":
        assert finding.verdict.errors["diversity"] < 0.9
        assert any("spread over samples" in p for p in finding.problems)
    if name == "rarely NaN":
        assert finding.verdict.errors["finite"] == 0.0
    if name in ("transposed", "unit range", "latents off by one"):
        assert any("levels" in p for p in report.checks["the runtime draws the golden images"])


def worst_of_all_batches(graph: bytes, golden: GoldenSamples) -> float:
    """By brute force, straight from ONNX Runtime: every sample in each of these batch sizes."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in SOME_BATCHES:
        for start in range(0, golden.latents, batch):
            rows = np.arange(start, start + batch) % golden.latents
            (image,) = session.run(["image"], {"z": golden.inputs["z"][rows]})
            found = image.reshape(batch, -1)[:, golden.positions["image"]].astype(np.float64)
            difference = np.abs(found - golden.elements["image"][rows])
            worst = max(worst, float(np.nan_to_num(difference, nan=np.finfo(np.float32).max).max()))
    return worst


def test_a_graph_that_does_not_run_in_every_batch_fails_and_says_why(lively_bundle: Path) -> None:
    bundle = read_bundle(altered_graphs.with_other_graph(lively_bundle, altered_graphs.bake_batch))
    report = verify_bundle(bundle)
    assert not report.passed
    finding = report.findings["fp32"]
    assert not finding.verdict.passed
    assert finding.verdict.errors == {}
    assert "ONNX Runtime failed on cpu: " in finding.problems[0]


def test_a_graph_that_is_none_is_an_error(lively_bundle: Path) -> None:
    def other_operator(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Nonsense"

    bundle = read_bundle(altered_graphs.with_other_graph(lively_bundle, other_operator))
    with pytest.raises(BackendError, match="ONNX Runtime refuses"):
        verify_bundle(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "preview.png"])
def test_an_edited_file_is_found_before_anything_runs(lively_bundle: Path, name: str) -> None:
    data = bytearray((lively_bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (lively_bundle / name).write_bytes(data)
    with pytest.raises(BundleIntegrityError, match=f"{name} was changed after the export"):
        verify_bundle(read_bundle(lively_bundle))


def test_golden_samples_of_another_seed_are_found(lively_bundle: Path) -> None:
    with bundle_changed(lively_bundle) as draft:
        assert draft.golden is not None
        draft.golden = replace(draft.golden, seed=draft.golden.seed + 1)
    report = verify_bundle(read_bundle(lively_bundle))
    assert not report.passed
    assert report.checks["noise gives the golden latents"] == ["z: noise draws other latents than the golden ones"]
    assert report.checks["the runtime draws the golden images"]


def test_golden_samples_of_another_network_are_found(lively_bundle: Path) -> None:
    bundle = read_bundle(lively_bundle)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    wrong = {name: np.roll(array, 1, axis=0) for name, array in golden.elements.items()}
    with bundle_changed(lively_bundle) as draft:
        draft.add("golden.npz", replace(golden, elements=wrong).to_bytes())
        draft.golden = GoldenRecord("golden.npz", bundle.manifest.golden.seed, golden.latents, "another")
    report = verify_bundle(read_bundle(lively_bundle))
    assert not report.passed
    assert report.verdicts["fp32"].reference == "another"


@pytest.mark.usefixtures("no_tensorrt")
def test_an_engine_for_another_machine_says_nothing_against_the_bundle(lively_bundle: Path) -> None:
    bundle = read_bundle(with_engine(lively_bundle))
    report = verify_bundle(bundle)
    assert report.passed
    assert set(report.findings) == {"fp32"}
    assert set(report.not_run) == {"h100"}
    assert report.not_run["h100"]


@pytest.mark.usefixtures("no_tensorrt")
def test_an_engine_that_was_asked_for_and_cannot_run_is_an_error(lively_bundle: Path) -> None:
    bundle = read_bundle(with_engine(lively_bundle))
    with pytest.raises((BackendError, ImportError)) as caught:
        verify_bundle(bundle, variants=["h100"])
    assert getattr(caught.value, "remedy", None)


@pytest.mark.usefixtures("no_tensorrt")
def test_a_bundle_of_which_nothing_ran_is_not_proven(lively_bundle: Path) -> None:
    with_engine(lively_bundle)
    with bundle_changed(lively_bundle) as draft:
        draft.variants = [v for v in draft.variants if v.format == "tensorrt"]
    report = verify_bundle(read_bundle(lively_bundle))
    assert not report.passed
    assert report.findings == {}


def test_a_variant_that_is_not_there_is_an_error_with_those_that_are(exported_once: Exported) -> None:
    with pytest.raises(BundleFormatError, match="no variant 'fp64'") as caught:
        verify_bundle(read_bundle(exported_once.path), variants=["fp64"])
    assert caught.value.expected == "fp32"


def test_a_device_that_is_none_is_an_error(exported_once: Exported) -> None:
    with pytest.raises(InputError, match="'gpu' is not a device"):
        verify_bundle(read_bundle(exported_once.path), device="gpu")


def test_a_variant_named_twice_runs_once(exported_once: Exported) -> None:
    bundle = read_bundle(exported_once.path)
    steps: list[int] = []
    verify_bundle(bundle, variants=["fp32", "fp32"], progress=steps.append, batches=(64,))
    assert sum(steps) == 1024 == images_to_run(bundle, 1, (64,), ["fp32", "fp32"], False)


def test_a_second_graph_is_verified_on_its_own(lively_bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(lively_bundle, tmp_path / "other.gan"))
    altered_graphs.with_other_graph(other, altered_graphs.perturb_one_weight)
    with bundle_changed(lively_bundle) as draft:
        draft.add("other.onnx", (other / "model.onnx").read_bytes())
        draft.put_variant(Variant("other", "fp32", "onnx", "other.onnx"))
    report = verify_bundle(read_bundle(lively_bundle))
    assert not report.passed
    assert {name: f.verdict.passed for name, f in report.findings.items()} == {"fp32": True, "other": False}


@pytest.mark.parametrize("change", [None, altered_graphs.perturb_one_weight], ids=["sound", "exchanged"])
def test_loading_still_follows_the_recorded_verdict(
    lively_bundle: Path, change: Callable[[onnx.ModelProto], None] | None
) -> None:
    if change is not None:
        altered_graphs.with_other_graph(lively_bundle, change)
    report = verify_bundle(read_bundle(lively_bundle))
    with bundle_changed(lively_bundle) as draft:
        draft.put_variant(draft.variants[0].with_verdict(report.verdicts["fp32"]))
    if change is None:
        with load(lively_bundle, "cpu") as generator:
            assert generator.generate(1).shape == (1, 16, 16, 1)
    else:
        with pytest.raises(BackendError, match="no verified onnx variant") as caught:
            load(lively_bundle, "cpu")
        assert "fp32 (failed)" in str(caught.value.got)
