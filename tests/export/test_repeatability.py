"""Whether a device gives the same bits again, and what follows where it does not. The device is a double: a session on
the CPU that calls itself a GPU and disturbs its last bits, as a GPU's ConvTranspose does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_graphs import write_bundle

from ganexport import verification
from ganexport.golden import GoldenSamples
from ganexport.precision.rungs import rungs_into_bundle
from ganexport.repeatability import RUNS, gap_between_runs, twin_of
from ganexport.verification import Report, verify_bundle
from ganruntime.bundle import Bundle, Variant, bundle_changed, read_bundle
from ganruntime.bundle.variant import REPEAT_GAP
from ganruntime.choice import choose
from ganruntime.errors import BackendError
from ganruntime.sessions.base import Arrays
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession

JITTER = 3e-7


class Unsteady(OnnxRuntimeSession):
    """Runs on the CPU and says `cuda:0`; ConvTranspose gives other bits each time."""

    def __init__(self, bundle: Bundle, variant: Variant, buckets: tuple[int, ...]) -> None:
        graph = bundle.graph(variant)
        super().__init__(bundle.spec, variant, graph, device="cpu", buckets=buckets)
        self.device = "cuda:0"
        self._jitters = any(n.op_type == "ConvTranspose" for n in onnx.load_model_from_string(graph).graph.node)
        self.runs = 0

    def run(self, inputs: Arrays, out: Arrays) -> None:
        super().run(inputs, out)
        self.runs += 1
        if self._jitters:
            for array in out.values():
                array += np.float32(JITTER) * (self.runs % 7 / 6)

    def prepared(self, inputs: Arrays, out: Arrays) -> Any:
        return lambda: self.run(inputs, out)


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "small.gan")


@pytest.fixture
def unsteady(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(bundle: Bundle, variant: Variant, device: str, buckets: tuple[int, ...], backend: str) -> Unsteady:
        if variant.precision == "int8":
            raise BackendError(f"{variant.file} does not run on cuda:0", got="no kernel for DepthToSpace")
        return Unsteady(bundle, variant, buckets)

    monkeypatch.setattr(verification, "open_session", opened)


def verified(path: Path) -> Report:
    """As `ganexport verify --device cuda` does it, verdicts recorded."""
    report = verify_bundle(read_bundle(path), device="cuda", batches=(1, 8))
    with bundle_changed(path) as draft:
        for variant in list(draft.variants):
            if variant.name in report.verdicts:
                draft.put_variant(variant.with_verdict(report.verdicts[variant.name]))
    return report


def test_the_gap_is_measured_and_the_same_bits_have_none(bundle_path: Path) -> None:
    rungs_into_bundle(bundle_path, ["fp32-cuda"], latents=8, calibration_latents=16, batches=(1, 3))
    bundle = read_bundle(bundle_path)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    gaps = {}
    for name in ("fp32", "fp32-cuda"):
        with Unsteady(bundle, bundle.variant(name), (64,)) as session:
            gaps[name] = gap_between_runs(session, golden)
            assert session.runs == RUNS
    assert 0 < gaps["fp32"] < 2 * JITTER
    assert gaps["fp32-cuda"] == 0.0


def test_a_value_that_comes_and_goes_is_infinitely_far_away(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(bundle_path)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    with Unsteady(bundle, bundle.variant("fp32"), (64,)) as session:
        usual = OnnxRuntimeSession.run

        def broken(self: Any, inputs: Arrays, out: Arrays) -> None:
            usual(self, inputs, out)
            if session.runs == 2:
                next(iter(out.values())).flat[0] = np.nan

        monkeypatch.setattr(OnnxRuntimeSession, "run", broken)
        assert gap_between_runs(session, golden) == np.inf


@pytest.mark.usefixtures("unsteady")
def test_a_variant_that_does_not_repeat_fails_and_its_remedy_is_named(bundle_path: Path) -> None:
    report = verified(bundle_path)
    assert not report.passed
    (problem,) = report.checks["fp32 gives the same bits when it is run again"]
    assert "does not on cuda:0, by up to " in problem
    assert f"ganexport precision {bundle_path} fp32-cuda" in problem
    assert read_bundle(bundle_path).variant("fp32").verdicts[-1].errors[REPEAT_GAP] > 0


@pytest.mark.usefixtures("unsteady")
def test_a_form_that_repeats_stands_for_it_and_is_what_a_load_takes(bundle_path: Path) -> None:
    assert choose(read_bundle(bundle_path), "cuda", "onnxruntime", "auto").variant.name == "fp32"
    rungs_into_bundle(bundle_path, ["fp32-cuda"], latents=8, calibration_latents=16, batches=(1, 3))
    # Not before it was proven there.
    assert choose(read_bundle(bundle_path), "cuda", "onnxruntime", "auto").variant.name == "fp32"
    report = verified(bundle_path)
    assert report.passed, report.checks
    assert report.checks["fp32-cuda gives the same bits when it is run again, where fp32 does not"] == []
    bundle = read_bundle(bundle_path)
    assert choose(bundle, "cuda", "onnxruntime", "auto").variant.name == "fp32-cuda"
    assert choose(bundle, "cuda", "onnxruntime", "fp32").variant.name == "fp32"  # by its name
    assert choose(bundle, "cpu", "onnxruntime", "auto").variant.name == "fp32"


def test_the_form_has_no_convtranspose(bundle_path: Path) -> None:
    rungs_into_bundle(bundle_path, ["fp32-cuda"], latents=8, calibration_latents=16, batches=(1, 3))
    bundle = read_bundle(bundle_path)
    operators = {
        name: {n.op_type for n in onnx.load_model_from_string(bundle.graph(bundle.variant(name))).graph.node}
        for name in ("fp32", "fp32-cuda")
    }
    assert "ConvTranspose" in operators["fp32"]
    assert "ConvTranspose" not in operators["fp32-cuda"]
    assert bundle.variant("fp32-cuda").verdicts[0].passed


@pytest.mark.usefixtures("unsteady")
def test_half_precision_that_does_not_repeat_has_no_command_for_it(bundle_path: Path) -> None:
    with bundle_changed(bundle_path) as draft:
        draft.put_variant(Variant("half", "fp16", "onnx", "model.onnx"))
    (problem,) = verified(bundle_path).checks["half gives the same bits when it is run again"]
    assert problem.startswith("it does not on cuda:0")
    assert "ganexport" not in problem


def test_what_gives_values_stands_for_pixels_of_its_precision_and_no_other() -> None:
    values = Variant("fp32", "fp32", "onnx", "model.onnx")
    form = Variant("fp32-cuda", "fp32", "onnx", "form.onnx")
    pixels = Variant("fp32-uint8", "fp32", "onnx", "pixels.onnx", output="uint8")
    half = Variant("fp16", "fp16", "onnx", "half.onnx")
    variants = (values, pixels, form, half)
    gaps = {"fp32": 3e-7, "fp32-uint8": 1.0, "fp32-cuda": 0.0, "fp16": 1e-4}
    assert twin_of(pixels, gaps, variants) is form
    assert twin_of(values, gaps, variants) is form
    assert twin_of(half, gaps, variants) is None
    assert twin_of(values, gaps | {"fp32-cuda": 1e-9, "fp32-uint8": 0.0}, variants) is None  # not by pixels


@pytest.mark.usefixtures("unsteady")
def test_integers_that_a_gpu_has_no_kernels_for_say_nothing_against_a_bundle(bundle_path: Path) -> None:
    rungs_into_bundle(bundle_path, ["fp32-cuda"], latents=8, calibration_latents=16, batches=(1, 3))
    with bundle_changed(bundle_path) as draft:
        draft.add("model.int8.onnx", b"not read")
        draft.put_variant(Variant("int8", "int8", "onnx", "model.int8.onnx"))
    report = verify_bundle(read_bundle(bundle_path), device="cuda", batches=(1, 8))
    assert report.passed
    assert "does not run on cuda:0" in report.not_run["int8"]
    with pytest.raises(BackendError, match="does not run on cuda:0"):
        verify_bundle(read_bundle(bundle_path), device="cuda", batches=(1, 8), variants=("int8",))


@pytest.mark.gpu
@pytest.mark.onnxruntime_gpu
def test_on_a_gpu_the_form_gives_the_same_bits_again(bundle_path: Path) -> None:
    rungs_into_bundle(bundle_path, ["fp32-cuda"], latents=8, calibration_latents=16, batches=(1, 3))
    report = verify_bundle(read_bundle(bundle_path), device="cuda", batches=(1, 8))
    assert report.passed, report.checks
    assert report.verdicts["fp32-cuda"].errors[REPEAT_GAP] == 0.0
