"""Variants that give pixels: equal to the float graph's, held against PyTorch, and refused where they are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import odd_networks as odd
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from ganexport import bundling
from ganexport.bundling import Exported, bundle_from_source, images_to_run
from ganexport.eager import eager_outputs
from ganexport.gate import verdict_against_golden, verdict_against_reference
from ganexport.golden import GoldenSamples
from ganexport.pixel_graph import pixel_graph_from_float
from ganexport.pixels import pixel_problems
from ganexport.source import Source
from ganexport.tensorrt.sources import source_variant
from ganexport.verification import verify_bundle
from ganruntime.bundle import Bundle, Variant, bundle_changed, read_bundle
from ganruntime.errors import ParityError
from ganruntime.generator import load
from ganruntime.images import uint8_from_output
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

BATCHES = (1, 2, 3, 64)
PIXELS = Variant("fp32-uint8", "fp32", "onnx", "model.uint8.onnx", output="uint8")
VALUES = Variant("fp32", "fp32", "onnx", "model.onnx")


@pytest.fixture
def bundle(exported_with_pixels_once: Exported, tmp_path: Path) -> Bundle:
    return read_bundle(shutil.copytree(exported_with_pixels_once.path, tmp_path / "pixels.gan"))


def session_of(spec: GeneratorSpec, variant: Variant, graph: bytes) -> OnnxRuntimeSession:
    return OnnxRuntimeSession(spec, variant, graph, buckets=BATCHES, threads=1)


def spoilt(graph: bytes, factor: float) -> bytes:
    """Its pixels a little brighter."""
    model = onnx.load_from_string(graph)
    (gain,) = [i for i in model.graph.initializer if i.name == "image_gain"]
    gain.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(gain) * np.float32(factor), gain.name))
    return model.SerializeToString()


def test_the_bundle_holds_both_and_the_manifest_says_which_gives_what(
    bundle: Bundle, exported_with_pixels_once: Exported
) -> None:
    values, pixels = bundle.manifest.variants
    assert (values.name, values.output, values.status) == ("fp32", "float", "verified")
    assert (pixels.name, pixels.output, pixels.precision, pixels.status) == ("fp32-uint8", "uint8", "fp32", "verified")
    assert exported_with_pixels_once.pixel_finding is not None
    assert pixels.verdicts == (exported_with_pixels_once.pixel_finding.verdict,)
    (verdict,) = pixels.verdicts
    # In levels: half a level of rounding, and the float graph's own bound.
    assert verdict.bound == pytest.approx(0.5 + 1e-5 * 127.5)
    assert 0.4 < verdict.errors["max_abs"] <= verdict.bound
    assert verdict.errors["max_uint8"] <= 1
    assert 55 < verdict.errors["psnr_db"] < 65  # rounding to 256 levels leaves 58.9 dB
    assert verdict.latents == 128
    # The weights are there a second time: that is what it costs.
    sizes = {v.name: bundle.manifest.files[v.file].size_bytes for v in bundle.manifest.variants}
    assert sizes["fp32"] < sizes["fp32-uint8"] < sizes["fp32"] + 2000
    (report,) = bundle.manifest.reports["passes"]["fp32-uint8"]
    assert report["name"] == "uint8_head"
    assert report["nodes_after"] - report["nodes_before"] == 6


def test_the_same_images_come_out_through_the_runtime(bundle: Bundle, source_once: Source) -> None:
    with load(bundle, "cpu", "onnxruntime") as values, load(bundle, "cpu", "onnxruntime", output="uint8") as pixels:
        assert values.session.variant.output == "float"
        for n, first in ((1, 0), (5, 40), (130, 7)):
            expected = values.generate(n, seed=3, first=first)
            np.testing.assert_array_equal(pixels.generate(n, seed=3, first=first), expected)
        assert expected.std() > 10
        inputs = {"z": values.latents(9, seed=4)}
    eager = eager_outputs(source_once.module.eval(), bundle.spec, inputs)["image"]
    gap = np.abs(uint8_from_output(eager, bundle.spec.outputs[0]).astype(int) - pixels_of(bundle, inputs))
    assert gap.max() <= 1


def pixels_of(bundle: Bundle, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with load(bundle, "cpu", "onnxruntime", precision="fp32-uint8") as generator:
        return generator.outputs(inputs)["image"]


def test_making_it_again_gives_the_same_bytes(bundle: Bundle) -> None:
    made = pixel_graph_from_float(bundle.read("model.onnx"), bundle.spec)
    assert made is not None
    assert made[0] == bundle.read("model.uint8.onnx")
    model = onnx.load_from_string(made[0])
    onnx.checker.check_model(model, full_check=True)
    (image,) = model.graph.output
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    batch, *rest = image.type.tensor_type.shape.dim
    assert (batch.dim_param, [d.dim_value for d in rest]) == ("batch", [16, 16, 1])
    assert {p.key for p in model.metadata_props} == {"ganexport.spec", "ganexport.version"}


def test_one_pixel_off_is_found_with_its_place(bundle: Bundle) -> None:
    values = session_of(bundle.spec, VALUES, bundle.read("model.onnx"))
    same = session_of(bundle.spec, PIXELS, bundle.read("model.uint8.onnx"))
    assert pixel_problems(values, same, 5, 20, BATCHES) == []
    # A part in 10⁵ moves a pixel in some hundreds across an edge.
    other = session_of(bundle.spec, PIXELS, spoilt(bundle.read("model.uint8.onnx"), 1.0001))
    (problem,) = pixel_problems(values, other, 5, 20, BATCHES)
    assert problem.startswith("image differs at sample ")
    assert "by up to 1," in problem


@pytest.mark.parametrize("factor", [1.01, 0.99])
def test_the_gate_refuses_pixels_that_are_off(bundle: Bundle, source_once: Source, factor: float) -> None:
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    network = source_once.module.eval()
    for graph, passes in (
        (bundle.read("model.uint8.onnx"), True),
        (spoilt(bundle.read("model.uint8.onnx"), factor), False),
    ):
        session = session_of(bundle.spec, PIXELS, graph)
        findings = (
            verdict_against_golden(session, golden, "golden", BATCHES),
            verdict_against_reference(
                session, lambda i: eager_outputs(network, bundle.spec, i), "network", latents=70, batches=BATCHES
            ),
        )
        for finding in findings:
            assert finding.verdict.passed == passes, finding.problems
            assert bool(finding.problems) != passes


def test_verifying_holds_it_against_the_float_graph_too(bundle: Bundle) -> None:
    check = "fp32-uint8 draws the pixels of fp32"
    report = verify_bundle(bundle, batches=(3, 64))
    assert report.passed
    assert report.checks[check] == []
    assert set(report.findings) == {"fp32", "fp32-uint8"}
    with bundle_changed(bundle.path) as draft:
        draft.add("model.uint8.onnx", spoilt(bundle.read("model.uint8.onnx"), 1.0001))
    report = verify_bundle(read_bundle(bundle.path), batches=(3, 64))
    assert not report.passed
    assert "image differs at sample" in report.checks[check][0]


def test_pixels_that_are_not_equal_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = bundling.pixel_graph_from_float

    def wrong(graph: bytes, spec: GeneratorSpec) -> object:
        made = real(graph, spec)
        assert made is not None
        return spoilt(made[0], 1.02), made[1]

    monkeypatch.setattr(bundling, "pixel_graph_from_float", wrong)
    torch.manual_seed(1)
    source = Source(odd.Small(), odd.spec_of(), "test")
    with pytest.raises(ParityError, match="does not give those of the graph that gives values") as caught:
        bundle_from_source(source, tmp_path / "new.gan", latents=20)
    assert "--no-uint8" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


class BareConvolution(odd.Small):
    """A convolution at the end, whose values leave the range: ONNX Runtime folds a Mul behind it into its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.nn.Conv2d(1, 3, 3, padding=1)
        torch.nn.init.normal_(self.out.weight, 0.0, 1.0)

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.out(self.draw(3 * z))
        return images


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-0.3, 0.9)])
def test_a_bare_convolution_gives_equal_pixels_too(tmp_path: Path, low: float, high: float) -> None:
    image = TensorSpec("image", "float32", (3, 4, 4), Image("CHW", (low, high)))
    torch.manual_seed(4)
    exported = bundle_from_source(
        Source(BareConvolution(), odd.spec_of(outputs=(image,)), "test"), tmp_path / "new.gan", latents=300
    )
    assert exported.pixel_finding is not None
    assert exported.pixel_finding.verdict.passed


