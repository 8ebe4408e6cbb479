"""What the manifest says of an engine, and the names by which people find it."""

from __future__ import annotations

from ganexport.tensorrt.engine_builder import BuiltEngine
from ganexport.tensorrt.profiles import Profile
from ganruntime.bundle import EngineRecord, Variant
from ganruntime.sessions.tensorrt_library import is_stand_in, version_numbers
from ganruntime.sizes import Size


def variant_from_engine(built: BuiltEngine, generator: str, record: EngineRecord) -> Variant:
    """The manifest's entry, without a verdict yet.

    The file is `engines/dcgan-digits.fp32.sm90.trt11.4.plan`, the variant `fp32.sm90.trt11.4`: one per precision, GPU
    architecture and TensorRT release, so that a bundle can hold the engines of several machines. What it was built to
    do beyond that is in the name too: `fp32.ampere+.trt10.16-or-later.stripped`.
    """
    options = built.options
    wide = {"none": built.gpu.architecture, "same-cc": f"{built.gpu.architecture}-any", "ampere+": "ampere+"}
    release = release_of(built.tensorrt_version) + ("-or-later" if options.version_compatible else "")
    kind = ".stripped" if options.stripped else ".refit" if options.refittable else ""
    name = f"{options.precision}.{wide[options.hardware]}.trt{release}{kind}"
    # A file name begins with a letter or digit, a generator's name may begin with an underscore.
    stem = generator.lstrip("_-.") or "generator"
    return Variant(
        name=name,
        precision=options.precision,
        format="tensorrt",
        file=f"engines/{stem}.{name}.plan",
        engine=record,
    )


def record_from_engine(built: BuiltEngine, graph_key: str, graph_sha256: str) -> EngineRecord:
    """What it was built with: a plan runs on that TensorRT and that compute capability, or wider where asked for.

    Args:
        graph_key: of the graph without its weights.
        graph_sha256: of the ONNX file.
    """
    return EngineRecord(
        tensorrt=built.tensorrt_version,
        compute_capability=built.gpu.compute_capability,
        gpu=built.gpu.name,
        driver=built.gpu.driver_version,
        cuda=built.gpu.runtime_cuda,
        batches=built.options.buckets,
        largest_batch=built.options.buckets[-1],
        build_seconds=round(built.seconds, 3),
        hardware_compatibility=built.options.hardware,
        version_compatible=built.options.version_compatible,
        refittable=built.options.refittable,
        stripped=built.options.stripped,
        graph_key=graph_key,
        graph_sha256=graph_sha256,
        sizes=built.options.sizes,
        size_range=_size_range(built.profiles),
    )


def _size_range(profiles: tuple[Profile, ...]) -> tuple[Size, ...]:
    """The smallest and the largest size that the profiles take; () where nothing varies. The last of them is the
    widest."""
    sizes = profiles[-1].sizes
    return () if sizes is None else (sizes[0], sizes[2])


def release_of(version: str) -> str:
    """`11.4` of `11.4.0.106`; a test double keeps its mark, `11.4+double`."""
    release = ".".join(str(n) for n in version_numbers(version)[:2])
    return release + "+" + version.partition("+")[2] if is_stand_in(version) else release
