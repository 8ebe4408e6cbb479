"""What runs on a GPU and in which order: memory, streams, events and graphs of CUDA, through cuda-python, each call
checked.

Nothing here waits but what is named so: copies and kernels are put on a stream and run in its order, beside those of
other streams. What must come after what another stream does waits for an event.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ganruntime.errors import EngineError
from ganruntime.sessions.cuda import require_success


class DeviceBuffer:
    """`size_bytes` of the current GPU's memory at `address`, until `free`."""

    def __init__(self, size_bytes: int) -> None:
        from cuda.bindings import runtime as cudart

        self.size_bytes = size_bytes
        self.address = 0
        error, address = cudart.cudaMalloc(size_bytes)
        require_success(error, f"allocate {size_bytes / 2**20:.1f} MiB on the GPU")
        self.address = int(address)

    def free(self) -> None:
        """Gives the memory back; a second call does nothing."""
        if self.address:
            from cuda.bindings import runtime as cudart

            address, self.address = self.address, 0
            (error,) = cudart.cudaFree(address)
            require_success(error, "free memory of the GPU")


class PinnedBuffer:
    """`size_bytes` of page-locked memory of the host, until `free`.

    The GPU reads and writes it by itself: a copy of memory that may be paged out goes through a buffer of the driver's,
    and holds up whoever asked for it.
    """

    def __init__(self, size_bytes: int) -> None:
        from cuda.bindings import runtime as cudart

        self.size_bytes = size_bytes
        self.address = 0
        error, address = cudart.cudaHostAlloc(size_bytes, cudart.cudaHostAllocDefault)
        if error == cudart.cudaError_t.cudaErrorMemoryAllocation:
            raise EngineError(
                f"the host has no memory left to pin: cannot pin {size_bytes / 2**20:.1f} MiB",
                got=error.name,
                remedy="free main memory, give the container more, or load fewer or smaller buckets",
            )
        require_success(error, f"pin {size_bytes / 2**20:.1f} MiB of the host's memory")
        self.address = int(address)

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
        """The first bytes as an array of this shape. It must not be used after `free`."""
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * self.size_bytes).from_address(self.address))
        count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return memory[:count].view(dtype).reshape(shape)

    def free(self) -> None:
        """Gives the memory back; a second call does nothing."""
        if self.address:
            from cuda.bindings import runtime as cudart

            address, self.address = self.address, 0
            (error,) = cudart.cudaFreeHost(address)
            require_success(error, "free pinned memory")


class Event:
    """A place in a stream's order, which the host or another stream can wait for."""

    def __init__(self) -> None:
        from cuda.bindings import runtime as cudart

        self.handle = 0
        error, event = cudart.cudaEventCreateWithFlags(cudart.cudaEventDisableTiming)
        require_success(error, "create an event")
        self.handle = int(event)

    def wait(self) -> None:
        """Blocks until all that was on the stream before the last `Stream.record` has run. An error of a kernel
        surfaces here."""
        from cuda.bindings import runtime as cudart

        (error,) = cudart.cudaEventSynchronize(self.handle)
        require_success(error, "finish the work on the GPU")

    def destroy(self) -> None:
        """Gives the event back; a second call does nothing."""
        if self.handle:
            from cuda.bindings import runtime as cudart

            handle, self.handle = self.handle, 0
            (error,) = cudart.cudaEventDestroy(handle)
            require_success(error, "destroy an event")


class Graph:
    """Work of a stream, captured to be put on it again in one call: the same kernels at the same addresses."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def launch(self, stream: Stream) -> None:
        from cuda.bindings import runtime as cudart

        (error,) = cudart.cudaGraphLaunch(self.handle, stream.handle)
        require_success(error, "launch a CUDA graph")

    def destroy(self) -> None:
        """Gives the graph back; a second call does nothing."""
        if self.handle:
            from cuda.bindings import runtime as cudart

            handle, self.handle = self.handle, 0
            (error,) = cudart.cudaGraphExecDestroy(handle)
            require_success(error, "destroy a CUDA graph")


class Stream:
    """A CUDA stream of its own; `handle` is what TensorRT takes. Copies and kernels on it run in order."""

    def __init__(self) -> None:
        from cuda.bindings import runtime as cudart

        self.handle = 0
        # Non-blocking: not ordered after what other libraries put on the default stream.
        error, stream = cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking)
        require_success(error, "create a stream")
        self.handle = int(stream)

    def copy_to_device(self, buffer: DeviceBuffer, host: PinnedBuffer, size_bytes: int) -> None:
        """Enqueues host → device; the host's memory must stay as it is until the copy has run."""
        from cuda.bindings import runtime as cudart

        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        (error,) = cudart.cudaMemcpyAsync(buffer.address, host.address, size_bytes, kind, self.handle)
        require_success(error, f"copy {size_bytes} bytes to the GPU")

    def copy_to_host(self, host: PinnedBuffer, buffer: DeviceBuffer, size_bytes: int) -> None:
        """Enqueues device → host; the host's memory holds the values once the copy has run."""
        from cuda.bindings import runtime as cudart

        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        (error,) = cudart.cudaMemcpyAsync(host.address, buffer.address, size_bytes, kind, self.handle)
        require_success(error, f"copy {size_bytes} bytes from the GPU")

    def record(self, event: Event) -> None:
        """Puts the event behind all that is on the stream now."""
        from cuda.bindings import runtime as cudart

        (error,) = cudart.cudaEventRecord(event.handle, self.handle)
        require_success(error, "record an event")

    def wait_for(self, event: Event) -> None:
        """What is put on the stream from now on runs after the event. The host does not wait."""
        from cuda.bindings import runtime as cudart

        (error,) = cudart.cudaStreamWaitEvent(self.handle, event.handle, 0)
        require_success(error, "order two streams")

    def wait(self) -> None:
        """Blocks until everything enqueued has run. An error of a kernel surfaces here."""
        from cuda.bindings import runtime as cudart

        (error,) = cudart.cudaStreamSynchronize(self.handle)
        require_success(error, "finish the work on the GPU")

    def captured(self, enqueue: Callable[[], None]) -> Graph:
        """What `enqueue` puts on the stream, which does not run now.

        Raises:
            DeviceError: something in it cannot be captured, such as a wait or an allocation. Also what `enqueue`
                raises. In both cases the stream is as it was before.
        """
        from cuda.bindings import runtime as cudart

        # Only calls of this thread may not break the capture: others load, free and run engines of their own.
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        (error,) = cudart.cudaStreamBeginCapture(self.handle, mode)
        require_success(error, "begin to capture a CUDA graph")
        try:
            enqueue()
        except BaseException:
            error, graph = cudart.cudaStreamEndCapture(self.handle)
            if error == cudart.cudaError_t.cudaSuccess:
                cudart.cudaGraphDestroy(graph)
            # A later call, of TensorRT's own, would find the capture's error and take it for its own.
            cudart.cudaGetLastError()
            raise
        error, graph = cudart.cudaStreamEndCapture(self.handle)
        if error != cudart.cudaError_t.cudaSuccess:
            cudart.cudaGetLastError()
        require_success(error, "capture a CUDA graph")
        error, executable = cudart.cudaGraphInstantiate(graph, 0)
        cudart.cudaGraphDestroy(graph)
        require_success(error, "make a CUDA graph ready to be launched")
        return Graph(int(executable))

    def destroy(self) -> None:
        """Gives the stream back; a second call does nothing."""
        if self.handle:
            from cuda.bindings import runtime as cudart

            handle, self.handle = self.handle, 0
            (error,) = cudart.cudaStreamDestroy(handle)
            require_success(error, "destroy a stream")
