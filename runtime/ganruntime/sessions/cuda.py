"""The few calls of the CUDA runtime that a TensorRT session needs, through cuda-python, each one checked.

Nothing here is imported before it is called: without the extra `trt` the first call is a `MissingDependencyError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ganruntime.errors import DeviceError, EngineError, MissingDependencyError

if TYPE_CHECKING:
    from cuda.bindings import runtime as cudart

# Text of the kernel module, the only place that holds the driver's own version (580.65.06) without NVML.
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_DRIVER_VERSION = re.compile(r"(?:Kernel Module|NVRM version:).*?\s(\d+\.\d+(?:\.\d+)?)\s")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU and the software under it, as a manifest records them.

    compute_capability: "9.0". driver_version: "580.65.06", or "unknown" where the kernel module does not say.
    driver_cuda: the newest CUDA that the driver runs, "13.0". runtime_cuda: the CUDA that cuda-python brings.
    """

    index: int
    name: str
    compute_capability: str
    memory_bytes: int
    driver_version: str
    driver_cuda: str
    runtime_cuda: str

    @property
    def architecture(self) -> str:
        """`sm90` for compute capability 9.0."""
        return "sm" + self.compute_capability.replace(".", "")


def require_cuda() -> None:
    """Raises `MissingDependencyError` where cuda-python is not installed or does not load."""
    try:
        from cuda.bindings import runtime as cudart  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "cuda-python is not installed, and TensorRT needs it for device memory and streams",
            got=str(error),
            remedy='pip install "ganexport[trt]"',
        ) from error


def gpu_from_index(index: int) -> Gpu:
    """Describes GPU `index`.

    Raises:
        MissingDependencyError: cuda-python is not installed.
        DeviceError: there is no driver, it is too old, or there is no such GPU.
    """
    require_cuda()
    from cuda.bindings import runtime as cudart

    error, driver_cuda = cudart.cudaDriverGetVersion()
    _require(error, "ask for the driver's version")
    if driver_cuda == 0:
        raise DeviceError(
            "no NVIDIA driver was found",
            expected="an NVIDIA GPU with its driver; in a container, one started with --gpus all",
            remedy="run `nvidia-smi`: it must list the GPU",
        )
    error, runtime_cuda = cudart.cudaRuntimeGetVersion()
    _require(error, "ask for the CUDA runtime's version")
    error, count = cudart.cudaGetDeviceCount()
    if error == cudart.cudaError_t.cudaErrorInsufficientDriver:
        raise DeviceError(
            "the NVIDIA driver is older than cuda-python",
            got=f"a driver for CUDA {_version(driver_cuda)}",
            expected=f"a driver for CUDA {_version(runtime_cuda)}",
            remedy=f'update the driver, or pip install "cuda-python=={driver_cuda // 1000}.*"',
        )
    if error == cudart.cudaError_t.cudaErrorNoDevice or (error == cudart.cudaError_t.cudaSuccess and count == 0):
        raise DeviceError(
            "no NVIDIA GPU was found: the driver is there, and lists none",
            remedy="run `nvidia-smi`; if it lists one, see whether CUDA_VISIBLE_DEVICES hides it",
        )
    _require(error, "count the GPUs")
    if not 0 <= index < count:
        raise DeviceError(
            f"there is no GPU {index}", got=index, expected=f"0 to {count - 1}" if count > 1 else "0, the only one"
        )
    error, properties = cudart.cudaGetDeviceProperties(index)
    _require(error, f"describe GPU {index}")
    return Gpu(
        index=index,
        name=properties.name.decode(errors="replace"),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_bytes=int(properties.totalGlobalMem),
        driver_version=driver_version(),
        driver_cuda=_version(driver_cuda),
        runtime_cuda=_version(runtime_cuda),
    )


def use_gpu(index: int) -> None:
    """Makes GPU `index` current for the calling thread: CUDA keeps the current device per thread."""
    from cuda.bindings import runtime as cudart

    (error,) = cudart.cudaSetDevice(index)
    _require(error, f"use GPU {index}")


