"""`engine_from_onnx`: a typed graph into a TensorRT plan, one code path for TensorRT 10.12 and later and 11.

The network is strongly typed on both (on 11 it is always), so its precision is what the graph says; TF32 is the one
freedom left, and a flag. Which profiles it has, `ganexport.tensorrt.profiles` says.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ganexport.tensorrt.build_failure import error_from_build
from ganexport.tensorrt.interruptible import run_interruptibly
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.parsed_network import network_from_onnx, require_spec
from ganexport.tensorrt.profiles import Profile
from ganexport.tensorrt.progress import OnProgress, PhaseTree, monitor_from_phases
from ganexport.tensorrt.timing_cache import TimingCacheFile, TimingCacheKey, check_timing_cache_path
from ganruntime.errors import DeviceError, EngineError, InputError
from ganruntime.sessions.cuda import Gpu, gpu_from_index, use_gpu
from ganruntime.sessions.tensorrt_library import (
    captured_messages,
    require_tensorrt,
    shared_logger,
)
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import tensorrt as trt

# Our names -> members of trt.HardwareCompatibilityLevel.
HARDWARE_LEVELS = {"none": "NONE", "ampere+": "AMPERE_PLUS", "same-cc": "SAME_COMPUTE_CAPABILITY"}


@dataclass(frozen=True)
class BuiltEngine:
    """A plan as TensorRT serialised it, and what it was built of and on."""

    plan: bytes
    options: BuildOptions
    tensorrt_version: str
    gpu: Gpu
    profiles: tuple[Profile, ...]
    seconds: float
    timing_cache_hit_bytes: int
    warnings: tuple[str, ...]


def engine_from_onnx(
    model: bytes,
    spec: GeneratorSpec,
    options: BuildOptions,
    *,
    bundle: str = "NAME.gan",
    on_progress: OnProgress | None = None,
) -> BuiltEngine:
    """Builds a plan for the GPU `options.device` of this machine.

    Args:
        model: the ONNX file's bytes, weights inside; batch dynamic and first in every input and output, height and
            width dynamic where the spec says that they vary.
        spec: what the graph takes and gives; it is held against what TensorRT parsed.
        bundle: the bundle's name, for the commands in errors.
        on_progress: called with (fraction done, phase), from TensorRT's threads.

    Raises:
        InputError: the buckets or sizes do not fit the spec; the timing cache is damaged or of another environment.
        MissingDependencyError: TensorRT or cuda-python is not installed.
        DeviceError: no such GPU, or not one for this TensorRT; `tf32` or `ampere+` on a GPU before Ampere.
        EngineError: TensorRT cannot read the graph or build it; the message holds what it said, and the remedy.
        KeyboardInterrupt: Ctrl-C: TensorRT is asked to stop at its next step, and what it timed is kept in the cache.
    """
    options = options.fitted(spec)
    if options.timing_cache is not None:
        check_timing_cache_path(options.timing_cache)
    version = require_tensorrt()
    gpu = gpu_from_index(options.device)
    _check_gpu(options, gpu)
    cache = None
    if options.timing_cache is not None:
        cache = TimingCacheFile.at(options.timing_cache, TimingCacheKey.of(version, gpu))
    cached = b"" if cache is None else cache.read()
    phases = PhaseTree(on_progress)
    started_s = time.monotonic()

    def build() -> tuple[bytes, list[str]]:
        use_gpu(options.device)
        with captured_messages() as messages:
            plan = _plan_from_onnx(model, spec, options, version, bundle, phases, cache, cached)
        return plan, messages.warnings

    plan, warnings = run_interruptibly(build, phases.cancel)
    return BuiltEngine(
        plan=plan,
        options=options,
        tensorrt_version=version,
        gpu=gpu,
        profiles=options.profiles(spec),
        seconds=time.monotonic() - started_s,
        timing_cache_hit_bytes=len(cached),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _check_gpu(options: BuildOptions, gpu: Gpu) -> None:
    has = tuple(int(n) for n in gpu.compute_capability.split("."))
    for wanted, problem, least, name, remedy in (
        (options.tf32, "--precision tf32: {} has no TF32", (8, 0), "Ampere", "--precision fp32"),
        (
            options.hardware == "ampere+",
            "--hardware-compatible ampere+: {} cannot build for it",
            (8, 0),
            "Ampere",
            "leave --hardware-compatible out",
        ),
        (
            options.hardware == "same-cc",
            "--hardware-compatible same-cc: {} cannot build for it",
            (7, 5),
            "Turing",
            "leave --hardware-compatible out",
        ),
    ):
        if wanted and has < least:
            raise DeviceError(
                problem.format(gpu.name),
                got=f"compute capability {gpu.compute_capability}",
                expected=f"{least[0]}.{least[1]} ({name}) or later",
                remedy=remedy,
            )


def _plan_from_onnx(
    model: bytes,
    spec: GeneratorSpec,
    options: BuildOptions,
    version: str,
    bundle: str,
    phases: PhaseTree,
    cache: TimingCacheFile | None,
    cached: bytes,
) -> bytes:
    import tensorrt as trt

    with captured_messages() as messages:
        try:
            builder = trt.Builder(shared_logger())
        except TypeError as error:  # pybind11: "factory function returned nullptr"
            raise error_from_build([*messages.errors, str(error)], messages.warnings, options, bundle) from error
        network = network_from_onnx(builder, model, version, bundle)
        require_spec(network, spec)
        config = builder.create_builder_config()
        _configure(config, builder, spec, options)
        # Both are kept in locals until the build has ended: TensorRT holds bare pointers to them.
        monitor = monitor_from_phases(phases)
        config.progress_monitor = monitor
        # Without a file too: a cache of our own makes layers that are alike, and profiles, share their timings.
        timings = config.create_timing_cache(cached)
        if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
            raise InputError(
                f"TensorRT {version} refuses the timing cache {cache.path if cache else ''}".rstrip(),
                got="; ".join(messages.errors) or None,
                remedy=f"delete it: rm {cache.path}" if cache else None,
            )
        plan = builder.build_serialized_network(network, config)
        cancelled = phases.cancelled.is_set()
        if cache is not None and (plan is not None or cancelled):
            _write_timings(config, timings, cache, cached)
        if cancelled:
            raise KeyboardInterrupt
        if plan is None:
            raise error_from_build(messages.errors, messages.warnings, options, bundle)
        return bytes(memoryview(plan))


def _write_timings(
    config: trt.IBuilderConfig, timings: trt.ITimingCache, cache: TimingCacheFile, cached: bytes
) -> None:
    """Writes the cache file, with what another build has put there since it was read."""
    with cache.one_writer():
        now = cache.read()
        if now not in (b"", cached):
            others = config.create_timing_cache(now)
            # What TensorRT does not take of another build's is lost, and costs that build's time once more.
            if others is not None:
                timings.combine(others, ignore_mismatch=False)
        cache.write(bytes(memoryview(timings.serialize())))


def _configure(config: trt.IBuilderConfig, builder: trt.Builder, spec: GeneratorSpec, options: BuildOptions) -> None:
    import tensorrt as trt

    # TF32 is on by default, and then "fp32" is not (NVIDIA/TensorRT#4492): set each as asked, and look.
    for flag, wanted in (
        (trt.BuilderFlag.TF32, options.tf32),
        (trt.BuilderFlag.VERSION_COMPATIBLE, options.version_compatible),
        # REFIT and not REFIT_IDENTICAL: a retrained generator has other weights.
        (trt.BuilderFlag.REFIT, options.refittable),
        (trt.BuilderFlag.STRIP_PLAN, options.stripped),
    ):
        if wanted:
            config.set_flag(flag)
        else:
            config.clear_flag(flag)
        if config.get_flag(flag) != wanted:
            raise EngineError(f"TensorRT does not take the flag {flag.name} as asked", expected=wanted)
    levels = trt.HardwareCompatibilityLevel
    config.hardware_compatibility_level = {
        "none": levels.NONE,
        "ampere+": levels.AMPERE_PLUS,
        "same-cc": levels.SAME_COMPUTE_CAPABILITY,
    }[options.hardware]
    # The engine inspector tells what was built only where the builder was told to keep it.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    for index, profile in enumerate(options.profiles(spec)):
        shapes = builder.create_optimization_profile()
        for name, (minimum, optimum, maximum) in profile.shapes(spec).items():  # each [N, …]
            shapes.set_shape(name, minimum, optimum, maximum)
        if config.add_optimization_profile(shapes) != index:
            raise EngineError("TensorRT does not take a profile", got=str(profile))
