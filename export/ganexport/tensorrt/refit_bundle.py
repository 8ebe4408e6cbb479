"""`refit_into_bundle`: the engines of one export, with the weights of the next.

ganexport to-trt faces.gan --refittable          minutes, once
ganexport to-onnx runs/faces-2 -o faces-2.gan    the same architecture, trained further
ganexport to-trt faces-2.gan --refit --engines-from faces.gan    seconds
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ganexport.tensorrt.engine_proof import OnProof
from ganexport.tensorrt.graph_key import graph_key_from_onnx
from ganexport.tensorrt.into_bundle import NewEngine, add_proven_engine
from ganexport.tensorrt.isolated import run_isolated
from ganexport.tensorrt.job import Job, RunJob
from ganexport.tensorrt.options import BuildOptions, graph_precision
from ganexport.tensorrt.progress import OnProgress
from ganexport.tensorrt.sources import source_variant
from ganruntime.bundle import Bundle, EngineRecord, Variant, read_bundle
from ganruntime.errors import EngineError, InputError
from ganruntime.sessions.cuda import Gpu, gpu_from_index
from ganruntime.sessions.tensorrt_environment import check_environment
from ganruntime.sessions.tensorrt_library import require_tensorrt


@dataclass(frozen=True)
class Refitted:
    """The engines that have the new weights now, and those that were left: {variant: why}."""

    engines: tuple[NewEngine, ...]
    left: dict[str, str]


def refit_into_bundle(
    path: Path | str,
    *,
    engines_from: Path | str | None = None,
    device: int = 0,
    on_progress: OnProgress | None = None,
    on_proof: OnProof | None = None,
    run: RunJob | None = None,
) -> Refitted:
    """Gives engines the weights of the graphs of the bundle at `path`, proves each one there, and adds it.

    Args:
        engines_from: the bundle that has the engines; by default the same.
        device: index of the GPU, on which they must run.

    Raises:
        BundleError, SpecError: a bundle cannot be used.
        InputError: no engine can be refitted here; it says of each one why.
        MissingDependencyError, DeviceError, EngineError, ParityError, OutputError: see `engine_into_bundle`.
    """
    bundle = read_bundle(path)
    source = bundle if engines_from is None else read_bundle(engines_from)
    engines = [(v, v.engine) for v in source.manifest.variants if v.engine is not None]
    if not engines:
        raise InputError(
            f"{source.path} has no engine to refit",
            got=", ".join(v.name for v in source.manifest.variants),
            remedy=f"ganexport to-trt {source.path} --refittable builds one; --engines-from names another bundle",
        )
    version, gpu = require_tensorrt(), gpu_from_index(device)
    left: dict[str, str] = {}
    fitting: list[tuple[Variant, EngineRecord, Variant]] = []
    keys: dict[str, str] = {}
    for variant, record in engines:
        try:
            graph = _graph_for(bundle, variant, record, version, gpu, keys)
        except (EngineError, InputError) as error:
            left[variant.name] = error.problem if error.got is None else f"{error.problem} ({error.got})"
            continue
        if record.graph_sha256 == bundle.manifest.files[graph.file].sha256 and source is bundle:
            left[variant.name] = "has these weights already"
        else:
            fitting.append((variant, record, graph))
    if not fitting and set(left.values()) != {"has these weights already"}:
        raise InputError(
            f"no engine of {source.path} can be given the weights of {bundle.path}",
            got="\n            ".join(f"{name}: {why}" for name, why in left.items()),
            remedy=f"ganexport to-trt {bundle.path} --refittable",
        )
    made = []
    for variant, record, graph in fitting:
        plan = source.read(variant.file)
        options = options_from_record(record, variant, device)
        job = Job(bundle.graph(graph), bundle.spec, options, str(bundle.path), plan)
        result = (run or run_isolated)(job, on_progress)
        made.append(add_proven_engine(bundle, graph, job, result, on_proof, refit_of=record))
    return Refitted(tuple(made), left)


def options_from_record(record: EngineRecord, variant: Variant, device: int) -> BuildOptions:
    """What an engine was asked to be, as its record tells."""
    return BuildOptions(
        precision=variant.precision,
        buckets=record.batches,
        device=device,
        hardware=record.hardware_compatibility,
        version_compatible=record.version_compatible,
        refittable=record.refittable,
        stripped=record.stripped,
        sizes=record.sizes,
    )


def _graph_for(
    bundle: Bundle, variant: Variant, record: EngineRecord, version: str, gpu: Gpu, keys: dict[str, str]
) -> Variant:
    """The graph whose weights an engine can take. Raises `EngineError` or `InputError` where there is none."""
    if not record.refittable:
        raise EngineError("was not built to be refitted")
    if record.tensorrt != version:
        # A later release runs such an engine, and what it would write back is not what was built.
        raise EngineError("was built by another TensorRT", got=record.tensorrt)
    check_environment(record, variant, version, gpu, "")
    graph = source_variant(bundle, graph_precision(variant.precision))
    if graph.file not in keys:
        keys[graph.file] = graph_key_from_onnx(bundle.graph(graph), graph.file)
    if keys[graph.file] != record.graph_key:
        raise EngineError("was built from another architecture")
    return graph
