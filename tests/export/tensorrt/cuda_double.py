"""A behavioural double of `cuda.bindings.runtime`: exactly the calls that we make, on host memory.

What may come before what is `cuda_double_device`'s: a stream runs nothing before the host waits for it, and work whose
order nobody made sure of is an error.
"""

from __future__ import annotations

import enum
import functools
import threading
import types
from typing import Any

from cuda_double_device import Work
from imaginary_machine import FakeGpu, Machine

# What a session calls in the middle of its work and at its end. After an error of a kernel they all end in that error.
AFTER_A_FAULT = {
    "cudaSetDevice", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaFree", "cudaFreeHost", "cudaEventDestroy",
    "cudaStreamDestroy", "cudaGraphExecDestroy",
}  # fmt: skip


def cuda_runtime(machine: Machine) -> types.ModuleType:
    module = types.ModuleType("cuda.bindings.runtime")
    current = threading.local()
    device = machine.device

    class cudaError_t(enum.IntEnum):
        cudaSuccess = 0
        cudaErrorInvalidValue = 1
        cudaErrorMemoryAllocation = 2
        cudaErrorInsufficientDriver = 35
        cudaErrorNoDevice = 100
        cudaErrorInvalidDevice = 101
        cudaErrorInvalidResourceHandle = 400
        cudaErrorIllegalState = 401
        cudaErrorIllegalAddress = 700
        cudaErrorLaunchFailure = 719
        cudaErrorStreamCaptureUnsupported = 900
        cudaErrorStreamCaptureInvalidated = 901

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaStreamCaptureMode(enum.IntEnum):
        cudaStreamCaptureModeThreadLocal = 1

    class cudaDeviceProp:
        def __init__(self, gpu: FakeGpu) -> None:
            self.name = gpu.name.encode()
            self.major, self.minor = gpu.major, gpu.minor
            self.totalGlobalMem = gpu.memory_bytes

    ok = cudaError_t.cudaSuccess

    def cudaDriverGetVersion() -> tuple[Any, ...]:
        return ok, machine.driver_cuda

    def cudaRuntimeGetVersion() -> tuple[Any, ...]:
        return ok, machine.runtime_cuda

    def cudaGetDeviceCount() -> tuple[Any, ...]:
        if machine.driver_cuda < machine.runtime_cuda:
            return cudaError_t.cudaErrorInsufficientDriver, None
        return (ok, len(machine.gpus)) if machine.gpus else (cudaError_t.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(device: int) -> tuple[Any, ...]:
        if device >= len(machine.gpus):
            return cudaError_t.cudaErrorInvalidDevice, None
        return ok, cudaDeviceProp(machine.gpus[device])

    def cudaSetDevice(device: int) -> tuple[Any, ...]:
        if device >= len(machine.gpus):
            return (cudaError_t.cudaErrorInvalidDevice,)
        current.device = device
        return (ok,)

    def cudaMemGetInfo() -> tuple[Any, ...]:
        gpu = machine.gpus[getattr(current, "device", 0)]
        return ok, gpu.memory_bytes - sum(m.nbytes for m in device.memory.values()), gpu.memory_bytes

    def cudaMalloc(size: int) -> tuple[Any, ...]:
        if device.break_captures():
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        _, free_bytes, _ = cudaMemGetInfo()
        if size > free_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, None
        return ok, device.allocate(size, device.memory)

    def cudaFree(devPtr: int) -> tuple[Any, ...]:
        return (ok if device.free(devPtr, device.memory) else cudaError_t.cudaErrorInvalidValue,)

    def cudaHostAlloc(size: int, flags: int) -> tuple[Any, ...]:
        if device.break_captures():
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        if machine.pinnable_bytes is not None and size > machine.pinnable_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, None
        return ok, device.allocate(size, device.pinned)

    def cudaFreeHost(ptr: int) -> tuple[Any, ...]:
        return (ok if device.free(ptr, device.pinned) else cudaError_t.cudaErrorInvalidValue,)

    def cudaStreamCreateWithFlags(flags: int) -> tuple[Any, ...]:
        return ok, device.new_stream()

    def cudaStreamDestroy(stream: int) -> tuple[Any, ...]:
        return (ok if device.streams.pop(stream, None) else cudaError_t.cudaErrorInvalidResourceHandle,)

    def cudaMemcpyAsync(dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int) -> tuple[Any, ...]:
        if stream not in device.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        into = kind == cudaMemcpyKind.cudaMemcpyHostToDevice
        work = device.copy_in(dst, src, count) if into else device.copy_out(dst, src, count)
        if work is None:
            return (cudaError_t.cudaErrorInvalidValue,)
        device.put(stream, work)
        return (ok,)

    def cudaStreamSynchronize(stream: int) -> tuple[Any, ...]:
        if stream not in device.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        if device.streams[stream].captured is not None:
            device.streams[stream].broken = True
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        device.host_waits_for_stream(stream)
        return (ok,)

    def cudaEventCreateWithFlags(flags: int) -> tuple[Any, ...]:
        handle = device.new_handle()
        device.events[handle] = None
        return ok, handle

    def cudaEventDestroy(event: int) -> tuple[Any, ...]:
        known = event in device.events
        device.events.pop(event, None)
        return (ok if known else cudaError_t.cudaErrorInvalidResourceHandle,)

    def cudaEventRecord(event: int, stream: int) -> tuple[Any, ...]:
        if event not in device.events or stream not in device.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        device.events[event] = device.put(stream, Work("an event"))
        return (ok,)

    def cudaStreamWaitEvent(stream: int, event: int, flags: int) -> tuple[Any, ...]:
        if event not in device.events or stream not in device.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        recorded = device.events[event]
        if recorded is None:  # CUDA goes on at once, and the order is not there
            device.wrong("a stream waits for an event that nobody recorded")
        device.put(stream, Work("a stream waits"), (recorded,))
        return (ok,)

    def cudaEventSynchronize(event: int) -> tuple[Any, ...]:
        if event not in device.events:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        if machine.kernels_fail:
            return (cudaError_t.cudaErrorIllegalAddress,)
        if device.events[event] is None:
            device.wrong("the host waits for an event that nobody recorded")
        device.host_waits(device.events[event], "the host waits for an event")
        return (ok,)

    def cudaStreamBeginCapture(stream: int, mode: cudaStreamCaptureMode) -> tuple[Any, ...]:
        if stream not in device.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        return (ok if device.begin_capture(stream) else cudaError_t.cudaErrorIllegalState,)

    def cudaStreamEndCapture(stream: int) -> tuple[Any, ...]:
        graph = device.end_capture(stream)
        if graph is None:
            machine.last_error = cudaError_t.cudaErrorStreamCaptureInvalidated
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        return ok, graph

    def cudaGraphInstantiate(graph: int, flags: int) -> tuple[Any, ...]:
        handle = device.new_handle()
        device.executables[handle] = device.graphs[graph]
        return ok, handle

    def cudaGraphLaunch(graphExec: int, stream: int) -> tuple[Any, ...]:
        if graphExec not in device.executables or stream not in device.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        if machine.launch_fails:
            return (cudaError_t.cudaErrorLaunchFailure,)
        device.launch(graphExec, stream)
        return (ok,)

    def cudaGraphDestroy(graph: int) -> tuple[Any, ...]:
        return (ok if device.graphs.pop(graph, None) is not None else cudaError_t.cudaErrorInvalidValue,)

    def cudaGraphExecDestroy(graphExec: int) -> tuple[Any, ...]:
        return (ok if device.executables.pop(graphExec, None) is not None else cudaError_t.cudaErrorInvalidValue,)

    def cudaGetLastError() -> tuple[Any, ...]:
        error, machine.last_error = machine.last_error, None
        return (error or ok,)

    def cudaGetErrorString(error: cudaError_t) -> tuple[Any, ...]:
        return ok, error.name.removeprefix("cudaError").encode()

    def locked(function: Any) -> Any:
        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            with device.lock:
                if machine.gpu_is_lost and function.__name__ in AFTER_A_FAULT:
                    return (cudaError_t.cudaErrorIllegalAddress,)
                return function(*arguments)

        return call

    module.cudaStreamNonBlocking, module.cudaHostAllocDefault, module.cudaEventDisableTiming = 1, 0, 2
    for name, thing in list(locals().items()):
        if name.startswith("cuda"):
            setattr(module, name, thing if isinstance(thing, type) else locked(thing))
    return module
