"""From a source to a bundle: graph, golden samples, parity gate, preview; written only if the gate passed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ganexport.gate import BATCHES, LATENTS, PROOF_SEED, Finding, verdict_against_reference
from ganexport.golden import LATENTS as GOLDEN_LATENTS
from ganexport.golden import SEED, Evaluate, GoldenSamples, golden_from_reference
from ganexport.graph import OPSET, evaluate_from_module, inference_copy, onnx_from_generator
from ganexport.pixel_graph import pixel_graph_from_float
from ganexport.pixels import pixel_problems
from ganexport.proof_sizes import proof_sizes, proofs_of
from ganexport.replacement import Replacement
from ganexport.source import Source
from ganruntime.bundle import GoldenRecord, Variant, bundle_written
from ganruntime.errors import BackendError, ExportError, MissingDependencyError, ParityError
from ganruntime.images import sheet_from_images, uint8_from_output
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.spec import GeneratorSpec, Image, Scalar

if TYPE_CHECKING:
    from ganexport.passes.report import PassReport

GRAPH_FILE = "model.onnx"
PIXEL_GRAPH_FILE = "model.uint8.onnx"
GOLDEN_FILE = "golden.npz"
PREVIEW_FILE = "preview.png"
_PREVIEW_IMAGES = 64

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What an export came to.

    pixel_finding: that of the variant that gives pixels, where there is one.
    """

    path: Path
    graph_bytes: int
    finding: Finding
    pixel_finding: Finding | None = None


