"""`finding_from_engine`: an engine run on the spot, through every one of its profiles, before it is added to a bundle.

The golden samples cover every bucket at the default size, a batch that only the dynamic profile takes, and the other
sizes of the gate that the engine takes. Each further size that it was tuned for has kernels of its own, and no golden
samples: there it is held against the bundle's fp32 graph, which ONNX Runtime runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ganexport.gate import (
    PROOF_SEED,
    Finding,
    golden_samples_for,
    over_sizes,
    verdict_against_golden,
    verdict_against_reference,
)
from ganexport.golden import Arrays, GoldenSamples
from ganexport.proof_sizes import Proof, fewer, small_batches
from ganexport.tensorrt.engine_builder import BuiltEngine
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.sources import source_variant
from ganruntime.bundle import Bundle, Variant
from ganruntime.choice import installed
from ganruntime.errors import MissingDependencyError
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sessions.tensorrt import TensorRTSession
from ganruntime.sizes import Size, default_size, size_of, size_option, spec_at

# (images run so far, images in all)
OnProof = Callable[[int, int], None]


def proof_batches(buckets: tuple[int, ...]) -> tuple[int, ...]:
    """The buckets, and the smallest odd batch beside them that only the dynamic profile takes, where there is one."""
    dynamic = [b for b in (3, 5, 7, 2, *range(4, buckets[-1])) if b < buckets[-1] and b not in buckets]
    return tuple(sorted((*buckets, *dynamic[:1])))


def sizes_without_samples(bundle: Bundle, options: BuildOptions) -> tuple[Size, ...]:
    """The sizes to tune for of which the golden samples do not run every bucket: all but the default one."""
    return tuple(size for size in options.sizes if size != default_size(bundle.spec))


def require_reference(bundle: Bundle, options: BuildOptions) -> None:
    """Raises `MissingDependencyError` where a size needs ONNX Runtime for its proof and it is not installed: now, and
    not after minutes of building."""
    sizes = sizes_without_samples(bundle, options)
    default = default_size(bundle.spec)
    if sizes and default is not None and not installed("onnxruntime"):
        raise MissingDependencyError(
            f"ONNX Runtime is not installed, and engines for {size_option(sizes)} are proven against the graph that "
            "it runs: the golden samples have other sizes",
            remedy=f'pip install "ganexport[cpu]", or build for their size: --size {size_option((default,))}',
        )


def finding_from_engine(
    bundle: Bundle,
    variant: Variant,
    built: BuiltEngine,
    golden: GoldenSamples,
    source: Variant,
    on_proof: OnProof | None,
) -> Finding:
    """Runs the plan, which is not in the bundle yet, and says how far it is from the source network.

    Args:
        variant: what is to stand in the manifest.
        source: the graph that it was built from.

    Raises:
        EngineError, DeviceError: it does not load or does not run.
    """
    buckets = built.options.buckets
    batches = proof_batches(buckets)
    sizes = sizes_without_samples(bundle, built.options)
    # What the graph was held to when it was made holds for its engines: its verdicts carry the floors.
    held = replace(variant, verdicts=source.verdicts)
    with TensorRTSession(bundle, held, f"cuda:{built.gpu.index}", batches, plan=built.plan) as session:
        proofs = [Proof(size, fewer(golden.latents), buckets) for size in sizes]
        images, run_images = sum(p.images for p in [*_golden_proofs(session, golden, batches), *proofs]), 0

        def progress(count: int) -> None:
            nonlocal run_images
            run_images += count
            if on_proof is not None:
                on_proof(run_images, images)

        findings = [verdict_against_golden(session, golden, bundle.manifest.golden.reference, batches, progress)]
        if proofs:
            with _graph_session(bundle) as graph:
                reference = f"golden samples; at {size_option(sizes)} the fp32 graph by ONNX Runtime"
                findings.append(
                    verdict_against_reference(
                        session, _evaluate(graph), reference, seed=PROOF_SEED, progress=progress, proofs=proofs
                    )
                )
    finding = over_sizes(findings)
    if proofs:
        finding = replace(finding, verdict=replace(finding.verdict, reference=findings[-1].verdict.reference))
    return finding


def _golden_proofs(session: Session, golden: GoldenSamples, batches: tuple[int, ...]) -> list[Proof]:
    taken = golden_samples_for(session, golden)
    few = small_batches(batches)
    return [Proof(s.size, s.latents, few if position else batches) for position, s in enumerate(taken)]


def _graph_session(bundle: Bundle) -> Session:
    from ganruntime.sessions.onnxruntime import OnnxRuntimeSession

    variant = source_variant(bundle, "fp32")
    where = str(bundle.path / variant.file)
    # One image at a time: large ones take much memory on the way.
    return OnnxRuntimeSession(bundle.spec, variant, bundle.graph(variant), buckets=(1,), where=where)


def _evaluate(graph: Session) -> Callable[[Arrays], Arrays]:
    def evaluate(inputs: Arrays) -> Arrays:
        count = len(next(iter(inputs.values())))
        at = spec_at(graph.spec, size_of(graph.spec, inputs))
        results: Arrays = empty_outputs(at, count)
        for row in range(count):
            out: Arrays = {name: array[row : row + 1] for name, array in results.items()}
            graph.run({name: np.ascontiguousarray(array[row : row + 1]) for name, array in inputs.items()}, out)
        return results

    return evaluate
