"""From a source to a bundle: what lies in it, and that a failure leaves what was there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import odd_networks as odd
import onnx
import PIL.Image
import pytest
import torch
from onnx import numpy_helper

from ganexport import bundling
from ganexport.bundling import Exported, bundle_from_source, images_to_run, preview_png
from ganexport.eager import eager_outputs
from ganexport.golden import GoldenSamples
from ganexport.source import Source
from ganruntime.bundle import read_bundle
from ganruntime.errors import ExportError, InputError, MissingDependencyError, OutputError, ParityError
from ganruntime.images import uint8_from_output


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def files_of(folder: Path) -> dict[str, str]:
    """Everything below a folder, hidden files too, by hash."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


@pytest.fixture
def graph_spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter gives a graph with one weight a little off."""

    real = bundling.onnx_from_generator

    def spoilt(*arguments: object, **options: object) -> bytes:
        model = onnx.load_from_string(real(*arguments, **options))  # type: ignore[arg-type]
        weights = model.graph.initializer[0]
        array = numpy_helper.to_array(weights).copy()
        array.flat[0] += 1e-3
        weights.CopyFrom(numpy_helper.from_array(array, weights.name))
        return model.SerializeToString()

    monkeypatch.setattr(bundling, "onnx_from_generator", spoilt)


def small_source(network: type[odd.Small] = odd.Small) -> Source:
    torch.manual_seed(1)
    return Source(network(), odd.spec_of(), "test")


def test_a_bundle_says_what_was_exported_and_how_it_was_proven(exported_once: Exported, source_once: Source) -> None:
    bundle = read_bundle(exported_once.path)
    assert set(bundle.manifest.files) == {"model.onnx", "golden.npz", "preview.png"}
    for name in bundle.manifest.files:
        bundle.read(name)
    assert bundle.spec == source_once.spec
    assert bundle.manifest.reports["export"] == {
        "origin": "checkpoint lively",
        "weights_sha256": source_once.weights_sha256(),
        "opset": 18,
        "torch": torch.__version__,
    }
    (variant,) = bundle.manifest.variants
    assert (variant.name, variant.precision, variant.format, variant.status) == ("fp32", "fp32", "onnx", "verified")
    (verdict,) = variant.verdicts
    assert verdict == exported_once.finding.verdict
    assert verdict.passed
    assert (verdict.backend, verdict.device, verdict.latents) == ("onnxruntime", "cpu", 1024)
    assert verdict.batches == (1, 2, 3, 64, 257)
    assert verdict.bound == 1e-5
    assert 0 < verdict.errors["max_abs"] < 1e-5
    assert verdict.errors["diversity"] == pytest.approx(1, abs=1e-4)
    assert torch.__version__ in verdict.reference
    assert exported_once.graph_bytes == len(bundle.read("model.onnx"))


def test_golden_samples_are_those_of_the_network(exported_once: Exported, source_once: Source) -> None:
    bundle = read_bundle(exported_once.path)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    assert golden.latents == bundle.manifest.golden.latents == 1024
    expected = eager_outputs(source_once.module, bundle.spec, golden.inputs)["image"]
    np.testing.assert_allclose(golden.elements["image"], expected.reshape(1024, -1), rtol=0, atol=1e-6)
    np.testing.assert_allclose(golden.whole["image"], expected[:64], rtol=0, atol=1e-6)


def test_the_preview_is_a_sheet_of_the_golden_images(exported_once: Exported) -> None:
    bundle = read_bundle(exported_once.path)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    image = PIL.Image.open(io.BytesIO(bundle.read("preview.png")))
    image.load()
    # 8 × 8 images of 16 px, four times enlarged, 2 px apart.
    assert (image.format, image.mode, image.size) == ("PNG", "L", (8 * 66 + 2, 8 * 66 + 2))
    pixels = np.asarray(image)
    drawn = uint8_from_output(golden.whole["image"], bundle.spec.outputs[0])[..., 0]
    for i in (0, 7, 8, 63):
        top, left = 2 + i // 8 * 66, 2 + i % 8 * 66
        np.testing.assert_array_equal(pixels[top : top + 64 : 4, left : left + 64 : 4], drawn[i])
    assert pixels.std() > 20


def test_nothing_in_the_bundle_names_this_machine(exported_once: Exported) -> None:
    for file in exported_once.path.iterdir():
        for word in (str(Path.home()), str(Path.cwd()), str(exported_once.path.parent), os.uname().nodename):
            assert len(word) < 4 or word.encode() not in file.read_bytes(), (file.name, word)


def test_exporting_again_gives_the_same_bundle(
    exported_once: Exported, source_once: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    bundle_from_source(source_once, tmp_path / "again.gan", uint8=False)
    assert files_of(tmp_path / "again.gan") == files_of(exported_once.path)


@pytest.mark.usefixtures("graph_spoilt")
def test_a_graph_that_fails_the_gate_is_not_written_and_the_old_bundle_stays(lively_bundle: Path) -> None:
    before = files_of(lively_bundle.parent)
    with pytest.raises(ParityError, match="does not compute what the network computes") as caught:
        bundle_from_source(small_source(), lively_bundle, latents=20)
    assert "largest error" in str(caught.value.got)
    assert "at sample" in str(caught.value.got)
    assert "1e-05 from PyTorch" in str(caught.value.expected)
    assert caught.value.remedy
    assert files_of(lively_bundle.parent) == before
    assert names_in(lively_bundle.parent) == [lively_bundle.name]


@pytest.mark.usefixtures("graph_spoilt")
def test_a_graph_that_fails_the_gate_leaves_nothing_at_a_new_path(tmp_path: Path) -> None:
    with pytest.raises(ParityError):
        bundle_from_source(small_source(), tmp_path / "new.gan", latents=20)
    assert list(tmp_path.iterdir()) == []


def test_a_condition_on_the_batch_fails_the_trace_and_the_error_says_where(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="held between 0 and 47 in the network itself") as caught:
        bundle_from_source(small_source(odd.BranchesOnLargeBatch), tmp_path / "new.gan", latents=20)
    assert "Python conditions" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_a_baked_batch_that_hides_is_an_export_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph's outside says dynamic; a Reshape inside has the example's batch in it."""
    real = bundling.onnx_from_generator

    def baked(*arguments: object, **options: object) -> bytes:
        model = onnx.load_from_string(real(*arguments, **options))  # type: ignore[arg-type]
        model.graph.initializer.append(numpy_helper.from_array(np.array([2, 8], np.int64), "baked"))
        reshape = onnx.helper.make_node("Reshape", ["z", "baked"], ["z_of_two"])
        for node in model.graph.node:
            node.input[:] = ["z_of_two" if name == "z" else name for name in node.input]
        model.graph.node.insert(0, reshape)
        return model.SerializeToString()

    monkeypatch.setattr(bundling, "onnx_from_generator", baked)
    with pytest.raises(ExportError, match="does not run in every batch size") as caught:
        bundle_from_source(small_source(), tmp_path / "new.gan", latents=20)
    assert "dimensions" in str(caught.value.got)
    assert "groups" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def refuse_to_export(*arguments: object, **options: object) -> bytes:
    raise AssertionError("exported although nothing can be written")


