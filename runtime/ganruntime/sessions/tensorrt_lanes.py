"""Lanes: where a piece of work is while it is under way, so that the copies of one overlap the kernels of another.

A lane has memory of its own, pinned on the host and on the GPU, whose addresses never change: what is captured for it
stays right. Its work crosses three streams, which events keep in order:

    copy in    pinned → GPU, then `copied_in`
    compute    after `copied_in`: the engine, then `computed`
    copy out   after `computed`: GPU → pinned, then `copied_out`, which the host waits for

With two lanes the GPU copies the next piece in and the last one out while it computes. The engine's scratch memory is
one for all lanes: `compute` runs one piece at a time.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import BackendError, EngineError
from ganruntime.sessions.base import Arrays, fixed_shape
from ganruntime.sessions.cuda_streams import DeviceBuffer, Event, Graph, PinnedBuffer, Stream
from ganruntime.sessions.tensorrt_library import captured_messages
from ganruntime.sizes import Size
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import tensorrt as trt


class Streams:
    """The three streams that all lanes of a session share; `resources` gives them back when it is closed."""

    def __init__(self, resources: contextlib.ExitStack) -> None:
        self.copy_in = Stream()
        resources.callback(self.copy_in.destroy)
        self.compute = Stream()
        resources.callback(self.compute.destroy)
        self.copy_out = Stream()
        resources.callback(self.copy_out.destroy)

    def wait(self) -> None:
        """Blocks until nothing is under way."""
        for stream in (self.copy_in, self.compute, self.copy_out):
            stream.wait()


class Lane:
    """Memory for one piece of work at a time, its events, and what was made ready to run on it.

    Args:
        spec: at the largest size.
        batch: the largest.
        resources: gives everything back when it is closed.
    """

    def __init__(self, spec: GeneratorSpec, batch: int, resources: contextlib.ExitStack) -> None:
        self.calls: dict[tuple[int, Size | None], Call] = {}
        self.any_size: trt.IExecutionContext | None = None
        self.device: dict[str, DeviceBuffer] = {}
        self.pinned: dict[str, PinnedBuffer] = {}
        for tensor in (*spec.inputs, *spec.outputs):
            size_bytes = batch * tensor.size * np.dtype(tensor.dtype).itemsize
            self.device[tensor.name] = DeviceBuffer(size_bytes)
            resources.callback(self.device[tensor.name].free)
            self.pinned[tensor.name] = PinnedBuffer(size_bytes)
            resources.callback(self.pinned[tensor.name].free)
        self.copied_in = Event()
        resources.callback(self.copied_in.destroy)
        self.computed = Event()
        resources.callback(self.computed.destroy)
        self.copied_out = Event()
        resources.callback(self.copied_out.destroy)
        resources.callback(self.forget)  # after the graphs, which come later, and before the memory

    def forget(self) -> None:
        """Drops the execution contexts: an engine is freed with the last of them."""
        self.calls.clear()
        self.any_size = None


class Call:
    """One batch at one size on one lane: its context with shapes and addresses set, and its CUDA graph if there is one.

    A captured graph holds the state of its context, so a call that has one has a context of its own.

    Args:
        spec: at the size.
        batch: how many rows.

    Raises:
        EngineError: TensorRT refuses the shapes or the memory.
    """

    def __init__(self, lane: Lane, context: trt.IExecutionContext, spec: GeneratorSpec, batch: int) -> None:
        self.lane, self.context, self.spec = lane, context, spec
        self.graph: Graph | None = None
        self.why_no_graph = ""
        self._inputs: list[tuple[str, NDArray[np.generic]]] = []
        self._outputs: list[tuple[str, NDArray[np.generic]]] = []
        with captured_messages() as messages:
            for tensor in spec.inputs:
                shape = (batch, *fixed_shape(tensor))
                if not context.set_input_shape(tensor.name, shape):
                    raise failed(f"TensorRT refuses {list(shape)} for {tensor.name!r}", messages.errors)
                self._inputs.append((tensor.name, lane.pinned[tensor.name].array(shape, tensor.dtype)))
            for tensor in spec.outputs:
                shape = (batch, *fixed_shape(tensor))
                self._outputs.append((tensor.name, lane.pinned[tensor.name].array(shape, tensor.dtype)))
            for name, buffer in lane.device.items():
                if not context.set_tensor_address(name, buffer.address):
                    raise failed(f"TensorRT refuses the memory of {name!r}", messages.errors)

    def put(self, inputs: Arrays | None, streams: Streams) -> None:
        """Puts the work on the streams; `inputs` may be used again at once. None runs zeros.

        Raises:
            EngineError, DeviceError: TensorRT or CUDA refuses it. Part of it may be under way.
        """
        lane = self.lane
        for name, pinned in self._inputs:
            if inputs is None:
                pinned.fill(0)
            else:
                np.copyto(pinned, inputs[name])
            streams.copy_in.copy_to_device(lane.device[name], lane.pinned[name], pinned.nbytes)
        streams.copy_in.record(lane.copied_in)
        streams.compute.wait_for(lane.copied_in)
        if self.graph is not None:
            self.graph.launch(streams.compute)
        else:
            self._execute(streams.compute)
        streams.compute.record(lane.computed)
        streams.copy_out.wait_for(lane.computed)
        for name, pinned in self._outputs:
            streams.copy_out.copy_to_host(lane.pinned[name], lane.device[name], pinned.nbytes)
        streams.copy_out.record(lane.copied_out)

    def take(self, out: Arrays | None) -> None:
        """Waits for the work that was put last, and copies what came of it into `out`. The lane is free afterwards."""
        self.lane.copied_out.wait()
        if out is not None:
            for name, pinned in self._outputs:
                np.copyto(out[name], pinned)

    def capture(self, compute: Stream, resources: contextlib.ExitStack) -> None:
        """Makes the CUDA graph; where it cannot be made, `why_no_graph` says why, and the work goes on without one.

        The call has run once: TensorRT does what may not be captured when it first meets a shape.
        """
        try:
            self.graph = compute.captured(lambda: self._execute(compute))
        except BackendError as error:
            self.why_no_graph = f"{error.problem} ({error.got})"
        else:
            resources.callback(self.graph.destroy)

    def _execute(self, compute: Stream) -> None:
        with captured_messages() as messages:
            if not self.context.execute_async_v3(compute.handle):
                raise failed("TensorRT failed on the GPU", messages.errors)


def new_context(
    engine: trt.ICudaEngine, profile: int, compute: Stream, scratch: DeviceBuffer
) -> trt.IExecutionContext | None:
    """A context on a profile, which computes in `scratch`, as others on the same stream do; None for want of memory.

    Raises:
        EngineError: TensorRT does not switch to the profile.
    """
    import tensorrt as trt

    with captured_messages() as messages:
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            return None
        if not context.set_optimization_profile_async(profile, compute.handle):
            raise failed(f"TensorRT does not switch to profile {profile}", messages.errors)
        # The switch may copy on the stream; shapes set before it is done would belong to the old profile.
        compute.wait()
        context.set_device_memory(scratch.address, scratch.size_bytes)
    return context


def failed(problem: str, errors: list[str]) -> EngineError:
    return EngineError(problem, got="; ".join(errors) or None)
