"""An NVIDIA GPU, as the CUDA runtime tells of it through cuda-python, and what its errors mean.

Nothing here is imported before it is called: without the extra `trt` the first call is a `MissingDependencyError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
    require_success(error, "ask for the driver's version")
    if driver_cuda == 0:
        raise DeviceError(
            "no NVIDIA driver was found",
            expected="an NVIDIA GPU with its driver; in a container, one started with --gpus all",
            remedy="run `nvidia-smi`: it must list the GPU",
        )
    error, runtime_cuda = cudart.cudaRuntimeGetVersion()
    require_success(error, "ask for the CUDA runtime's version")
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
    require_success(error, "count the GPUs")
    if not 0 <= index < count:
        raise DeviceError(
            f"there is no GPU {index}", got=index, expected=f"0 to {count - 1}" if count > 1 else "0, the only one"
        )
    error, properties = cudart.cudaGetDeviceProperties(index)
    require_success(error, f"describe GPU {index}")
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
    require_success(error, f"use GPU {index}")


def free_memory_bytes() -> tuple[int, int]:
    """(free, total) bytes of the current GPU's memory."""
    from cuda.bindings import runtime as cudart

    error, free_bytes, total_bytes = cudart.cudaMemGetInfo()
    require_success(error, "ask for the free memory")
    return int(free_bytes), int(total_bytes)


def require_success(error: cudart.cudaError_t, doing: str) -> None:
    """Raises what a call of CUDA ended in.

    Args:
        doing: what was tried, as in "cannot {doing}".

    Raises:
        EngineError: the GPU, or the memory that it shares with the host, is full.
        DeviceError: anything else.
    """
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
