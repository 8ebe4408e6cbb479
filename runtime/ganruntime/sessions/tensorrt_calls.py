"""Ready calls: every batch that a session runs, at every size that its engine was tuned for, made ready on each lane.

Which profile a batch runs on is decided here: one of its own where the engine has it, on kernels tuned for it, else the
dynamic one. All of it is made when the session opens, and given back when it is closed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import BackendError, EngineError, InputError
from ganruntime.sessions.base import Arrays, fixed_shape
from ganruntime.sessions.cuda import use_gpu
from ganruntime.sessions.cuda_streams import DeviceBuffer
from ganruntime.sessions.tensorrt_engine import EngineProfile, LoadedEngine, Shapes
from ganruntime.sessions.tensorrt_environment import rebuild_command
from ganruntime.sessions.tensorrt_lanes import Call, Lane, Streams, new_context
from ganruntime.sessions.tensorrt_library import captured_messages
from ganruntime.sizes import Size, size_of, size_option, size_text, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, TensorSpec

if TYPE_CHECKING:
    import tensorrt as trt

LANES = 2


class ReadyCalls:
    """The lanes of one session over an engine, and what was made ready on them.

    Args:
        loaded: the engine; its GPU is the current one.
        spec: what the session takes and gives.
        buckets: batch sizes to make ready.
        graphs: whether to capture CUDA graphs.
        resources: gives everything back when it is closed, also after an error in here.

    Raises:
        EngineError: a bucket is beyond the engine's profiles, or the GPU has no room.
    """

    def __init__(
        self,
        loaded: LoadedEngine,
        spec: GeneratorSpec,
        buckets: tuple[int, ...],
        graphs: bool,
        resources: contextlib.ExitStack,
    ) -> None:
        self._loaded, self._record = loaded, loaded.record
        self._spec, self._buckets, self._graphs = spec, buckets, graphs
        self._next_lane = 0
        profiles = self._match_buckets()
        self.streams = Streams(resources)
        self.scratch = self._scratch_memory(resources)
        largest = spec_at(spec, self._record.size_range[1] if self._record.sizes else None)
        self.lanes = tuple(Lane(largest, buckets[-1], resources) for _ in range(LANES))
        try:
            for lane in self.lanes:
                for (batch, size), profile in profiles.items():
                    lane.calls[batch, size] = self._ready(lane, batch, size, profile, resources)
        except BaseException:
            with contextlib.suppress(BackendError):  # nothing may be under way when `resources` frees the memory
                self.streams.wait()
            raise

    def call(self, inputs: Arrays, out: Arrays) -> Call:
        """What runs these arrays on the next lane, which is free.

        Raises:
            InputError: an array is not what the engine takes or gives, or of a size that no profile takes.
        """
        batch = len(inputs[self._spec.inputs[0].name])
        if batch not in self._buckets:
            raise InputError("the batch is not a bucket", got=batch, expected=", ".join(map(str, self._buckets)))
        for tensor in varying_inputs(self._spec):
            if inputs[tensor.name].ndim != 1 + len(tensor.shape):
                raise _not_the_array(inputs[tensor.name], tensor, batch)
        size = size_of(self._spec, inputs)
        lane = self.lanes[self._next_lane]
        call = lane.calls.get((batch, size))
        spec = spec_at(self._spec, size) if call is None else call.spec
        for tensor in spec.inputs:
            _check_array(inputs[tensor.name], tensor, batch)
        for tensor in spec.outputs:
            _check_array(out[tensor.name], tensor, batch)
        if call is None:
            assert size is not None  # where nothing varies every bucket has its call
            call = self._call_at_any_size(lane, spec, batch, size)
        self._next_lane = (self._next_lane + 1) % LANES
        return call

    def graphs_described(self) -> dict[str, Any]:
        """{"used": those buckets that run as CUDA graphs, "not_used": {those that do not: why}}."""
        used: list[str] = []
        not_used: dict[str, str] = {}
        for lane in self.lanes:
            for (batch, size), call in lane.calls.items():
                name = f"{batch}" if size is None else f"{batch}@{size_option((size,))}"
                if call.graph is None:
                    not_used[name] = call.why_no_graph
                elif name not in used:
                    used.append(name)
        if self._record.sizes:
            not_used["other sizes"] = "each size would need a graph of its own: to-trt --size tunes for more"
        return {"used": [name for name in used if name not in not_used], "not_used": not_used}

    def _match_buckets(self) -> dict[tuple[int, Size | None], EngineProfile]:
        """{(bucket, size): its profile}, the tuned one where there is one."""
        name = self._loaded.variant.name
        if varying_inputs(self._spec) and not self._record.sizes:
            raise EngineError(f"the engine {name} does not say which sizes of images it takes", remedy=self._rebuild())
        found: dict[tuple[int, Size | None], EngineProfile] = {}
        for size in self._record.sizes or (None,):
            for bucket in self._buckets:
                profile = self._loaded.profile_for(shapes_of(spec_at(self._spec, size), bucket))
                if profile is None:
                    at = "" if size is None else f" at {size_option((size,))}"
                    raise EngineError(
                        f"{bucket}{at} is not a batch that the engine {name} takes",
                        got=f"input {self._spec.inputs[0].name!r} of [{bucket}, ...]",
                        expected=" or ".join(dict.fromkeys(p.batches for p in self._loaded.profiles)),
                        remedy=f"add the batch: {self._rebuild(sorted({*self._record.batches, bucket}))}",
                    )
                found[bucket, size] = profile
        return found

    def _rebuild(self, batches: Sequence[int] | None = None, sizes: Sequence[Size] | None = None) -> str:
        return rebuild_command(self._loaded.variant, self._record, self._loaded.bundle, batches, sizes)

    def _scratch_memory(self, resources: contextlib.ExitStack) -> DeviceBuffer:
        """What the engine computes in: one block for all contexts, which never run at once."""
        size_bytes = max(1, int(self._loaded.engine.device_memory_size_v2))
        try:
            buffer = DeviceBuffer(size_bytes)
        except EngineError as error:
            raise self._no_room(f"{size_bytes / 2**20:.0f} MiB needed; {error.got}") from error
        resources.callback(buffer.free)
        return buffer

    def _ready(
        self, lane: Lane, batch: int, size: Size | None, profile: EngineProfile, resources: contextlib.ExitStack
    ) -> Call:
        """A call that has run once, captured where that can be done."""
        call = Call(lane, self._context(profile), spec_at(self._spec, size), batch)
        call.put(None, self.streams)
        call.take(None)
        if self._graphs:
            call.capture(self.streams.compute, resources)
        else:
            call.why_no_graph = "not asked for"
        return call

    def _context(self, profile: EngineProfile) -> trt.IExecutionContext:
        with captured_messages() as messages:
            context = new_context(self._loaded.engine, profile.index, self.streams.compute, self.scratch)
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
            f"the GPU has no room to run the engine {self._loaded.variant.name}",
            got=got,
            remedy=f"free the GPU (`nvidia-smi` says who holds it), or build {less}: {command}",
        )

    def _call_at_any_size(self, lane: Lane, spec: GeneratorSpec, batch: int, size: Size) -> Call:
        """At a size that the engine was not tuned for: on the dynamic profile, without a graph."""
        profile = self._loaded.profile_for(shapes_of(spec, batch))
        if profile is None:
            least, most = self._record.size_range
            sizes = sorted({*self._record.sizes, size}, key=lambda s: (s[0] * s[1], s))
            raise InputError(
                f"the engine {self._loaded.variant.name} takes no images of this size",
                got=size_text(size),
                expected=f"height {least[0]} to {most[0]}, width {least[1]} to {most[1]}",
                remedy=f"scale or crop them, or build for that size too: {self._rebuild(sizes=sizes)}",
            )
        use_gpu(self._loaded.gpu.index)
        if lane.any_size is None:
            lane.any_size = self._context(profile)
        return Call(lane, lane.any_size, spec, batch)


def shapes_of(spec: GeneratorSpec, batch: int) -> Shapes:
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
