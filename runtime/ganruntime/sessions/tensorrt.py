"""TensorRT on one NVIDIA GPU, through cuda-python. No torch, and no falling back to anything else.

A plan is executable code. Its bytes come from the bundle, which has checked their hash, or straight from the builder;
and the environment is checked before TensorRT parses them (`ganruntime.sessions.tensorrt_environment`).
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ganruntime.bundle import Bundle, Variant
from ganruntime.errors import BackendError, DeviceError, EngineError, InputError
from ganruntime.sessions.base import Arrays, Session, fixed_shape
from ganruntime.sessions.cuda import gpu_from_index, use_gpu
from ganruntime.sessions.cuda_streams import DeviceBuffer
from ganruntime.sessions.devices import parse_device
from ganruntime.sessions.tensorrt_engine import EngineProfile, LoadedEngine, Shapes, loaded_engine
from ganruntime.sessions.tensorrt_environment import check_environment, graph_of_engine, rebuild_command
from ganruntime.sessions.tensorrt_lanes import Call, Lane, Streams, new_context
from ganruntime.sessions.tensorrt_library import captured_messages, require_tensorrt
from ganruntime.sizes import Size, size_of, size_option, size_text, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

_LANES = 2


class TensorRTSession(Session):
    """One engine, and what one thread at a time needs to run it.

    Each bucket, at each size that the engine was tuned for, has an execution context and a CUDA graph of its own on
    each of two lanes, all made ready when the session opens. A batch that has a profile of its own runs there, on
    kernels tuned for it; any other up to the largest, and any other size, runs on the dynamic profile. Pieces of one
    request overlap (`run_many`).
    """

    backend: ClassVar[str] = "tensorrt"
    pieces_at_once: ClassVar[int] = 8

    _resources: contextlib.ExitStack | None = None
    _loaded: LoadedEngine | None = None
    _streams: Streams | None = None
    _failed = False
    _lanes: tuple[Lane, ...] = ()

    def __init__(
        self,
        bundle: Bundle,
        variant: Variant,
        device: str = "cuda",
        buckets: tuple[int, ...] | None = None,
        *,
        plan: bytes | None = None,
        graphs: bool = True,
    ) -> None:
        """Loads the engine of `variant`.

        Args:
            device: `cuda` or `cuda:N`.
            buckets: batch sizes to run, ascending; by default those that the engine was tuned for.
            plan: a plan that was built here and is not in the bundle yet; by default the bundle's file, checked.
            graphs: whether to run buckets as CUDA graphs; what cannot be captured runs without, and `describe` says
                which and why.

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
        gpu = gpu_from_index(index)
        check_environment(record, variant, version, gpu, rebuild_command(variant, record, bundle))
        graph = graph_of_engine(bundle, variant, record)
        super().__init__(bundle.spec, variant, f"cuda:{index}", buckets or record.batches)
        use_gpu(index)
        # A stripped engine has no weights of its own: they stand once in the bundle, in the graph.
        weights = bundle.graph(graph) if record.stripped and graph is not None else None
        plan = bundle.read(variant.file) if plan is None else plan
        self._open(loaded_engine(bundle, variant, record, version, gpu, self.spec, plan, weights), graphs)

    def for_worker(self) -> TensorRTSession:
        """Another session over the same engine, for another thread: its weights stand on the GPU once; contexts,
        streams, graphs and buffers are its own. Each is closed by itself."""
        other = object.__new__(TensorRTSession)
        Session.__init__(other, self.contract, self.variant, self.device, self.buckets)
        other._open(self._engine, self._graphs)
        return other

    def _open(self, loaded: LoadedEngine, graphs: bool) -> None:
        self.gpu = loaded.gpu
        self._loaded, self._graphs = loaded, graphs
        self._record, self._bundle, self._version = loaded.record, loaded.bundle, loaded.version
        self._busy = threading.Lock()
        self._next_lane = 0
        self._resources = resources = contextlib.ExitStack()
        use_gpu(self.gpu.index)
        try:
            profiles = self._match_buckets()
            self._streams = streams = Streams(resources)
            self._scratch = self._scratch_memory(resources)
            largest = spec_at(self.spec, self._record.size_range[1] if self._record.sizes else None)
            self._lanes = tuple(Lane(largest, self.buckets[-1], resources) for _ in range(_LANES))
            for lane in self._lanes:
                for (batch, size), profile in profiles.items():
                    lane.calls[batch, size] = self._ready(lane, batch, size, profile, streams, resources)
        except BaseException:
            self.close()
            raise

    @property
    def _engine(self) -> LoadedEngine:
        if self._loaded is None:
            raise BackendError("the session is closed")
        return self._loaded

    @property
    def warm_sizes(self) -> tuple[Size | None, ...]:
        """The sizes that the engine was tuned for."""
        return self._record.sizes or (None,)

    def takes(self, size: Size | None) -> bool:
        """Whether a profile takes this size."""
        return self._engine.profile_for(_shapes(spec_at(self.spec, size), 1 if size else self.buckets[0])) is not None

    def _match_buckets(self) -> dict[tuple[int, Size | None], EngineProfile]:
        """{(bucket, size): its profile}, the tuned one where there is one."""
        if varying_inputs(self.spec) and not self._record.sizes:
            raise EngineError(
                f"the engine {self.variant.name} does not say which sizes of images it takes",
                remedy=self._rebuild(),
            )
        found: dict[tuple[int, Size | None], EngineProfile] = {}
        for size in self.warm_sizes:
            for bucket in self.buckets:
                profile = self._engine.profile_for(_shapes(spec_at(self.spec, size), bucket))
                if profile is None:
                    at = "" if size is None else f" at {size_option((size,))}"
                    raise EngineError(
                        f"{bucket}{at} is not a batch that the engine {self.variant.name} takes",
                        got=f"input {self.spec.inputs[0].name!r} of [{bucket}, ...]",
                        expected=" or ".join(dict.fromkeys(p.batches for p in self._engine.profiles)),
                        remedy=f"add the batch: {self._rebuild(sorted({*self._record.batches, bucket}))}",
                    )
                found[bucket, size] = profile
        return found

    def _rebuild(self, batches: Sequence[int] | None = None, sizes: Sequence[Size] | None = None) -> str:
        return rebuild_command(self.variant, self._record, self._bundle, batches, sizes)

    def _scratch_memory(self, resources: contextlib.ExitStack) -> DeviceBuffer:
        """What the engine computes in: one block for all contexts, which never run at once."""
        size_bytes = max(1, int(self._engine.engine.device_memory_size_v2))
        try:
            buffer = DeviceBuffer(size_bytes)
        except EngineError as error:
            raise self._no_room(f"{size_bytes / 2**20:.0f} MiB needed; {error.got}") from error
        resources.callback(buffer.free)
        return buffer

    def _ready(
        self,
        lane: Lane,
        batch: int,
        size: Size | None,
        profile: EngineProfile,
        streams: Streams,
        resources: contextlib.ExitStack,
    ) -> Call:
        """A call that has run once, captured where that can be done."""
        call = Call(lane, self._context(profile, streams), spec_at(self.spec, size), batch)
        call.put(None, streams)
        call.take(None)
        if self._graphs:
            call.capture(streams.compute, resources)
        else:
            call.why_no_graph = "not asked for"
        return call

    def _context(self, profile: EngineProfile, streams: Streams) -> trt.IExecutionContext:
        with captured_messages() as messages:
            context = new_context(self._engine.engine, profile.index, streams.compute, self._scratch)
        if context is None:
            raise self._no_room("; ".join(messages.errors) or "no word of TensorRT")
        return context

    def _no_room(self, got: str) -> EngineError:
        sizes = self._record.sizes
        if self._record.largest_batch == 1 and len(sizes) > 1:
            less, command = "without the largest size", self._rebuild(sizes=sizes[:-1])
        else:
            smaller = (max(1, self._record.largest_batch // 2),)
            less, command = "for a smaller largest batch", self._rebuild(smaller)
        return EngineError(
            f"the GPU has no room to run the engine {self.variant.name}",
            got=got,
            remedy=f"free the GPU (`nvidia-smi` says who holds it), or build {less}: {command}",
        )

    def run(self, inputs: Arrays, out: Arrays) -> None:
        for _ in self.run_many(((inputs, out),)):
            pass

    def run_many(self, pieces: Iterable[tuple[Arrays, Arrays]]) -> Generator[Arrays, None, None]:
        """As `Session.run_many`: while the GPU computes one piece, the next is drawn and copied in, and the last one
        is copied out."""
        if not self._busy.acquire(blocking=False):
            raise BackendError(
                "two threads run one session at once",
                expected="one thread at a time",
                remedy="TensorRTSession.for_worker gives each thread its own, over the same engine",
            )
        under_way: deque[tuple[Call, Arrays]] = deque()
        is_done = False
        try:
            for inputs, out in pieces:
                if len(under_way) == _LANES:
                    yield _taken(*under_way.popleft())
                streams = self._open_streams()
                call = self._call(inputs, out, streams)
                under_way.append((call, out))
                use_gpu(self.gpu.index)  # of this thread, which may not be the one that ran the last piece
                call.put(inputs, streams)
            while under_way:
                yield _taken(*under_way.popleft())
            is_done = True
        except BackendError:
            self._failed = True
            raise
        finally:
            if not is_done:
                self._drain()
            self._busy.release()

    def _open_streams(self) -> Streams:
        if self._streams is None:
            raise BackendError("the session is closed")
        return self._streams

    def _call(self, inputs: Arrays, out: Arrays, streams: Streams) -> Call:
        """What runs these inputs on the next lane, which is free."""
        batch = len(inputs[self.spec.inputs[0].name])
        if batch not in self.buckets:
            raise InputError("the batch is not a bucket", got=batch, expected=", ".join(map(str, self.buckets)))
        for tensor in varying_inputs(self.spec):
            if inputs[tensor.name].ndim != 1 + len(tensor.shape):
                raise _not_the_array(inputs[tensor.name], tensor, batch)
        size = size_of(self.spec, inputs)
        lane = self._lanes[self._next_lane]
        call = lane.calls.get((batch, size))
        spec = spec_at(self.spec, size) if call is None else call.spec
        for tensor in spec.inputs:
            _check_array(inputs[tensor.name], tensor, batch)
        for tensor in spec.outputs:
            _check_array(out[tensor.name], tensor, batch)
        if call is None:
            assert size is not None  # where nothing varies every bucket has its call
            call = self._call_at_any_size(lane, spec, batch, size, streams)
        self._next_lane = (self._next_lane + 1) % _LANES
        return call

    def _call_at_any_size(self, lane: Lane, spec: GeneratorSpec, batch: int, size: Size, streams: Streams) -> Call:
        """At a size that the engine was not tuned for: on the dynamic profile, without a graph."""
        profile = self._engine.profile_for(_shapes(spec, batch))
        if profile is None:
            least, most = self._record.size_range
            sizes = sorted({*self._record.sizes, size}, key=lambda s: (s[0] * s[1], s))
            raise InputError(
                f"the engine {self.variant.name} takes no images of this size",
                got=size_text(size),
                expected=f"height {least[0]} to {most[0]}, width {least[1]} to {most[1]}",
                remedy=f"scale or crop them, or build for that size too: {self._rebuild(sizes=sizes)}",
            )
        use_gpu(self.gpu.index)
        if lane.any_size is None:
            lane.any_size = self._context(profile, streams)
        return Call(lane, lane.any_size, spec, batch)

    def _drain(self) -> None:
        """Waits until nothing is under way, after an error; what it ends in was told already."""
        if self._streams is not None:
            with contextlib.suppress(BackendError):
                self._streams.wait()

    def versions(self) -> dict[str, str]:
        return {
            "tensorrt": self._version,
            "cuda": self.gpu.runtime_cuda,
            "driver": self.gpu.driver_version,
            "numpy": np.__version__,
        }

    def describe(self) -> dict[str, Any]:
        device_bytes = sum(b.size_bytes for lane in self._lanes for b in lane.device.values())
        pinned_bytes = sum(b.size_bytes for lane in self._lanes for b in lane.pinned.values())
        return super().describe() | {
            "gpu": self.gpu.name,
            "compute_capability": self.gpu.compute_capability,
            "sizes": [list(size) for size in self._record.sizes],
            "cuda_graphs": self._graphs_described(),
            "lanes": len(self._lanes),
            "buffers_bytes": device_bytes,
            "pinned_bytes": pinned_bytes,
            "scratch_bytes": self._scratch.size_bytes if self._lanes else 0,
        }

    def _graphs_described(self) -> dict[str, Any]:
        """{"used": those buckets that run as CUDA graphs, "not_used": {those that do not: why}}."""
        used: list[str] = []
        not_used: dict[str, str] = {}
        for lane in self._lanes:
            for (batch, size), call in lane.calls.items():
                name = f"{batch}" if size is None else f"{batch}@{size_option((size,))}"
                if call.graph is None:
                    not_used[name] = call.why_no_graph
                elif name not in used:
                    used.append(name)
        if self._record.sizes:
            not_used["other sizes"] = "each size would need a graph of its own: to-trt --size tunes for more"
        return {"used": [name for name in used if name not in not_used], "not_used": not_used}

    def close(self) -> None:
        """Frees graphs, contexts, memory, events and streams, in that order; the engine with its last session."""
        if self._resources is None:
            return
        resources, self._resources = self._resources, None
        # After an error of a kernel CUDA answers every call with it, and it was told already.
        told = contextlib.suppress(BackendError) if self._failed else contextlib.nullcontext()
        try:
            with told, resources:
                with told:
                    use_gpu(self.gpu.index)
                self._drain()
        finally:
            self._streams, self._lanes, self._loaded = None, (), None

    def __del__(self) -> None:
        # A session that nobody closed must not keep the GPU's memory for as long as the process lives.
        with contextlib.suppress(Exception):
            self.close()


def _taken(call: Call, out: Arrays) -> Arrays:
    call.take(out)
    return out


def _shapes(spec: GeneratorSpec, batch: int) -> Shapes:
    return {tensor.name: (batch, *fixed_shape(tensor)) for tensor in spec.inputs}


def _check_array(array: NDArray[np.generic], tensor: TensorSpec, batch: int) -> None:
    # What follows copies raw memory: a wrong array would be read or written beyond its end.
    if array.shape != (batch, *fixed_shape(tensor)) or array.dtype != tensor.dtype or not array.flags.c_contiguous:
        raise _not_the_array(array, tensor, batch)


def _not_the_array(array: NDArray[np.generic], tensor: TensorSpec, batch: int) -> InputError:
    return InputError(
        f"{tensor.name!r} is not the array that the engine takes",
        got=f"{array.dtype} {list(array.shape)}" + ("" if array.flags.c_contiguous else ", not C-contiguous"),
        expected=f"{tensor.dtype} {[batch, *('any' if d is None else d for d in tensor.shape)]}",
    )
