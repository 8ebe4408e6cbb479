"""Page-locked memory of the host, and copies between it and a GPU, through the NVIDIA driver itself.

For libraries that hold the GPU's memory themselves and say only where it is. Needs the driver and no package: ONNX
Runtime comes without cuda-python.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ganruntime.errors import BackendError
from ganruntime.sessions.devices import cuda_driver

_PORTABLE = 1  # CU_MEMHOSTALLOC_PORTABLE: pinned for every context


class CudaMemory:
    """The primary context of one GPU, which CUDA's runtime and so ONNX Runtime use too.

    A context is current per thread: whatever is called here makes it so first.
    """

    def __init__(self, index: int) -> None:
        """Raises `BackendError` where the driver does not give it."""
        driver = cuda_driver()
        if driver is None:
            raise BackendError("no NVIDIA driver answers", remedy="run `nvidia-smi`: it must list the GPU")
        self._driver: Any = driver
        self._device, self._context = ctypes.c_int(0), ctypes.c_void_p(None)
        self._require(driver.cuDeviceGet(ctypes.byref(self._device), index), f"find GPU {index}")
        self._require(driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), self._device), f"open GPU {index}")

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> PinnedArray:
        """An array in page-locked memory, until it is freed."""
        self._use()
        size = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        address = ctypes.c_void_p(None)
        code = self._driver.cuMemHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE))
        self._require(code, f"pin {size / 2**20:.1f} MiB of the host's memory")
        return PinnedArray(self, int(address.value or 0), size, shape, dtype)

    def free(self, address: int) -> None:
        self._use()
        self._require(self._driver.cuMemFreeHost(ctypes.c_void_p(address)), "free pinned memory")

    def copy_to_device(self, address: int, array: NDArray[np.generic]) -> None:
        """Copies a C-contiguous array to the GPU's memory at `address`; done when it returns."""
        self._use()
        code = self._driver.cuMemcpyHtoD_v2(
            ctypes.c_uint64(address), ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        )
        self._require(code, f"copy {array.nbytes:,} bytes to the GPU")

    def copy_to_host(self, array: NDArray[np.generic], address: int) -> None:
        """The other way round."""
        self._use()
        code = self._driver.cuMemcpyDtoH_v2(
            ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes)
        )
        self._require(code, f"copy {array.nbytes:,} bytes from the GPU")

    def close(self) -> None:
        """Gives the context back. Calling it twice is harmless."""
        if self._context.value is not None:
            self._context = ctypes.c_void_p(None)
            self._driver.cuDevicePrimaryCtxRelease_v2(self._device)

    def _use(self) -> None:
        self._require(self._driver.cuCtxSetCurrent(self._context), "use the GPU")

    def _require(self, code: int, doing: str) -> None:
        if code != 0:
            name = ctypes.c_char_p(None)
            self._driver.cuGetErrorName(code, ctypes.byref(name))
            text = (name.value or b"").decode(errors="replace") or f"error {code}"
            raise BackendError(f"the NVIDIA driver could not {doing}", got=text)


class PinnedArray:
    """`array`, in page-locked memory; it must not be used after `free`."""

    def __init__(self, memory: CudaMemory, address: int, size: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._memory, self._address = memory, address
        whole = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        count = math.prod(shape) * np.dtype(dtype).itemsize
        self.array: NDArray[np.generic] = whole[:count].view(dtype).reshape(shape)

    def free(self) -> None:
        """Calling it twice is harmless."""
        if self._address:
            address, self._address = self._address, 0
            self.array = self.array[:0].copy()
            self._memory.free(address)
