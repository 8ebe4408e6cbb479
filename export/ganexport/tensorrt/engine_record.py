"""What the manifest says of an engine, and the names by which people find it."""

from __future__ import annotations

from ganexport.tensorrt.engine_builder import BuiltEngine
from ganruntime.bundle import EngineRecord, Variant
from ganruntime.sessions.tensorrt_library import is_stand_in, version_numbers


def variant_from_engine(built: BuiltEngine, generator: str) -> Variant:
    """The manifest's entry, without a verdict yet.

    The file is `engines/dcgan-digits.fp32.sm90.trt11.4.plan`, the variant `fp32.sm90.trt11.4`: one per precision, GPU
    architecture and TensorRT release, so that a bundle can hold the engines of several machines.
    """
    name = f"{built.options.precision}.{built.gpu.architecture}.trt{release_of(built.tensorrt_version)}"
    # A file name begins with a letter or digit, a generator's name may begin with an underscore.
    stem = generator.lstrip("_-.") or "generator"
    return Variant(
        name=name,
        precision=built.options.precision,
        format="tensorrt",
        file=f"engines/{stem}.{name}.plan",
        engine=record_from_engine(built),
    )


def record_from_engine(built: BuiltEngine) -> EngineRecord:
    """What it was built with: a plan runs on that TensorRT and that compute capability, and nowhere else."""
    return EngineRecord(
        tensorrt=built.tensorrt_version,
        compute_capability=built.gpu.compute_capability,
        gpu=built.gpu.name,
        driver=built.gpu.driver_version,
        cuda=built.gpu.runtime_cuda,
        batches=built.options.buckets,
        largest_batch=built.options.buckets[-1],
        build_seconds=round(built.seconds, 3),
    )


def release_of(version: str) -> str:
    """`11.4` of `11.4.0.106`; a test double keeps its mark, `11.4+double`."""
    release = ".".join(str(n) for n in version_numbers(version)[:2])
    return release + "+" + version.partition("+")[2] if is_stand_in(version) else release
