"""TensorRT on one NVIDIA GPU, through cuda-python. No torch, and no falling back to anything else.

A plan is executable code. Its bytes come from the bundle, which has checked their hash, or straight from the builder;
and the environment is checked before TensorRT parses them: a plan runs on the TensorRT version and the compute
capability that built it, and where it was built to, on later versions and on other GPUs.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ganruntime.bundle import Bundle, EngineRecord, Variant
from ganruntime.errors import BackendError, DeviceError, EngineError, InputError
from ganruntime.sessions.base import Arrays, Session, fixed_shape
from ganruntime.sessions.cuda import DeviceBuffer, Gpu, Stream, gpu_from_index, use_gpu
from ganruntime.sessions.devices import parse_device
from ganruntime.sessions.tensorrt_library import (
    DTYPES,
    captured_messages,
    dtype_from_tensorrt,
    is_stand_in,
    require_tensorrt,
    runtime_for,
    version_numbers,
)
from ganruntime.sessions.tensorrt_refit import refit_from_graph
from ganruntime.spec import GeneratorSpec, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt


class TensorRTSession(Session):
    """One engine, one execution context, one stream of its own.

    A batch that has a profile of its own runs there, on kernels tuned for it; any other up to the largest runs on the
    dynamic profile.
    """

    backend: ClassVar[str] = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        device: str = "cuda",
        buckets: tuple[int, ...] | None = None,
        *,
        plan: bytes | None = None,
    ) -> None:
        """Loads the engine of `variant`.

        Args:
            device: `cuda` or `cuda:N`.
            buckets: batch sizes to run, ascending; by default those that the engine was tuned for.
            plan: a plan that was built here and is not in the bundle yet; by default the bundle's file, checked.

        Raises:
            MissingDependencyError: TensorRT or cuda-python is not installed.
            DeviceError: the device is not an NVIDIA GPU, or is not there.
            EngineError: the engine was built for another TensorRT, GPU or driver (the remedy is the command that
                rebuilds it), has the weights of another export, does not load, or takes and gives other tensors than
                the spec; a bucket is beyond its profiles.
            BundleIntegrityError: the engine's file is not what the manifest says.
        """
        record = variant.engine
        if record is None:
            raise EngineError(f"variant {variant.name!r} is not a TensorRT engine", got=variant.format)
        kind, index = parse_device(device)
        if kind != "cuda":
            raise DeviceError("TensorRT runs on NVIDIA GPUs only", got=device, expected="cuda or cuda:N")
        version = require_tensorrt()
        self.gpu = gpu_from_index(index)
        rebuild = rebuild_command(variant, record, bundle)
        check_environment(record, variant, version, self.gpu, rebuild)
        graph = graph_of_engine(bundle, variant, record)
        super().__init__(bundle.spec, variant, f"cuda:{index}", buckets or record.batches)
        self._version = version
        self._bundle = bundle
        self._runtime: trt.Runtime | None = None
        self._engine: trt.ICudaEngine | None = None
        self._context: trt.IExecutionContext | None = None
        self._stream: Stream | None = None
        self._buffers: dict[str, DeviceBuffer] = {}
        self._active_profile = -1
        use_gpu(index)
        try:
            # A stripped engine has no weights of its own: they stand once in the bundle, in the graph.
            weights = bundle.graph(graph) if record.stripped and graph is not None else None
            self._load(bundle.read(variant.file) if plan is None else plan, record, weights, rebuild)
            self._profile_of = self._match_buckets(record)
            self._stream = Stream()
            largest = self.buckets[-1]
            for tensor in (*self.spec.inputs, *self.spec.outputs):
                size_bytes = largest * tensor.size * np.dtype(tensor.dtype).itemsize
                self._buffers[tensor.name] = DeviceBuffer(size_bytes)
        except BaseException:
            self.close()
            raise

    def _load(self, plan: bytes, record: EngineRecord, weights: bytes | None, rebuild: str) -> None:
        with captured_messages() as messages:
            self._runtime = runtime_for(record.version_compatible)
            engine = self._runtime.deserialize_cuda_engine(plan)
            if engine is None:
                built_by = f"it was built under driver {record.driver}, here is {self.gpu.driver_version}"
                raise EngineError(
                    f"TensorRT does not load the engine {self.variant.name}",
                    got="; ".join(messages.errors) or built_by,
                    remedy=rebuild,
                )
            if weights is not None:
                refit_from_graph(engine, weights, self.variant.name, rebuild)
            self._engine = engine
            check_tensors(engine, self.spec, self.variant.name)
            context = engine.create_execution_context()
            if context is None:
                raise EngineError(
                    f"the GPU has no room to run the engine {self.variant.name}",
                    got="; ".join(messages.errors) or f"{engine.device_memory_size_v2 / 2**20:.0f} MiB needed",
                    remedy="free the GPU (`nvidia-smi` says who holds it), or build for a smaller largest batch: "
                    + rebuild_command(self.variant, record, self._bundle, (max(1, record.largest_batch // 2),)),
                )
            self._context = context

    def _match_buckets(self, record: EngineRecord) -> dict[int, int]:
        """{bucket: index of its profile}, the tuned one where there is one."""
        engine = self._engine
        if engine is None:
            raise BackendError("the session is closed")
        ranges = [
            _batch_range(engine, self.spec.inputs[0].name, index) for index in range(engine.num_optimization_profiles)
        ]
        profile_of = {}
        for bucket in self.buckets:
            # Narrowest first: a static profile before the dynamic one.
            fits = [(high - low, i) for i, (low, high) in enumerate(ranges) if low <= bucket <= high]
            if not fits:
                raise EngineError(
                    f"{bucket} is not a batch that the engine {self.variant.name} takes",
                    got=f"input {self.spec.inputs[0].name!r} of [{bucket}, ...]",
                    expected=" or ".join(f"{low} to {high}" if low < high else f"{low}" for low, high in ranges),
                    remedy="add the batch: "
                    + rebuild_command(self.variant, record, self._bundle, sorted({*record.batches, bucket})),
                )
            profile_of[bucket] = min(fits)[1]
        return profile_of

    def run(self, inputs: Arrays, out: Arrays) -> None:
        context, stream = self._context, self._stream
        if context is None or stream is None:
            raise BackendError("the session is closed")
        batch = len(inputs[self.spec.inputs[0].name])
        if batch not in self._profile_of:
            raise InputError("the batch is not a bucket", got=batch, expected=", ".join(map(str, self.buckets)))
        for tensor in self.spec.inputs:
            _check_array(inputs[tensor.name], tensor, batch)
        for tensor in self.spec.outputs:
            _check_array(out[tensor.name], tensor, batch)
        use_gpu(self.gpu.index)
        with captured_messages() as messages:
            profile = self._profile_of[batch]
            if profile != self._active_profile:
                if not context.set_optimization_profile_async(profile, stream.handle):
                    raise _failed(f"TensorRT does not switch to the profile of batch {batch}", messages.errors)
                # The switch may copy on the stream; shapes set before it is done belong to the old profile.
                stream.wait()
                self._active_profile = profile
            for tensor in self.spec.inputs:
                if not context.set_input_shape(tensor.name, (batch, *fixed_shape(tensor))):
                    raise _failed(f"TensorRT refuses a batch of {batch} for {tensor.name!r}", messages.errors)
                stream.copy_to_device(self._buffers[tensor.name], inputs[tensor.name])
            for name, buffer in self._buffers.items():
                if not context.set_tensor_address(name, buffer.address):
                    raise _failed(f"TensorRT refuses the memory of {name!r}", messages.errors)
            if not context.execute_async_v3(stream.handle):
                raise _failed(f"TensorRT failed on {self.device}", messages.errors)
            for tensor in self.spec.outputs:
                stream.copy_to_host(out[tensor.name], self._buffers[tensor.name])
            stream.wait()

    def versions(self) -> dict[str, str]:
        return {
            "tensorrt": self._version,
            "cuda": self.gpu.runtime_cuda,
            "driver": self.gpu.driver_version,
            "numpy": np.__version__,
        }

    def describe(self) -> dict[str, Any]:
        buffers_bytes = sum(b.size_bytes for b in self._buffers.values())
        return super().describe() | {
            "gpu": self.gpu.name,
            "compute_capability": self.gpu.compute_capability,
            "buffers_bytes": buffers_bytes,
        }

    def close(self) -> None:
        """Frees the context, the engine, the memory and the stream, in that order."""
        if self._runtime is None:
            return
        use_gpu(self.gpu.index)
        self._context = None
        self._engine = None
        self._runtime = None
        buffers, self._buffers = self._buffers, {}
        stream, self._stream = self._stream, None
        try:
            for buffer in buffers.values():
                buffer.free()
        finally:
            if stream is not None:
                stream.destroy()

    def __del__(self) -> None:
        # A session that nobody closed must not keep the GPU's memory for as long as the process lives.
        with contextlib.suppress(Exception):
            self.close()


def rebuild_command(
    variant: Variant, record: EngineRecord, bundle: Bundle, batches: Sequence[int] | None = None
) -> str:
    """The command that builds an engine like this one for the machine that it is run on."""
    words = ["ganexport", "to-trt", str(bundle.path), "--precision", variant.precision]
    words += ["--batch", ",".join(str(b) for b in batches or record.batches)]
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
                s not in (-1, w) for s, w in zip(shape[1:], want.shape, strict=True)
            ):
                raise EngineError(
                    f"the engine {name}: {want.name!r} has another shape than the spec",
                    got=list(shape),
                    expected=["batch", *want.shape],
                )


def _batch_range(engine: trt.ICudaEngine, name: str, profile: int) -> tuple[int, int]:
    minimum, _, maximum = engine.get_tensor_profile_shape(name, profile)  # each [N, …]
    return minimum[0], maximum[0]


def _check_array(array: NDArray[np.generic], tensor: TensorSpec, batch: int) -> None:
    # What follows copies raw memory: a wrong array would be read or written beyond its end.
    if array.shape != (batch, *fixed_shape(tensor)) or array.dtype != tensor.dtype or not array.flags.c_contiguous:
        raise InputError(
            f"{tensor.name!r} is not the array that the engine takes",
            got=f"{array.dtype} {list(array.shape)}" + ("" if array.flags.c_contiguous else ", not C-contiguous"),
            expected=f"{tensor.dtype} {[batch, *tensor.shape]}",
        )


def _failed(problem: str, errors: list[str]) -> EngineError:
    return EngineError(problem, got="; ".join(errors) or None)