def test_a_file_in_the_way_is_refused_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "onnx_from_generator", refuse_to_export)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt is not a folder"):
        bundle_from_source(small_source(), tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_foreign_folder_is_refused_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "onnx_from_generator", refuse_to_export)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("mine")
    before = files_of(tmp_path)
    with pytest.raises(InputError, match="is a folder that is not a bundle"):
        bundle_from_source(small_source(), tmp_path / "thesis")
    assert files_of(tmp_path) == before


def test_a_missing_parent_is_refused_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "onnx_from_generator", refuse_to_export)
    with pytest.raises(OutputError, match="cannot write") as caught:
        bundle_from_source(small_source(), tmp_path / "no" / "such" / "new.gan")
    assert "mkdir -p" in (caught.value.remedy or "")


def test_a_full_disk_leaves_the_old_bundle(lively_bundle: Path, full_disk: Path) -> None:
    path = full_disk / "lively.gan"
    shutil.copytree(lively_bundle, path)
    before = files_of(full_disk)
    filling = full_disk / "filling"
    with filling.open("wb") as file:  # leave a few KiB: less than a graph
        while shutil.disk_usage(full_disk).free > 8192:
            file.write(b"\0" * 4096)
            file.flush()
    with pytest.raises(OutputError, match=r"cannot write .*lively\.gan") as caught:
        bundle_from_source(small_source(), path, latents=20)
    assert caught.value.got == "No space left on device"
    assert "free some space" in (caught.value.remedy or "")
    filling.unlink()
    assert files_of(full_disk) == before
    read_bundle(path).read("golden.npz")


