"""TensorRT on one NVIDIA GPU, through cuda-python. No torch, and no falling back to anything else.

A plan is executable code. Its bytes come from the bundle, which has checked their hash, or straight from the builder;
and the environment is checked before TensorRT parses them (`ganruntime.sessions.tensorrt_environment`).
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ganruntime.bundle import Bundle, Variant
from ganruntime.errors import BackendError, DeviceError, EngineError
from ganruntime.sessions.base import Arrays, Session
from ganruntime.sessions.cuda import gpu_from_index, use_gpu
from ganruntime.sessions.devices import parse_device
from ganruntime.sessions.tensorrt_calls import LANES, ReadyCalls, shapes_of
from ganruntime.sessions.tensorrt_engine import LoadedEngine, loaded_engine
from ganruntime.sessions.tensorrt_environment import check_environment, graph_of_engine, rebuild_command
from ganruntime.sessions.tensorrt_lanes import Call
from ganruntime.sessions.tensorrt_library import require_tensorrt
from ganruntime.sizes import Size, spec_at

if TYPE_CHECKING:
    pass


class TensorRTSession(Session):
    """One engine, and what one thread at a time needs to run it.

    Each bucket, at each size that the engine was tuned for, has an execution context and a CUDA graph of its own on
    each of two lanes, all made ready when the session opens. A batch that has a profile of its own runs there, on
    kernels tuned for it; any other up to the largest, and any other size, runs on the dynamic profile. Pieces of one
    request overlap (`run_many`).
    """

    backend: ClassVar[str] = "tensorrt"
    lanes = LANES
    pieces_at_once = 8

    _resources: contextlib.ExitStack | None = None
    _loaded: LoadedEngine | None = None
    _calls: ReadyCalls | None = None
    _failed = False

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
        self._record, self._version = loaded.record, loaded.version
        self._busy = threading.Lock()
        self._resources = contextlib.ExitStack()
        use_gpu(self.gpu.index)
        try:
            self._calls = ReadyCalls(loaded, self.spec, self.buckets, graphs, self._resources)
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
        return self._engine.profile_for(shapes_of(spec_at(self.spec, size), 1 if size else self.buckets[0])) is not None

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
                if len(under_way) == LANES:
                    yield _taken(*under_way.popleft())
                ready = self._ready_calls()
                call = ready.call(inputs, out)
                under_way.append((call, out))
                use_gpu(self.gpu.index)  # of this thread, which may not be the one that ran the last piece
                call.put(inputs, ready.streams)
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

    def _ready_calls(self) -> ReadyCalls:
        if self._calls is None:
            raise BackendError("the session is closed")
        return self._calls

    def _drain(self) -> None:
        """Waits until nothing is under way, after an error; what it ends in was told already."""
        if self._calls is not None:
            with contextlib.suppress(BackendError):
                self._calls.streams.wait()

    def versions(self) -> dict[str, str]:
        return {
            "tensorrt": self._version,
            "cuda": self.gpu.runtime_cuda,
            "driver": self.gpu.driver_version,
            "numpy": np.__version__,
        }

    def describe(self) -> dict[str, Any]:
        about: dict[str, Any] = {"cuda_graphs": {"used": [], "not_used": {}}, "lanes": 0}
        about |= {"buffers_bytes": 0, "pinned_bytes": 0, "scratch_bytes": 0}
        if self._calls is not None:
            lanes = self._calls.lanes
            about = {
                "cuda_graphs": self._calls.graphs_described(),
                "lanes": len(lanes),
                "buffers_bytes": sum(b.size_bytes for lane in lanes for b in lane.device.values()),
                "pinned_bytes": sum(b.size_bytes for lane in lanes for b in lane.pinned.values()),
                "scratch_bytes": self._calls.scratch.size_bytes,
            }
        return super().describe() | {
            "gpu": self.gpu.name,
            "compute_capability": self.gpu.compute_capability,
            "sizes": [list(size) for size in self._record.sizes],
            **about,
        }

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
            self._calls, self._loaded = None, None

    def __del__(self) -> None:
        # A session that nobody closed must not keep the GPU's memory for as long as the process lives.
        with contextlib.suppress(Exception):
            self.close()


def _taken(call: Call, out: Arrays) -> Arrays:
    call.take(out)
    return out
