"""`engine_into_bundle`: build, read back, prove on the spot, and only then write: a bundle never holds an engine that
was not run on the machine that built it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ganexport.gate import Finding, verdict_against_golden
from ganexport.golden import GoldenSamples
from ganexport.tensorrt.engine_builder import BuiltEngine, engine_from_onnx
from ganexport.tensorrt.engine_record import variant_from_engine
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.progress import OnProgress
from ganexport.tensorrt.readback import ReadBack, readback_from_engine
from ganruntime.bundle import Bundle, Variant, bundle_changed, read_bundle
from ganruntime.errors import BundleIntegrityError, InputError, ParityError
from ganruntime.sessions.tensorrt import TensorRTSession
from ganruntime.sessions.tensorrt_library import is_stand_in

# (images run so far, images in all)
OnProof = Callable[[int, int], None]


@dataclass(frozen=True)
class NewEngine:
    """An engine that is in its bundle now, and what was found when it was read back and run."""

    variant: Variant
    built: BuiltEngine
    readback: ReadBack
    finding: Finding
    size_bytes: int


def source_variant(bundle: Bundle) -> Variant:
    """The fp32 graph, from which both `fp32` and `tf32` engines are built. Raises `InputError` where there is none."""
    for variant in bundle.manifest.variants:
        if variant.format == "onnx" and variant.precision == "fp32":
            return variant
    raise InputError(
        f"{bundle.path} has no fp32 graph to build an engine from",
        got=", ".join(v.name for v in bundle.manifest.variants),
        remedy="ganexport to-onnx CHECKPOINT -o NAME.gan makes one",
    )


def engine_into_bundle(
    path: Path | str,
    options: BuildOptions,
    *,
    on_progress: OnProgress | None = None,
    on_proof: OnProof | None = None,
) -> NewEngine:
    """Builds an engine for a GPU of this machine from the bundle's fp32 graph, proves it, and adds it.

    The proof: every golden sample through the engine, once at each bucket and once at a batch that only the dynamic
    profile takes, held against the source network's outputs within `ganexport.parity`'s bound for the precision on
    CUDA. An engine of a test double is added without a verdict, so it stays `unverified`.

    Raises:
        BundleError, SpecError, InputError: the bundle or the options cannot be used; before anything is built.
        MissingDependencyError, DeviceError, EngineError: see `engine_from_onnx` and `readback_from_engine`.
        ParityError: the engine computes something else; the bundle is as it was.
        OutputError: the bundle cannot be written; it is as it was.
    """
    bundle = read_bundle(path)
    source = source_variant(bundle)
    options.check_fits(bundle.spec)
    graph = bundle.graph(source)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    built = engine_from_onnx(graph, bundle.spec, options, bundle=str(bundle.path), on_progress=on_progress)
    readback = readback_from_engine(built, bundle.spec)
    variant = variant_from_engine(built, bundle.spec.name)
    finding = _prove(bundle, variant, built, golden, on_proof)
    if finding.problems:
        raise ParityError(
            f"the engine {variant.name} does not compute what the generator computes, and was not added to the bundle",
            got="; ".join(finding.problems),
            expected=f"a largest error within {finding.verdict.bound:.3g} at batches "
            + ", ".join(str(b) for b in finding.verdict.batches),
            remedy="another TensorRT may do better; `ganexport verify` says whether the graph itself is sound",
        )
    if not is_stand_in(built.tensorrt_version):
        variant = variant.with_verdict(finding.verdict)
    _write(bundle, source, variant, built, readback)
    return NewEngine(variant, built, readback, finding, len(built.plan))


def proof_batches(buckets: tuple[int, ...]) -> tuple[int, ...]:
    """The buckets, and the smallest odd batch beside them that only the dynamic profile takes, where there is one."""
    dynamic = [b for b in (3, 5, 7, 2, *range(4, buckets[-1])) if b < buckets[-1] and b not in buckets]
    return tuple(sorted((*buckets, *dynamic[:1])))


def _prove(
    bundle: Bundle, variant: Variant, built: BuiltEngine, golden: GoldenSamples, on_proof: OnProof | None
) -> Finding:
    batches = proof_batches(built.options.buckets)
    images, run_images = golden.latents * len(batches), 0

    def progress(count: int) -> None:
        nonlocal run_images
        run_images += count
        if on_proof is not None:
            on_proof(run_images, images)

    with TensorRTSession(bundle, variant, f"cuda:{built.gpu.index}", batches, plan=built.plan) as session:
        reference = bundle.manifest.golden.reference
        return verdict_against_golden(session, golden, reference, batches, progress)


def _write(bundle: Bundle, source: Variant, variant: Variant, built: BuiltEngine, readback: ReadBack) -> None:
    with bundle_changed(bundle.path) as draft:
        # A build takes minutes, in which the bundle may have been exported anew.
        if draft.files.get(source.file) != bundle.manifest.files[source.file]:
            raise BundleIntegrityError(
                f"{bundle.path} was exported anew while the engine was built from the graph that was there before",
                remedy=built.options.command(bundle.path),
            )
        draft.add(variant.file, built.plan)
        draft.put_variant(variant)
        engines = dict(draft.reports.get("engines", {}))
        engines[variant.name] = {
            "command": built.options.command(bundle.path.name),
            "device_memory_bytes": readback.device_memory_bytes,
            "layers": readback.counts(),
            "profiles": [str(p) for p in built.profiles],
            "warnings": list(built.warnings[:20]),
        }
        draft.reports["engines"] = engines