def test_several_inputs_and_outputs_are_bundled_and_previewed_at_their_defaults(tmp_path: Path) -> None:
    class Both(odd.Conditional):
        def forward(self, z, label, truncation):  # type: ignore[no-untyped-def]
            return super().forward(z, label, truncation), 3 * z * truncation[:, None]

    torch.manual_seed(2)
    spec = odd.spec_of(odd.Z, odd.LABEL, odd.TRUNCATION, outputs=(odd.IMAGE, odd.CODE))
    network = Both()
    exported = bundle_from_source(Source(network, spec, "test"), tmp_path / "both.gan", latents=100)
    verdict = exported.finding.verdict
    assert {"image.max_abs", "code.max_abs", "code.psnr_db", "image.max_uint8"} <= set(verdict.errors)
    bundle = read_bundle(tmp_path / "both.gan")
    golden = GoldenSamples.from_arrays(bundle.golden(), spec)
    right = eager_outputs(network.eval(), spec, golden.inputs)
    for name in ("image", "code"):
        np.testing.assert_allclose(golden.elements[name], right[name].reshape(100, -1), rtol=0, atol=1e-5)
    # 32 of the 64 whole samples have ψ = 1.
    sheet = PIL.Image.open(io.BytesIO(bundle.read("preview.png")))
    assert sheet.size == (6 * 66 + 2, 6 * 66 + 2)


def test_a_constant_scalar_fails_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that takes ψ's default for ψ: right for every latent at the default, and wrong."""
    real = bundling.onnx_from_generator

    def frozen(*arguments: object, **options: object) -> bytes:
        model = onnx.load_from_string(real(*arguments, **options))  # type: ignore[arg-type]
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
        model.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
        for node in model.graph.node:
            node.input[:] = ["always_one" if name == "truncation" else name for name in node.input]
        model.graph.node.insert(0, onnx.helper.make_node("Mul", ["truncation", "zero"], ["no_psi"]))
        model.graph.node.insert(1, onnx.helper.make_node("Add", ["no_psi", "one"], ["always_one"]))
        return model.SerializeToString()

    monkeypatch.setattr(bundling, "onnx_from_generator", frozen)
    spec = odd.spec_of(odd.Z, odd.LABEL, odd.TRUNCATION)
    with pytest.raises(ParityError, match="does not compute"):
        bundle_from_source(Source(odd.Conditional(), spec, "test"), tmp_path / "new.gan", latents=20)


def test_a_generator_that_draws_no_picture_has_no_preview(exported_once: Exported) -> None:
    spec = odd.spec_of(outputs=(odd.CODE,))
    golden = GoldenSamples({}, {"code": np.zeros((4, 8), np.float32)}, {}, {})
    assert preview_png(golden, spec) is None


def test_without_a_backend_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError) as caught:
        bundle_from_source(small_source(), tmp_path / "new.gan", latents=20)
    assert "ganexport[cpu]" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def test_what_is_done_is_said_and_progress_reaches_its_end(tmp_path: Path) -> None:
    said: list[str] = []
    steps: list[int] = []
    source = small_source()
    bundle_from_source(source, tmp_path / "new.gan", latents=20, say=said.append, progress=steps.append)
    assert [line.split()[0] for line in said] == ["checking", "exporting", "proving", "proving", "writing"]
    assert sum(steps) == images_to_run(source.spec, 20) == 3 * 20 * 5
    assert (
        json.loads((tmp_path / "new.gan" / "manifest.json").read_text())["variants"][0]["verdicts"][0]["latents"] == 20
    )
