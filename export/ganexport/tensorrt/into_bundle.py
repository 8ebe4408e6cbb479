"""`engine_into_bundle`: build, read back, prove on the spot, and only then write: a bundle never holds an engine that
was not run on the machine that built it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ganexport.gate import Finding
from ganexport.golden import GoldenSamples
from ganexport.parity import floors_of
from ganexport.tensorrt.engine_builder import BuiltEngine
from ganexport.tensorrt.engine_proof import OnProof, finding_from_engine, require_reference
from ganexport.tensorrt.engine_record import record_from_engine, variant_from_engine
from ganexport.tensorrt.graph_key import graph_key_from_onnx
from ganexport.tensorrt.isolated import run_isolated
from ganexport.tensorrt.job import Job, Made, RunJob
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.progress import OnProgress
from ganexport.tensorrt.readback import ReadBack, check_precisions
from ganexport.tensorrt.sources import source_variant
from ganexport.tensorrt.timing_cache import check_timing_cache_path
from ganruntime.bundle import Bundle, EngineRecord, Variant, bundle_changed, read_bundle
from ganruntime.errors import BundleIntegrityError, ParityError
from ganruntime.sessions.tensorrt_library import is_stand_in
from ganruntime.sizes import size_option

OnReadback = Callable[[ReadBack], None]


@dataclass(frozen=True)
class NewEngine:
    """An engine that is in its bundle now, and what was found when it was read back and run."""

    variant: Variant
    built: BuiltEngine
    readback: ReadBack
    finding: Finding
    size_bytes: int


def engine_into_bundle(
    path: Path | str,
    options: BuildOptions,
    *,
    on_progress: OnProgress | None = None,
    on_proof: OnProof | None = None,
    on_readback: OnReadback | None = None,
    run: RunJob | None = None,
) -> NewEngine:
    """Builds an engine for a GPU of this machine from the bundle's graph of the precision, proves it, and adds it.

    The proof (`ganexport.tensorrt.engine_proof`): golden samples through every profile of the engine, held against the
    source network's outputs within `ganexport.parity`'s bound for the precision on CUDA. An engine of a test double is
    added without a verdict, so it stays `unverified`.

    Args:
        on_readback: called with what each layer got, before that is judged.
        run: who builds: by default `run_isolated`, a process of its own, so that a crash in TensorRT is an error here;
            `ganexport.tensorrt.job.run_job` builds in this process.

    Raises:
        BundleError, SpecError, InputError: the bundle or the options cannot be used; before anything is built.
        MissingDependencyError, DeviceError, EngineError: see `run_isolated`, and `require_reference`.
        ParityError: the engine computes something else; the bundle is as it was.
        OutputError: the bundle cannot be written; it is as it was.
    """
    bundle = read_bundle(path)
    source = source_variant(bundle, options.graph_precision)
    options = options.fitted(bundle.spec)
    if options.timing_cache is not None:
        check_timing_cache_path(options.timing_cache)
    # What the proof needs must be whole before minutes of building, and not after.
    GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    require_reference(bundle, options)
    job = Job(bundle.graph(source), bundle.spec, options, str(bundle.path))
    made = (run or run_isolated)(job, on_progress)
    return add_proven_engine(bundle, source, job, made, on_proof, on_readback)


def add_proven_engine(
    bundle: Bundle,
    source: Variant,
    job: Job,
    made: Made,
    on_proof: OnProof | None = None,
    on_readback: OnReadback | None = None,
    refit_of: EngineRecord | None = None,
) -> NewEngine:
    """Judges what an engine's layers got, proves it, and adds it to its bundle.

    Args:
        source: the graph whose weights it has.
        job, made: what was asked, and what came of it.
        refit_of: the record of the engine that it was, where it has new weights only.

    Raises:
        EngineError: its layers got another precision than was asked.
        ParityError: it computes something else; the bundle is as it was.
        BundleIntegrityError, OutputError: the bundle was exported anew meanwhile, or cannot be written.
    """
    built, readback = made.built, made.readback
    if on_readback is not None:
        on_readback(readback)
    command = built.options.command(bundle.path)
    check_precisions(readback.layers, built.options.precision, command)
    golden = GoldenSamples.from_arrays(bundle.golden(), bundle.spec)
    sha256 = bundle.manifest.files[source.file].sha256
    if refit_of is None:
        record = record_from_engine(built, graph_key_from_onnx(job.model, source.file), sha256)
    else:
        record = replace(refit_of, graph_sha256=sha256)
    variant = variant_from_engine(built, bundle.spec.name, record)
    floors = floors_of(source)
    finding = finding_from_engine(bundle, variant, built, golden, source, on_proof)
    if finding.problems:
        remedy = (
            "another TensorRT may do better; `ganexport verify` says whether the graph itself is sound; "
            f"do it again with: {command}"
        )
        if built.options.refittable:
            # TensorRT 11.3.0 drops biases of products in refittable engines, says its release notes.
            remedy = "build without --refittable and --strip, which some releases compute wrongly (11.3.0); " + remedy
        raise ParityError(
            f"the engine {variant.name} does not compute what the generator computes, and was not added to the bundle",
            got="; ".join(finding.problems),
            expected=(
                f"a largest error within {finding.verdict.bound:.3g}"
                if floors is None
                else f"PSNR {floors.psnr_db:g} dB or more, SSIM {floors.ssim:g} or more"
            )
            + " at batches "
            + ", ".join(str(b) for b in finding.verdict.batches)
            + (f" and sizes {size_option(finding.verdict.sizes)}" if finding.verdict.sizes else ""),
            remedy=remedy,
        )
    if not is_stand_in(built.tensorrt_version):
        variant = variant.with_verdict(finding.verdict)
    _write(bundle, source, variant, built, readback)
    return NewEngine(variant, built, readback, finding, len(built.plan))


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
