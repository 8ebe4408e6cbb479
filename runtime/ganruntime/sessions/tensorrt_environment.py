"""Where an engine runs and whose weights it has: its record, held against what is here before its plan is read.

A plan is executable code, and runs on the TensorRT version and the compute capability that built it; where it was built
to, on later versions and on other GPUs.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ganruntime.bundle import Bundle, EngineRecord, Variant
from ganruntime.errors import EngineError
from ganruntime.sessions.cuda import Gpu, gpu_from_index
from ganruntime.sessions.devices import parse_device
from ganruntime.sessions.tensorrt_library import is_stand_in, require_tensorrt, version_numbers
from ganruntime.sizes import Size, size_option


def rebuild_command(
    variant: Variant,
    record: EngineRecord,
    bundle: Bundle,
    batches: Sequence[int] | None = None,
    sizes: Sequence[Size] | None = None,
) -> str:
    """The command that builds an engine like this one for the machine that it is run on, or one for other batches or
    sizes."""
    words = ["ganexport", "to-trt", str(bundle.path), "--precision", variant.precision]
    words += ["--batch", ",".join(str(b) for b in batches or record.batches)]
    if sizes or record.sizes:
        words += ["--size", size_option(sizes or record.sizes)]
    if record.hardware_compatibility != "none":
        words += ["--hardware-compatible", record.hardware_compatibility]
    words += ["--version-compatible"] if record.version_compatible else []
    words += ["--strip"] if record.stripped else ["--refittable"] if record.refittable else []
    return shlex.join(words)


def first_that_fits(variants: Sequence[Variant], device: str = "cuda") -> Variant:
    """The first engine that was built by the TensorRT and for the compute capability that are here; else the first
    that was built to run here too.

    A bundle may hold the engines of several machines. Where none fits it is the first of all: loading that one says
    what it was built for, and the command that builds one for here.

    Raises:
        MissingDependencyError, DeviceError: as for the session.
    """
    version, gpu = require_tensorrt(), gpu_from_index(parse_device(device)[1])
    fitting = [v for v in variants if v.engine is not None and _misfit(v.engine, version, gpu) is None]
    for variant in fitting:
        record = variant.engine
        if record and (record.tensorrt, record.compute_capability) == (version, gpu.compute_capability):
            return variant
    return (fitting or list(variants))[0]


def check_environment(record: EngineRecord, variant: Variant, version: str, gpu: Gpu, rebuild: str) -> None:
    """Raises `EngineError` where the engine does not run on this TensorRT, GPU or driver.

    TensorRT says so too, and only after it has parsed the plan; across versions it may say less (NVIDIA/TensorRT#2176).
    """
    misfit = _misfit(record, version, gpu)
    if misfit is not None:
        what, got, expected = misfit
        raise EngineError(f"the engine {variant.name} was built {what}", got=got, expected=expected, remedy=rebuild)


def _misfit(record: EngineRecord, version: str, gpu: Gpu) -> tuple[str, str, str] | None:
    """(what it was built by or for, what that was, what is here), None where the engine runs here."""
    if record.tensorrt != version and not _runs_on_version(record, version):
        later = " and later releases of TensorRT 10 and 11" if record.version_compatible else ""
        return (
            "by another TensorRT",
            f"TensorRT {record.tensorrt}{later}",
            f"TensorRT {version}, which is installed here",
        )
    if record.compute_capability != gpu.compute_capability and not _runs_on_gpu(record, gpu):
        wide = " and other GPUs of 8.0 or later" if record.hardware_compatibility == "ampere+" else ""
        return (
            "for another GPU",
            f"compute capability {record.compute_capability} ({record.gpu}){wide}",
            f"compute capability {gpu.compute_capability} ({gpu.name}), which is here",
        )
    # Within one major version of CUDA a driver runs what was made for a later minor one; across them it does not.
    if _major(record.cuda) > _major(gpu.driver_cuda):
        return (
            "for a newer driver",
            f"CUDA {record.cuda} (driver {record.driver})",
            f"CUDA {gpu.driver_cuda} (driver {gpu.driver_version}), which is here: update it, or build again",
        )
    return None


def _runs_on_version(record: EngineRecord, version: str) -> bool:
    """Version-compatible engines run on later releases of 10 and 11; none runs on an older one."""
    built, here = version_numbers(record.tensorrt), version_numbers(version)
    same_maker = is_stand_in(record.tensorrt) == is_stand_in(version)
    return record.version_compatible and same_maker and built[0] in (10, 11) and here[0] in (10, 11) and built <= here


def _runs_on_gpu(record: EngineRecord, gpu: Gpu) -> bool:
    return record.hardware_compatibility == "ampere+" and _major(gpu.compute_capability) >= 8


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() else 0


def graph_of_engine(bundle: Bundle, variant: Variant, record: EngineRecord) -> Variant | None:
    """The graph whose weights an engine has; None where its record, of an older release, does not say.

    Raises:
        EngineError: the bundle has another export of the graph than the one that the engine was made from.
    """
    if not record.graph_sha256:
        return None
    for graph in bundle.manifest.variants:
        if graph.format == "onnx" and bundle.manifest.files[graph.file].sha256 == record.graph_sha256:
            return graph
    refit = shlex.join(["ganexport", "to-trt", str(bundle.path), "--refit"])
    raise EngineError(
        f"the engine {variant.name} has the weights of another export of this generator",
        got=f"made from the graph with SHA-256 {record.graph_sha256[:16]}…",
        expected="one of this bundle's graphs",
        remedy=refit if record.refittable else rebuild_command(variant, record, bundle),
    )