def test_several_outputs_keep_what_is_no_image(tmp_path: Path) -> None:
    class Both(odd.Small):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return self.draw(z), 3 * z

    spec = odd.spec_of(outputs=(odd.IMAGE, odd.CODE))
    bundle_from_source(Source(Both(), spec, "test"), tmp_path / "both.gan", latents=30)
    bundle = read_bundle(tmp_path / "both.gan")
    with load(bundle, "cpu", "onnxruntime", output="uint8") as generator:
        found = generator.outputs({"z": generator.latents(3)})
    assert (found["image"].dtype, found["image"].shape) == (np.uint8, (3, 4, 4, 1))
    assert (found["code"].dtype, found["code"].shape) == (np.float32, (3, 8))
    assert {"image.max_abs", "code.max_abs"} <= set(bundle.variant("fp32-uint8").verdicts[0].errors)


def test_without_an_image_there_is_no_such_variant(tmp_path: Path) -> None:
    class Code(odd.Small):
        def forward(self, z: Tensor) -> Tensor:
            return self.linear(z)[:, :8]

    spec = odd.spec_of(outputs=(odd.CODE,))
    steps: list[int] = []
    exported = bundle_from_source(Source(Code(), spec, "test"), tmp_path / "c.gan", latents=20, progress=steps.append)
    assert exported.pixel_finding is None
    assert [v.name for v in read_bundle(tmp_path / "c.gan").manifest.variants] == ["fp32"]
    assert sum(steps) == images_to_run(spec, 20) == 100


def test_what_is_made_of_a_graph_is_made_of_the_float_one(bundle: Bundle) -> None:
    from ganexport.precision.rungs import rungs_into_bundle

    with bundle_changed(bundle.path) as draft:
        draft.variants = list(reversed(draft.variants))
    assert source_variant(read_bundle(bundle.path), "fp32").name == "fp32"
    (made,) = rungs_into_bundle(bundle.path, ["fp16"], latents=32, calibration_latents=16)
    assert "model.onnx (" in made.findings[0].verdict.reference
