"""Devices by name, and whether a GPU answers; without any library of a backend."""

from __future__ import annotations

import ctypes
import re
import sys

from ganruntime.errors import DeviceError, InputError


def parse_device(device: str) -> tuple[str, int]:
    """`cpu`, `cuda` or `cuda:N` as (kind, index). Raises `InputError`."""
    match = re.fullmatch(r"(cpu|cuda)(?::([0-9]{1,4}))?", device) if isinstance(device, str) else None
    if match is None or (match[1] == "cpu" and match[2]):
        raise InputError(f"{device!r} is not a device", expected="auto, cpu, cuda or cuda:N")
    return match[1], int(match[2] or 0)


def gpu_count() -> int:
    """GPUs that the NVIDIA driver shows to this process; 0 without a driver."""
    driver = cuda_driver()
    count = ctypes.c_int(0)
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def gpu_name(index: int) -> str:
    """The name of GPU `index` as the driver gives it, such as `NVIDIA H100 80GB HBM3`. Raises `DeviceError`."""
    driver = cuda_driver()
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
    if (
        driver is None
        or driver.cuDeviceGet(ctypes.byref(device), index) != 0
        or driver.cuDeviceGetName(name, len(name), device) != 0
    ):
        raise DeviceError(
            f"there is no GPU {index}", got=f"{gpu_count()} GPU(s)", remedy="run `nvidia-smi`: it must list the GPU"
        )
    return name.value.decode(errors="replace")


def cuda_driver() -> ctypes.CDLL | None:
    """The NVIDIA driver's library, ready for calls; None where there is none or it does not start."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    return driver if driver.cuInit(0) == 0 else None
