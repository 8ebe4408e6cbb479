"""From a source to a bundle: graph, golden samples, parity gate, preview; written only if the gate passed."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ganexport.gate import BATCHES, LATENTS, Finding, verdict_against_reference
from ganexport.golden import SEED, Evaluate, GoldenSamples, golden_from_reference
from ganexport.graph import OPSET, evaluate_from_module, inference_copy, onnx_from_generator
from ganexport.source import Source
from ganruntime.bundle import GoldenRecord, Variant, bundle_written
from ganruntime.errors import BackendError, ExportError, MissingDependencyError, ParityError
from ganruntime.images import sheet_from_images, uint8_from_output
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.spec import GeneratorSpec, Scalar

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
        InputError: `path` is something other than a bundle; before anything is exported.
        ExportError: there is no graph of this network.
        ParityError: there is one, and it does not compute what the network computes. Nothing is written.
        OutputError: the bundle could not be written.
    """
    import torch

    spec = source.spec
    reference = f"PyTorch {torch.__version__} eager fp32 on the CPU"
    # Opened first: that nothing can be written here should not be found out after minutes.
    with bundle_written(path, spec) as draft:
        say("checking the network")
        network = inference_copy(source.module, spec)
        evaluate = evaluate_from_module(network, spec)
        say("exporting the graph")
        graph = onnx_from_generator(network, spec, opset=opset)
        say(f"proving the graph over {latents:,} latents in batches {', '.join(map(str, BATCHES))}")
        variant = Variant("fp32", "fp32", "onnx", GRAPH_FILE)
        finding = _proven(graph, spec, variant, evaluate, reference, latents, progress)
        say("writing the bundle")
        golden = golden_from_reference(spec, evaluate)
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


def _proven(
    graph: bytes,
    spec: GeneratorSpec,
    variant: Variant,
    evaluate: Evaluate,
    reference: str,
    latents: int,
    progress: Callable[[int], None] | None,
) -> Finding:
    try:
        with OnnxRuntimeSession(spec, variant, graph, device="cpu", buckets=BATCHES) as session:
            finding = verdict_against_reference(session, evaluate, reference, latents=latents, progress=progress)
    except MissingDependencyError:
        raise
    except BackendError as error:
        raise ExportError(
            f"{spec.name}: the exported graph does not run in every batch size, and is not written",
            got=error.got,
            expected=f"a graph for batches {', '.join(map(str, BATCHES))}",
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
