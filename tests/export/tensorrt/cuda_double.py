"""A behavioural double of `cuda.bindings.runtime`: exactly the calls that we make, on host memory.

Memory is known by address and bounds, and never zero; a stream runs nothing before it is waited for.
"""

from __future__ import annotations

import ctypes
import enum
import threading
import types
from typing import Any

import numpy as np
from imaginary_machine import FakeGpu, Machine


def cuda_runtime(machine: Machine) -> types.ModuleType:
    module = types.ModuleType("cuda.bindings.runtime")
    current = threading.local()

    class cudaError_t(enum.IntEnum):
        cudaSuccess = 0
        cudaErrorInvalidValue = 1
        cudaErrorMemoryAllocation = 2
        cudaErrorInsufficientDriver = 35
        cudaErrorNoDevice = 100
        cudaErrorInvalidDevice = 101
        cudaErrorInvalidResourceHandle = 400

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

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
        return ok, gpu.memory_bytes - sum(a.nbytes for a in machine.allocations.values()), gpu.memory_bytes

    def cudaMalloc(size: int) -> tuple[Any, ...]:
        _, free_bytes, _ = cudaMemGetInfo()
        if size > free_bytes:
            return cudaError_t.cudaErrorMemoryAllocation, None
        memory = np.full(size, 0xA5, np.uint8)  # never zero, so that unwritten memory shows
        machine.allocations[memory.ctypes.data] = memory
        return ok, memory.ctypes.data

    def cudaFree(devPtr: int) -> tuple[Any, ...]:
        if machine.allocations.pop(devPtr, None) is None:
            return (cudaError_t.cudaErrorInvalidValue,)
        return (ok,)

    def cudaStreamCreateWithFlags(flags: int) -> tuple[Any, ...]:
        handle = 0x5000 + len(machine.streams)
        machine.streams[handle] = []
        return ok, handle

    def cudaStreamDestroy(stream: int) -> tuple[Any, ...]:
        if machine.streams.pop(stream, None) is None:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        return (ok,)

    def cudaMemcpyAsync(dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int) -> tuple[Any, ...]:
        device = dst if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else src
        if device not in machine.allocations or machine.allocations[device].nbytes < count:
            return (cudaError_t.cudaErrorInvalidValue,)
        machine.streams[stream].append(lambda: ctypes.memmove(dst, src, count))
        return (ok,)

    def cudaStreamSynchronize(stream: int) -> tuple[Any, ...]:
        if stream not in machine.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        queued, machine.streams[stream] = machine.streams[stream], []
        for work in queued:
            work()
        return (ok,)

    def cudaGetErrorString(error: cudaError_t) -> tuple[Any, ...]:
        return ok, error.name.removeprefix("cudaError").encode()

    module.cudaStreamNonBlocking = 1
    for thing in (
        cudaError_t,
        cudaMemcpyKind,
        cudaDeviceProp,
        cudaDriverGetVersion,
        cudaRuntimeGetVersion,
        cudaGetDeviceCount,
        cudaGetDeviceProperties,
        cudaSetDevice,
        cudaMemGetInfo,
        cudaMalloc,
        cudaFree,
        cudaStreamCreateWithFlags,
        cudaStreamDestroy,
        cudaMemcpyAsync,
        cudaStreamSynchronize,
        cudaGetErrorString,
    ):
        setattr(module, thing.__name__, thing)
    return module
