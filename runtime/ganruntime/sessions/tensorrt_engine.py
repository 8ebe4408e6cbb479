"""An engine that is loaded: plan checked and read, weights in place, tensors and profiles those of the spec.

Several sessions may share one: its weights stand on the GPU once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ganruntime.bundle import Bundle, EngineRecord, Variant
from ganruntime.errors import EngineError
from ganruntime.sessions.cuda import Gpu
from ganruntime.sessions.tensorrt_environment import rebuild_command
from ganruntime.sessions.tensorrt_library import DTYPES, captured_messages, dtype_from_tensorrt, runtime_for
from ganruntime.sessions.tensorrt_refit import refit_from_graph
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import tensorrt as trt

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class EngineProfile:
    """One profile of an engine: the least and the largest shape [N, …] of each input."""

    index: int
    least: Shapes
    most: Shapes

    def takes(self, shapes: Shapes) -> bool:
        return all(
            len(shape) == len(self.least[name])
            and all(a <= s <= b for a, s, b in zip(self.least[name], shape, self.most[name], strict=True))
            for name, shape in shapes.items()
        )

    @property
    def slack(self) -> int:
        """How much it leaves open; 0 for one that is tuned for what it takes."""
        return sum(sum(self.most[name]) - sum(self.least[name]) for name in self.least)

    @property
    def batches(self) -> str:
        """`8`, or `1 to 64`."""
        low, high = next(iter(self.least.values()))[0], next(iter(self.most.values()))[0]
        return f"{low} to {high}" if low < high else f"{low}"


@dataclass(frozen=True)
class LoadedEngine:
    """An engine in the GPU's memory, and what is known of it."""

    bundle: Bundle
    variant: Variant
    record: EngineRecord
    version: str
    gpu: Gpu
    runtime: trt.Runtime
    engine: trt.ICudaEngine
    profiles: tuple[EngineProfile, ...]

    def profile_for(self, shapes: Shapes) -> EngineProfile | None:
        """The narrowest profile that takes these shapes: a tuned one before the dynamic one; None where none does."""
        fitting = [p for p in self.profiles if p.takes(shapes)]
        return min(fitting, key=lambda p: (p.slack, p.index)) if fitting else None


def loaded_engine(
    bundle: Bundle, variant: Variant, record: EngineRecord, version: str, gpu: Gpu, spec: GeneratorSpec,
    plan: bytes, weights: bytes | None,
) -> LoadedEngine:  # fmt: skip
    """Reads a plan whose bytes and record were checked before; the GPU is the current one.

    Args:
        weights: the graph whose weights a stripped engine takes; None for one that has its own.

    Raises:
        EngineError: TensorRT does not load it, it does not take the weights, or it has other tensors than the spec.
    """
    rebuild = rebuild_command(variant, record, bundle)
    with captured_messages() as messages:
        runtime = runtime_for(record.version_compatible)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            built_by = f"it was built under driver {record.driver}, here is {gpu.driver_version}"
            raise EngineError(
                f"TensorRT does not load the engine {variant.name}",
                got="; ".join(messages.errors) or built_by,
                remedy=rebuild,
            )
        if weights is not None:
            refit_from_graph(engine, weights, variant.name, rebuild)
        check_tensors(engine, spec, variant.name)
    profiles = tuple(_profile(engine, spec, index) for index in range(engine.num_optimization_profiles))
    return LoadedEngine(bundle, variant, record, version, gpu, runtime, engine, profiles)


def _profile(engine: trt.ICudaEngine, spec: GeneratorSpec, index: int) -> EngineProfile:
    least: dict[str, tuple[int, ...]] = {}
    most: dict[str, tuple[int, ...]] = {}
    for tensor in spec.inputs:
        minimum, _, maximum = engine.get_tensor_profile_shape(tensor.name, index)  # each [N, …]
        least[tensor.name], most[tensor.name] = tuple(minimum), tuple(maximum)
    return EngineProfile(index, least, most)


def check_tensors(engine: trt.ICudaEngine, spec: GeneratorSpec, name: str) -> None:
    """Raises `EngineError` where the engine's inputs and outputs are not those of the spec: names, dtypes, shapes."""
    import tensorrt as trt

    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    for mode, wanted in ((trt.TensorIOMode.INPUT, spec.inputs), (trt.TensorIOMode.OUTPUT, spec.outputs)):
        found = sorted(n for n in names if engine.get_tensor_mode(n) == mode)
        if found != sorted(w.name for w in wanted):
            raise EngineError(
                f"the engine {name} has other {mode.name.lower()}s than the spec",
                got=found,
                expected=[w.name for w in wanted],
            )
        for want in wanted:
            dtype = dtype_from_tensorrt(engine.get_tensor_dtype(want.name))
            if want.dtype not in DTYPES or dtype != want.dtype:
                raise EngineError(
                    f"the engine {name}: {want.name!r} has another dtype than the spec", got=dtype, expected=want.dtype
                )
            shape = tuple(engine.get_tensor_shape(want.name))  # [N, …], -1 where it is free
            if len(shape) != 1 + len(want.shape) or any(
                s != -1 if w is None else s not in (-1, w) for s, w in zip(shape[1:], want.shape, strict=True)
            ):
                raise EngineError(
                    f"the engine {name}: {want.name!r} has another shape than the spec",
                    got=list(shape),
                    expected=["batch", *("varies" if d is None else d for d in want.shape)],
                )
