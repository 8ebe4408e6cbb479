"""Heights and widths that vary: found, proven at several sizes, run at any, or refused with the module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import sized_networks as nets
import torch
from torch import nn

import ganruntime
from ganexport.bundling import bundle_from_source
from ganexport.comparison.comparison import compare
from ganexport.comparison.report import json_from_comparisons, text_from_comparisons
from ganexport.comparison.side import Arrays, BundleSide, CheckpointSide, Opened
from ganexport.comparison.sizes import (
    compare_at_sizes,
    latents_at,
    problems_at_sizes,
    sizes_from_texts,
    worst_comparison,
)
from ganexport.eager import eager_outputs
from ganexport.gate import verdict_against_golden
from ganexport.golden import GoldenSamples
from ganexport.graph import inference_copy, onnx_from_generator
from ganexport.input_text import given_inputs
from ganexport.passes.pipeline import PASSES, run_passes
from ganexport.passes.report import PassReport
from ganexport.program.noise_inputs import source_with_noise
from ganexport.program.size_search import source_with_sizes
from ganexport.proof_sizes import proof_sizes, proofs_of, traced_size
from ganexport.source import Source
from ganexport.spec_draft import spec_from_module
from ganexport.verification import verify_bundle
from ganruntime.bundle import read_bundle
from ganruntime.errors import ExportError, GanError, InputError, ParityError, SpecError
from ganruntime.images import uint8_from_output
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec

torch.set_num_threads(1)
LATENTS = 16


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Source]:
    torch.manual_seed(0)
    source = nets.source_of(nets.UNet(), "unet")
    path = tmp_path_factory.mktemp("sized") / "unet.gan"
    bundle_from_source(source, path, latents=LATENTS)
    return path, source


def photos(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).uniform(-1, 1, (count, 3, height, width)).astype(np.float32)


# What is found


@pytest.mark.parametrize(
    ("module", "multiple", "minimum", "output"),
    [
        (nets.UNet, 8, 8, (8, 0)),
        (nets.SuperResolution, 1, 1, (2, 0)),
        (nets.StyleTransfer, 2, 6, (2, 0)),
        (nets.Unpadded, 2, 8, (1, -3)),
        (nets.PaddedToEight, 2, 2, (2, 0)),
    ],
)
def test_graphs_compute_what_networks_compute_at_sizes_that_nobody_traced(
    module: type[nn.Module], multiple: int, minimum: int, output: tuple[int, int]
) -> None:
    torch.manual_seed(1)
    source = source_with_sizes(nets.source_of(module()))
    taken, given = source.spec.inputs[0].role, source.spec.outputs[0].role
    assert isinstance(taken, Image)
    assert isinstance(given, Image)
    assert (taken.multiple, taken.minimum) == (multiple, minimum)
    assert (given.multiple, given.offset) == output
    network = inference_copy(source.module, source.spec)
    graph = onnx_from_generator(network, source.spec)
    session = OnnxRuntimeSession(source.spec, ganruntime.bundle.Variant("g", "fp32", "onnx", "g"), graph, threads=1)
    traced = traced_size(source.spec)
    for steps in ((0, 0), (1, 0), (0, 3), (9, 4), (13, 20)):
        height, width = (-(-minimum // multiple) * multiple + multiple * s for s in steps)
        assert (height, width) != traced
        for batch in (1, 2, 3):
            inputs = {"photo": photos(height, width, batch)}
            expected = eager_outputs(network, source.spec, inputs)["image"]
            found = {"image": np.empty_like(expected)}
            session.run(inputs, found)
            np.testing.assert_allclose(found["image"], expected, rtol=0, atol=1e-5)


def test_the_graph_names_its_sizes() -> None:
    source = source_with_sizes(nets.source_of(nets.SuperResolution()))
    graph = onnx.load_model_from_string(onnx_from_generator(inference_copy(source.module, source.spec), source.spec))
    shapes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.graph.input, *graph.graph.output)
    ]
    assert shapes == [["batch", 3, "height", "width"], ["batch", 3, "2*height", "2*width"]]


def test_what_was_found_is_where_a_second_search_starts() -> None:
    once = source_with_sizes(nets.source_of(nets.UNet()))
    assert source_with_sizes(once) is once
    assert source_with_sizes(replace(once, notes={})).spec == once.spec


def test_a_multiple_that_the_spec_names_is_kept() -> None:
    source = nets.source_of(nets.SuperResolution())
    photo = replace(source.spec.inputs[0], role=Image(multiple=4, minimum=20))
    found = source_with_sizes(replace(source, spec=replace(source.spec, inputs=(photo,)))).spec
    assert found.inputs[0] == photo
    assert found.outputs[0].role == Image(multiple=8)


def test_fixed_shapes_are_not_searched() -> None:
    spec = GeneratorSpec(
        "fixed",
        (TensorSpec("photo", "float32", (3, 16, 16), Image()),),
        (TensorSpec("image", "float32", (3, 16, 16), Image()),),
    )
    source = Source(nets.UNet(), spec, "test")
    assert source_with_sizes(source) is source
    assert (proof_sizes(spec), traced_size(spec), len(proofs_of(spec, 9, (1, 2)))) == ((), None, 1)


def test_several_images_share_a_size_and_layouts_may_differ(tmp_path: Path) -> None:
    torch.manual_seed(2)
    spec = GeneratorSpec(
        "guided",
        (
            TensorSpec("photo", "float32", (3, None, None), Image()),
            TensorSpec("guide", "float32", (1, None, None), Image()),
            TensorSpec("z", "float32", (5,), Latent()),
        ),
        (TensorSpec("image", "float32", (None, None, 3), Image("HWC")),),
    )
    source = Source(nets.Guided(), spec, "test")
    path = bundle_from_source(source, tmp_path / "guided.gan", latents=LATENTS).path
    with ganruntime.load(path, device="cpu", backend="onnxruntime", threads=1) as generator:
        inputs = {"photo": photos(10, 7), "guide": photos(10, 7)[:, :1], "z": generator.latents(2, seed=3)}
        expected = eager_outputs(source.module.eval(), generator.spec, inputs)["image"]
        np.testing.assert_allclose(generator.outputs(inputs)["image"], expected, rtol=0, atol=1e-5)
        drawn = generator.generate(2, seed=3, photo=inputs["photo"], guide=inputs["guide"])
        assert np.array_equal(drawn, generator(inputs["z"], photo=inputs["photo"], guide=inputs["guide"]))
        with pytest.raises(InputError, match="'guide' has another size than 'photo'"):
            generator.generate(2, photo=photos(10, 7), guide=photos(10, 8)[:, :1])


# What is refused


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nets.BakedPositions, ["fixed in 'positions' (Positions), torch.Tensor.add, sized_networks.py:"]),
        (nets.BranchOnWidth, ["the width is held between 1 and 48 in 'branch' (Branch)"]),
        (nets.BranchOnEvenWidth, ["the width is held between", "in 'branch' (Branch)"]),
        (nets.IntegerHeight, ["the height is fixed to", "the network itself (IntegerHeight)", "sized_networks.py:"]),
        (nets.FixedOutput, ["output does not grow evenly", "[[3, 32, 32]] for height 64"]),
    ],
)
def test_a_baked_size_is_refused_with_its_place(module: type[nn.Module], said: list[str], tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        bundle_from_source(nets.source_of(module()), tmp_path / "baked.gan", latents=LATENTS)
    assert all(part in f"{caught.value}" for part in said), str(caught.value)
    assert "fixed heights and widths in the spec" in (caught.value.remedy or "")
    assert not (tmp_path / "baked.gan").exists()


@pytest.mark.parametrize(
    "tensor",
    [
        TensorSpec("photo", "float32", (3, None, 32), Image()),
        TensorSpec("photo", "float32", (3, 32, None), Image()),
    ],
)
def test_height_and_width_vary_together(tensor: TensorSpec) -> None:
    source = nets.source_of(nets.SuperResolution())
    with pytest.raises(ExportError, match="both together"):
        source_with_sizes(replace(source, spec=replace(source.spec, inputs=(tensor,))))


@pytest.mark.parametrize("choice", ["input", "freeze"])
def test_noise_that_follows_the_size_is_refused(choice: str) -> None:
    source = source_with_sizes(nets.source_of(nets.NoisyPhoto()))
    with pytest.raises(ExportError, match=r"shape that follows the height and width: .*NoisyPhoto"):
        source_with_noise(source, choice)


def test_a_pass_that_bakes_a_size_is_found_at_another(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx_ir as ir

    source = source_with_sizes(nets.source_of(nets.SuperResolution()))
    model = ir.from_proto(
        onnx.load_model_from_string(onnx_from_generator(inference_copy(source.module, source.spec), source.spec))
    )

    def cropping(model: ir.Model) -> PassReport:
        """Right for outputs of up to 24 rows."""
        output = model.graph.outputs[0]
        ends = [ir.tensor(np.array([v], np.int64), name=f"cut_{i}") for i, v in enumerate((0, 24, 2))]
        values = [ir.Value(name=t.name, const_value=t, shape=t.shape, type=ir.TensorType(t.dtype)) for t in ends]
        for value in values:
            model.graph.register_initializer(value)
        node = ir.node("Slice", [output, *values])
        model.graph.append(node)
        output.name, node.outputs[0].name = "uncut", "image"
        node.outputs[0].type = output.type
        model.graph.outputs[0] = node.outputs[0]
        return PassReport("cropping", changed=["cropped"])

    monkeypatch.setitem(PASSES, "cropping", cropping)
    small, large = {"photo": photos(6, 5)}, {"photo": photos(13, 5)}
    run_passes(model.clone() if hasattr(model, "clone") else model, [small], ["cropping"])
    with pytest.raises(ExportError, match="cropping changed what the graph computes"):
        run_passes(ir.from_proto(ir.to_proto(model)), [small, large], ["cropping"])


# The proof


def test_every_size_is_in_the_verdict_and_in_the_golden_samples(unet: tuple[Path, Source]) -> None:
    bundle = read_bundle(unet[0])
    sizes = proof_sizes(bundle.spec)
    assert sizes == ((64, 64), (8, 8), (48, 24), (32, 72))
    assert traced_size(bundle.spec) not in sizes
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    assert (golden.size, *(g.size for g in golden.others)) == sizes
    for samples in (golden, *golden.others):
        assert samples.inputs["photo"].shape[2:] == samples.size
        found = eager_outputs(unet[1].module.eval(), bundle.spec, samples.rows(0, 2))["image"]
        np.testing.assert_allclose(samples.whole["image"][:2], found, rtol=0, atol=1e-5)
    for variant in bundle.manifest.variants:
        assert [v.sizes for v in variant.verdicts] == [sizes]
    assert bundle.manifest.reports["export"]["sizes"] == {"multiple": 8, "minimum": 8}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_verify_repeats_every_size(unet: tuple[Path, Source], backend: str) -> None:
    pytest.importorskip(backend)
    bundle = read_bundle(unet[0])
    report = verify_bundle(bundle, backend=backend, batches=(1, 3, 5))
    assert report.passed
    assert report.verdicts["fp32"].sizes == proof_sizes(bundle.spec)
    assert "the runtime draws the golden images" in report.checks


@pytest.mark.parametrize("size", [(64, 64), (8, 8), (32, 72)])
def test_a_fault_at_one_size_alone_fails_the_proof(unet: tuple[Path, Source], size: tuple[int, int]) -> None:
    bundle = read_bundle(unet[0])
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)

    class Wrong(OnnxRuntimeSession):
        def run(self, inputs, out) -> None:  # type: ignore[no-untyped-def]
            super().run(inputs, out)
            if inputs["photo"].shape[2:] == size:
                out["image"][0] += 0.5  # golden samples hold chosen pixels only

    variant = bundle.variant("fp32")
    with Wrong(bundle.spec, variant, bundle.graph(variant), buckets=(1, 2), threads=1) as session:
        finding = verdict_against_golden(session, golden, "network", (1, 2))
    assert not finding.verdict.passed
    assert all(f"at height {size[0]}, width {size[1]}: " in problem for problem in finding.problems)
    assert finding.verdict.errors["max_abs"] == pytest.approx(0.5, abs=1e-3)


def test_golden_samples_of_a_size_that_does_not_fit_are_refused(unet: tuple[Path, Source]) -> None:
    bundle = read_bundle(unet[0])
    arrays = {k.replace("48x24.", "48x25."): v for k, v in bundle.golden().items()}
    with pytest.raises(GanError, match=r"golden.npz does not fit the spec"):
        GoldenSamples.from_arrays(arrays, bundle.spec)


# The runtime


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("output", ["float", "uint8"])
def test_any_size_that_fits_is_drawn(unet: tuple[Path, Source], backend: str, output: str) -> None:
    pytest.importorskip(backend)
    path, source = unet
    with ganruntime.load(path, "cpu", backend, "fp32" if output == "float" else "fp32-uint8", threads=1) as generator:
        for height, width in ((8, 8), (40, 16), (64, 64), (16, 136), (8, 8), (24, 32), (56, 48)):
            photo = photos(height, width, 5)
            eager = eager_outputs(source.module.eval(), read_bundle(path).spec, {"photo": photo})["image"]
            expected = uint8_from_output(eager, read_bundle(path).spec.outputs[0])
            drawn = generator.generate(5, photo=photo)
            assert drawn.shape == (5, height, width, 3)
            assert np.abs(drawn.astype(int) - expected).max() <= 1
            outputs = generator.outputs({"photo": photo})["image"]
            assert outputs.shape[1:] == ((height, width, 3) if output == "uint8" else (3, height, width))
        assert [c.shape for c in generator.stream(3, chunk_images=2, photo=photos(8, 16, 3))] == [
            (2, 8, 16, 3),
            (1, 8, 16, 3),
        ]
        assert generator.generate(0, photo=photos(8, 16, 1)[0]).shape == (0, 8, 16, 3)


@pytest.mark.parametrize("size", [(8, 12), (4, 8), (0, 8), (65, 64)])
def test_a_size_that_does_not_fit_says_what_does(unet: tuple[Path, Source], size: tuple[int, int]) -> None:
    with (
        ganruntime.load(unet[0], "cpu", "onnxruntime", threads=1) as generator,
        pytest.raises(InputError, match="size that the network does not take") as caught,
    ):
        generator.generate(1, photo=photos(*size, 1))
    assert caught.value.expected == "height and width multiples of 8, at least 8"


def test_the_batcher_keeps_sizes_apart(unet: tuple[Path, Source]) -> None:
    with ganruntime.load(unet[0], "cpu", "onnxruntime", threads=1) as generator, generator.batcher() as batcher:
        asked = [photos(8 * h, 8 * w, 1) for h, w in ((1, 1), (2, 1), (1, 1), (3, 4), (2, 1))]
        futures = [batcher.submit(photo=photo) for photo in asked]
        for photo, future in zip(asked, futures, strict=True):
            alone = generator.generate(1, photo=photo)
            assert np.abs(future.result(60).astype(int) - alone).max() <= 1


# The neighbours


def test_diff_compares_at_every_size_and_sees_a_fault_at_one_of_them(unet: tuple[Path, Source]) -> None:
    bundle = read_bundle(unet[0])
    a, b = CheckpointSide(unet[0], source_with_sizes(unet[1])), BundleSide(bundle, bundle.variant("fp32"))
    pixels = BundleSide(bundle, bundle.variant("fp32-uint8"))
    sizes = sizes_from_texts((), a.spec)
    counts = latents_at(sizes, 4, chosen=False)
    assert len(sizes) == 4
    for other, bound in ((b, 1e-5), (pixels, 0.5 + 1e-3)):
        found = compare_at_sizes(a, other, sizes, counts)
        assert [c.size for c in found] == list(sizes)
        assert not any(c.problems(bound, None) for c in found)
        assert all(c.outputs[0].worst[0].a.shape == (3, *c.size) for c in found if c.size)

    class WrongWhenWide(BundleSide):
        @contextlib.contextmanager
        def opened(self, device: str, batch: int) -> Iterator[Opened]:
            with super().opened(device, batch) as right:

                def run(inputs: Arrays) -> Arrays:
                    wide = inputs["photo"].shape[3] > inputs["photo"].shape[2]
                    return {
                        n: np.asarray(x, np.float32) + np.float32(0.01 * wide) for n, x in right.run(inputs).items()
                    }

                yield Opened(run, right.where)

    found = compare_at_sizes(a, WrongWhenWide(bundle, b.variant), sizes, counts)
    problems = problems_at_sizes(found, [c.problems(1e-5, None) for c in found])
    wide = [c for c in found if c.size and c.size[1] > c.size[0]]
    assert len(wide) == 1
    assert problems
    assert all(problem.startswith(f"{wide[0].size_label}: image: ") for problem in problems)
    assert worst_comparison(found, "image") is wide[0]
    report = text_from_comparisons(found, a, b)
    assert all(c.size_label in report for c in found)
    said = json_from_comparisons(found, problems, None)
    assert [tuple(one["size"]) for one in said["sizes"]] == list(sizes)
    with pytest.raises(InputError, match="height and width vary"):
        compare(a, b, latents=2)
    with pytest.raises(InputError, match=r"size that the network does not take[\s\S]*height 48, width 64"):
        sizes_from_texts(("50x64",), a.spec)
    with pytest.raises(InputError, match=r"HEIGHTxWIDTH\s+got: +64"):
        sizes_from_texts(("64",), a.spec)


def test_a_parity_fault_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class AsTraced(nn.Module):
        """Eagerly brighter than traced, at one size."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, photo: torch.Tensor) -> torch.Tensor:
            bright = not torch.compiler.is_exporting() and photo.shape[-1] == 37
            return torch.tanh(self.layer(photo) + (0.5 if bright else 0.0))

    with pytest.raises(ParityError) as caught:
        bundle_from_source(nets.source_of(AsTraced()), tmp_path / "a.gan", latents=LATENTS)
    assert "at height 32, width 37" in str(caught.value.got)