def bundle_from_source(
    source: Source,
    path: Path | str,
    *,
    opset: int = OPSET,
    passes: Sequence[str] | None = None,
    uint8: bool = True,
    latents: int = LATENTS,
    batches: Sequence[int] = BATCHES,
    keep_engines: bool = False,
    say: Say = lambda line: None,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Exports a source and writes the bundle.

    Args:
        passes: graph passes, in the order in which they run; by default those that pay everywhere.
        uint8: also write the variant whose images leave the graph as pixels, where the generator draws images.
        latents: how many the gate runs, in each batch size; where that is less than usual, of golden samples as well.
        batches: those batch sizes.
        keep_engines: carry the engines of a bundle at `path` over that can be refitted.
        say: told what is being done, and first what goes with the old weights of a bundle at `path`.
        progress: called with the number of images that the gate has just run.

    Raises:
        InputError: `path` is something other than a bundle, or has no engine to keep; before anything is exported. Or
            an engine to keep is of another architecture; nothing is written.
        ExportError: there is no graph of this network.
        ParityError: there is one, and it does not compute what the network computes. Nothing is written.
        OutputError: the bundle could not be written.
    """
    import torch

    from ganexport.program.size_search import source_with_sizes

    source = source_with_sizes(source)
    spec = source.spec
    reference = f"PyTorch {torch.__version__} eager fp32 on the CPU"
    replaced = Replacement(path, keep_engines=keep_engines)
    # Opened first: that nothing can be written here should not be found out after minutes.
    with bundle_written(path, spec) as draft:
        for line in replaced.announcement():
            say(line)
        say("checking the network")
        network = inference_copy(source.module, spec)
        evaluate = evaluate_from_module(network, spec)
        say("exporting the graph")
        reports: list[PassReport] = []
        graph = onnx_from_generator(network, spec, opset=opset, passes=passes, on_pass=reports.append)
        sizes = ", ".join(f"{height} × {width}" for height, width in proof_sizes(spec))
        say(
            f"proving the graph over {latents:,} latents in batches {', '.join(map(str, batches))}"
            + (f", at sizes {sizes}" if sizes else "")
        )
        variant = Variant("fp32", "fp32", "onnx", GRAPH_FILE)
        finding = _proven(graph, spec, variant, evaluate, reference, latents, batches, progress)
        pass_reports: dict[str, Any] = {variant.name: [r.to_json() for r in reports]}
        pixels = pixel_graph_from_float(graph, spec) if uint8 else None
        pixel_finding = None
        if pixels is not None:
            pixel_variant = Variant("fp32-uint8", "fp32", "onnx", PIXEL_GRAPH_FILE, output="uint8")
            say("proving the graph that gives pixels, equal to that of values")
            pixel_finding = _proven_pixels(
                graph, pixels[0], spec, variant, pixel_variant, evaluate, reference, latents, batches, progress
            )
            pass_reports[pixel_variant.name] = [pixels[1]]
        say("writing the bundle")
        golden = golden_from_reference(spec, evaluate, latents=min(GOLDEN_LATENTS, latents))
        draft.add(GRAPH_FILE, graph)
        draft.add(GOLDEN_FILE, golden.to_bytes())
        draft.golden = GoldenRecord(GOLDEN_FILE, SEED, golden.latents, reference)
        preview = preview_png(golden, spec)
        if preview is not None:
            draft.add(PREVIEW_FILE, preview)
            draft.preview = PREVIEW_FILE
        draft.put_variant(variant.with_verdict(finding.verdict))
        if pixels is not None and pixel_finding is not None:
            draft.add(PIXEL_GRAPH_FILE, pixels[0])
            draft.put_variant(pixel_variant.with_verdict(pixel_finding.verdict))
        carried = replaced.carry_into(draft)
        draft.reports["passes"] = pass_reports
        draft.reports["export"] = {
            "origin": source.origin,
            "weights_sha256": source.weights_sha256(),
            "opset": opset,
            "torch": torch.__version__,
            **source.notes,
        }
    for line in replaced.afterword(carried):
        say(line)
    return Exported(Path(path), len(graph), finding, pixel_finding)


def images_to_run(spec: GeneratorSpec, latents: int, uint8: bool = True, batches: Sequence[int] = BATCHES) -> int:
    """How many images the gate will run, for a progress bar: those of pixels twice, against values and the network."""
    runs = 3 if uint8 and any(isinstance(t.role, Image) and t.dtype == "float32" for t in spec.outputs) else 1
    return runs * sum(proof.images for proof in proofs_of(spec, latents, batches))


def _proven(
    graph: bytes,
    spec: GeneratorSpec,
    variant: Variant,
    evaluate: Evaluate,
    reference: str,
    latents: int,
    batches: Sequence[int],
    progress: Callable[[int], None] | None,
) -> Finding:
    try:
        with OnnxRuntimeSession(spec, variant, graph, device="cpu", buckets=tuple(batches)) as session:
            finding = verdict_against_reference(
                session, evaluate, reference, latents=latents, batches=batches, progress=progress
            )
    except MissingDependencyError:
        raise
    except BackendError as error:
        raise ExportError(
            f"{spec.name}: the exported graph does not run in every batch size, and is not written",
            got=error.got,
            expected=f"a graph for batches {', '.join(map(str, batches))}",
            remedy="keep the batch out of groups, of reshapes with fixed sizes and of Python conditions",
        ) from error
    if finding.problems:
        raise ParityError(
            f"{spec.name}: the exported graph does not compute what the network computes, and is not written",
            got="; ".join(finding.problems),
            expected=f"at most {finding.verdict.bound:.3g} from {reference}",
            remedy="Python conditions on the batch or on values are frozen at export: write them as tensor operations; "
            "where there are none, report it with the network as a fault of the exporter",
        )
    return finding


def _proven_pixels(
    graph: bytes,
    pixel_graph: bytes,
    spec: GeneratorSpec,
    variant: Variant,
    pixel_variant: Variant,
    evaluate: Evaluate,
    reference: str,
    latents: int,
    batches: Sequence[int],
    progress: Callable[[int], None] | None,
) -> Finding:
    """Equal to the pixels of the float graph, every one; and then against the network, as every graph is."""
    with (
        OnnxRuntimeSession(spec, variant, graph, device="cpu", buckets=tuple(batches)) as values,
        OnnxRuntimeSession(spec, pixel_variant, pixel_graph, device="cpu", buckets=tuple(batches)) as pixels,
    ):
        problems = pixel_problems(values, pixels, PROOF_SEED, latents, batches, progress)
    if problems:
        raise ParityError(
            f"{spec.name}: the graph that gives pixels does not give those of the graph that gives values",
            got="; ".join(problems),
            expected="equal pixels over every latent in every batch size",
            remedy="--no-uint8 leaves it out; report it with the network",
        )
    return _proven(pixel_graph, spec, pixel_variant, evaluate, reference, latents, batches, progress)


def preview_png(golden: GoldenSamples, spec: GeneratorSpec) -> bytes | None:
    """A sheet of the first golden samples, scalars at their defaults, as a PNG file; None where no image is drawn."""
    tensor = spec.image
    if tensor is None or tensor.channels not in (1, 3, 4):
        return None
    whole = golden.whole[tensor.name]
    usual = np.ones(len(whole), bool)
    for scalar in spec.inputs:
        if isinstance(scalar.role, Scalar):
            values = golden.inputs[scalar.name][: len(whole)].reshape(len(whole), -1)
            usual &= (values == np.asarray(scalar.role.default, values.dtype)).all(axis=1)
    images = uint8_from_output(whole[usual][:_PREVIEW_IMAGES], tensor)
    scale = max(1, 64 // max(images.shape[1:3]))
    file = io.BytesIO()
    sheet_from_images(images, padding=2, scale=scale).save(file, "PNG")
    return file.getvalue()