def free_memory_bytes() -> tuple[int, int]:
    """(free, total) bytes of the current GPU's memory."""
    from cuda.bindings import runtime as cudart

    error, free_bytes, total_bytes = cudart.cudaMemGetInfo()
    _require(error, "ask for the free memory")
    return int(free_bytes), int(total_bytes)


class DeviceBuffer:
    """`size_bytes` of the current GPU's memory at `address`, until `free`."""

    def __init__(self, size_bytes: int) -> None:
        from cuda.bindings import runtime as cudart

        self.size_bytes = size_bytes
        self.address = 0
        error, address = cudart.cudaMalloc(size_bytes)
        _require(error, f"allocate {size_bytes / 2**20:.1f} MiB on the GPU")
        self.address = int(address)

    def free(self) -> None:
        """Gives the memory back; a second call does nothing."""
        if self.address:
            from cuda.bindings import runtime as cudart

            address, self.address = self.address, 0
            (error,) = cudart.cudaFree(address)
            _require(error, "free memory of the GPU")


class Stream:
    """A CUDA stream of its own; `handle` is what TensorRT takes. Copies and kernels on it run in order."""

    def __init__(self) -> None:
        from cuda.bindings import runtime as cudart

        self.handle = 0
        # Non-blocking: not ordered after what other libraries put on the default stream.
        error, stream = cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking)
        _require(error, "create a stream")
        self.handle = int(stream)

    def copy_to_device(self, buffer: DeviceBuffer, array: NDArray[Any]) -> None:
        """Enqueues host → device; `array` is C-contiguous and must stay until `wait`."""
        from cuda.bindings import runtime as cudart

        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        (error,) = cudart.cudaMemcpyAsync(buffer.address, array.ctypes.data, array.nbytes, kind, self.handle)
        _require(error, f"copy {array.nbytes} bytes to the GPU")

    def copy_to_host(self, array: NDArray[Any], buffer: DeviceBuffer) -> None:
        """Enqueues device → host; `array` is C-contiguous, and holds the values after `wait`."""
        from cuda.bindings import runtime as cudart

        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        (error,) = cudart.cudaMemcpyAsync(array.ctypes.data, buffer.address, array.nbytes, kind, self.handle)
        _require(error, f"copy {array.nbytes} bytes from the GPU")

    def wait(self) -> None:
        """Blocks until everything enqueued has run. An error of a kernel surfaces here."""
        from cuda.bindings import runtime as cudart

        (error,) = cudart.cudaStreamSynchronize(self.handle)
        _require(error, "finish the work on the GPU")

    def destroy(self) -> None:
        """Gives the stream back; a second call does nothing."""
        if self.handle:
            from cuda.bindings import runtime as cudart

            handle, self.handle = self.handle, 0
            (error,) = cudart.cudaStreamDestroy(handle)
            _require(error, "destroy a stream")


def _require(error: cudart.cudaError_t, doing: str) -> None:
    from cuda.bindings import runtime as cudart

    if error == cudart.cudaError_t.cudaSuccess:
        return
    _, text = cudart.cudaGetErrorString(error)
    got = f"{error.name}: {text.decode(errors='replace')}" if text else error.name
    if error == cudart.cudaError_t.cudaErrorMemoryAllocation:
        raise EngineError(
            f"the GPU is out of memory: cannot {doing}",
            got=got,
            remedy="run `nvidia-smi` to see who holds it, or build with a smaller largest batch: to-trt --batch 1,8",
        )
    raise DeviceError(f"cannot {doing}", got=got, remedy="run `nvidia-smi` to see whether the GPU is well")


def _version(number: int) -> str:
    """13000 -> 13.0, 12090 -> 12.9: CUDA's own encoding, major · 1000 + minor · 10."""
    return f"{number // 1000}.{number % 1000 // 10}"


def driver_version() -> str:
    """The driver's own version, such as `580.65.06`; `unknown` where the kernel module does not say."""
    try:
        match = _DRIVER_VERSION.search(_DRIVER_FILE.read_text(errors="replace"))
    except OSError:
        return "unknown"
    return match[1] if match else "unknown"