# The draft


def test_the_draft_says_what_fits() -> None:
    draft = spec_from_module(nets.UNet(), given_inputs(("photo=3xHxW,image",)), "unet")
    assert draft.to_check == ()
    assert draft.spec.inputs == (TensorSpec("photo", "float32", (3, None, None), Image(multiple=8, minimum=8)),)
    assert draft.spec.outputs == (TensorSpec("image", "float32", (3, None, None), Image(multiple=8)),)


def test_the_draft_of_a_fixed_output_keeps_it_fixed() -> None:
    draft = spec_from_module(nets.FixedOutput(), given_inputs(("photo=3xHxW,image",)))
    assert draft.spec.outputs == (TensorSpec("image", "float32", (3, 32, 32), Image()),)


def test_the_draft_of_a_baked_size_names_the_module() -> None:
    with pytest.raises(ExportError, match=r"'positions' \(Positions\)"):
        spec_from_module(nets.BakedPositions(), given_inputs(("photo=3xHxW,image",)))


def test_only_images_have_letters_for_sizes() -> None:
    assert given_inputs(("photo=HxWx3,image",))["photo"].tensor("photo").role == Image("HWC")
    for text in ("photo=3xHxW", "z=HxW", "photo=HxW,image", "photo=3xWxH,image"):
        with pytest.raises(SpecError):
            given_inputs((text,))
