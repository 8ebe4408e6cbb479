"""From a source to a bundle: graph, golden samples, parity gate, preview; written only if the gate passed."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ganexport.gate import BATCHES, LATENTS, Finding, verdict_against_reference
from ganexport.golden import SEED, GoldenSamples, golden_from_reference
from ganexport.graph import OPSET, evaluate_from_module, inference_copy, onnx_from_generator
from ganexport.source import Source
from ganruntime.bundle import GoldenRecord, Variant, bundle_written
from ganruntime.errors import ParityError
from ganruntime.images import sheet_from_images, uint8_from_output
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.spec import GeneratorSpec, Image

GRAPH_FILE = "model.onnx"
GOLDEN_FILE = "golden.npz"
PREVIEW_FILE = "preview.png"
_PREVIEW_IMAGES = 64

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What an export came to."""

    path: Path
    graph_bytes: int
    finding: Finding


def bundle_from_source(
    source: Source,
    path: Path | str,
    *,
    opset: int = OPSET,
    latents: int = LATENTS,
    say: Say = lambda line: None,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Exports a source and writes the bundle.

    Args:
        latents: how many the gate runs, in each batch size.
        say: told what is being done.
        progress: called with the number of images that the gate has just run.

    Raises:
        ExportError: there is no graph of this network.
        ParityError: there is one, and it does not compute what the network computes. Nothing is written.
        OutputError: the bundle could not be written.
    """
    import torch

    spec = source.spec
    say("checking the network")
    network = inference_copy(source.module, spec)
    evaluate = evaluate_from_module(network, spec)
    say("exporting the graph")
    graph = onnx_from_generator(network, spec, opset=opset)
    reference = f"PyTorch {torch.__version__} eager fp32 on the CPU"
    variant = Variant("fp32", "fp32", "onnx", GRAPH_FILE)
    say(f"proving the graph over {latents:,} latents in batches {', '.join(map(str, BATCHES))}")
    with OnnxRuntimeSession(spec, variant, graph, device="cpu", buckets=BATCHES) as session:
        finding = verdict_against_reference(session, evaluate, reference, latents=latents, progress=progress)
    if finding.problems:
        raise ParityError(
            f"{spec.name}: the exported graph does not compute what the network computes, and is not written",
            got="; ".join(finding.problems),
            expected=f"at most {finding.verdict.bound:.3g} from {reference}",
            remedy="report it with the network: this is a fault of the exporter or of the graph passes",
        )
    say("writing the bundle")
    golden = golden_from_reference(spec, evaluate)
    with bundle_written(path, spec) as draft:
        draft.add(GRAPH_FILE, graph)
        draft.add(GOLDEN_FILE, golden.to_bytes())
        draft.golden = GoldenRecord(GOLDEN_FILE, SEED, golden.latents, reference)
        preview = preview_png(golden, spec)
        if preview is not None:
            draft.add(PREVIEW_FILE, preview)
            draft.preview = PREVIEW_FILE
        draft.put_variant(variant.with_verdict(finding.verdict))
        draft.reports["export"] = {
            "origin": source.origin,
            "weights_sha256": source.weights_sha256(),
            "opset": opset,
            "torch": torch.__version__,
        }
    return Exported(Path(path), len(graph), finding)


def preview_png(golden: GoldenSamples, spec: GeneratorSpec) -> bytes | None:
    """A sheet of the first golden samples as a PNG file; None for a generator that draws no image."""
    tensor = spec.image
    if tensor is None or tensor.channels not in (1, 3, 4):
        return None
    images = uint8_from_output(golden.whole[tensor.name][:_PREVIEW_IMAGES], tensor)
    assert isinstance(tensor.role, Image)
    scale = max(1, 64 // max(images.shape[1:3]))
    file = io.BytesIO()
    sheet_from_images(images, padding=2, scale=scale).save(file, "PNG")
    return file.getvalue()
