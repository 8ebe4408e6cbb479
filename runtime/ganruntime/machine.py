"""This machine, as far as the speed of a generator depends on it, and the versions of the backends that are here."""

from __future__ import annotations

import functools
import platform
from importlib import import_module, metadata
from pathlib import Path

from ganruntime.bundle.tuning import Machine
from ganruntime.cores import usable_cores
from ganruntime.sessions.cuda import driver_version
from ganruntime.sessions.devices import gpu_name, parse_device

# Those that decide how fast a float32 or int8 product is.
INSTRUCTION_SETS = (
    "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
    "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
_CPU_FILE = Path("/proc/cpuinfo")
# What a backend's module is installed by: asking the installer's records imports nothing, and OpenVINO takes 0.3 s.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
}


def this_machine(device: str) -> Machine:
    """The machine that a generator on `device` (`cpu`, `cuda`, `cuda:N`) runs on.

    The cores are those that this process may use: with another quota it is another machine. The GPU is that of the
    index, and stands only where it runs.
    """
    kind, index = parse_device(device)
    on_gpu = kind == "cuda"
    return Machine(
        device=kind,
        cpu=cpu_field("model name") or platform.processor() or "unknown",
        architecture=platform.machine(),
        instruction_sets=tuple(sorted(instruction_sets())),
        cores=usable_cores(),
        gpu=gpu_name(index) if on_gpu else "",
        driver=driver_version() if on_gpu else "",
    )


def differences(then: Machine, now: Machine) -> list[str]:
    """In what two machines differ, a few words each: `8 cores then, 2 here`."""
    found = []
    for name in ("device", "cpu", "architecture", "cores", "gpu", "driver"):
        a, b = getattr(then, name), getattr(now, name)
        if a != b:
            found.append(f"{name} {a or 'none'} then, {b or 'none'} here")
    gone = sorted(set(then.instruction_sets) - set(now.instruction_sets))
    new = sorted(set(now.instruction_sets) - set(then.instruction_sets))
    found += [f"without {', '.join(gone)} here"] if gone else []
    found += [f"{', '.join(new)} here only"] if new else []
    return found


@functools.cache
def backend_version(backend: str) -> str:
    """The version of a backend's module that is installed, by the installer's records, else by the module itself."""
    if backend == "onnxruntime-tensorrt":
        return f"{backend_version('onnxruntime')} with {backend_version('tensorrt')}"
    for distribution in _DISTRIBUTIONS[backend]:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return str(import_module(backend).__version__)


def cpu_field(field: str) -> str | None:
    """A field of /proc/cpuinfo, of the first processor; None where this system has none."""
    try:
        text = _CPU_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == field:
            return value.strip() or None
    return None


def instruction_sets() -> list[str]:
    """Those of `INSTRUCTION_SETS` that this processor has, in that order."""
    flags = set((cpu_field("flags") or cpu_field("Features") or "").split())
    return [name for name in INSTRUCTION_SETS if name in flags]
