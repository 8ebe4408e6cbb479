"""The environment of a measurement: the machine, what this process may use of it, and every library that counts."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ganruntime import __version__
from ganruntime.cores import usable_cores
from ganruntime.machine import cpu_field, instruction_sets

_LIBRARIES = (
    "numpy", "pillow", "torch", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt",
    "scikit-learn", "matplotlib",
)  # fmt: skip
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "KMP_AFFINITY", "KMP_BLOCKTIME", "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Everything, as plain data. What this system does not say is null."""
    return {
        "time_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": {
            "model": cpu_field("model name") or platform.processor() or None,
            "architecture": platform.machine(),
            "instruction_sets": instruction_sets(),
            "cores_online": os.cpu_count(),
            "cores_usable": usable_cores(),
            "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "governor": _text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        },
        "memory_bytes": _memory_bytes(),
        "gpus": gpus(),
        "system": {"platform": platform.platform(), "distribution": _distribution()},
        "versions": {
            "python": platform.python_version(),
            "ganexport": __version__,
            **{name: version for name in _LIBRARIES if (version := _version(name))},
        },
        "variables": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        "commit": commit(Path(__file__).parent),
    }


def lines_from_environment(record: dict[str, Any]) -> list[str]:
    """The record in a few lines for a terminal or a report."""
    cpu, versions = record["cpu"], record["versions"]
    sets = [s for s in ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd", "sve") if s in cpu["instruction_sets"]]
    lines = [
        f"{cpu['model'] or cpu['architecture']}, {cpu['cores_usable']} of {cpu['cores_online']} cores usable"
        + (f" ({', '.join(sets)})" if sets else "")
        + (f", governor {cpu['governor']}" if cpu["governor"] else "")
        + (f", load {cpu['load_average'][0]:.1f}" if cpu["load_average"] else "")
    ]
    lines += [f"{gpu['name']}, driver {gpu['driver']}" for gpu in record["gpus"]]
    lines.append(record["system"]["distribution"] or record["system"]["platform"])
    lines.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    if record["commit"]:
        lines.append(
            f"commit {record['commit']['id'][:12]}" + (", with changes" if record["commit"]["changed"] else "")
        )
    return lines


def gpus() -> list[dict[str, str]]:
    """The NVIDIA GPUs that the driver shows: name, driver, memory; none without a driver."""
    answer = _output(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
    found = []
    for line in (answer or "").splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3:
            found.append({"name": parts[0], "driver": parts[1], "memory": parts[2]})
    return found


def commit(folder: Path) -> dict[str, Any] | None:
    """The git commit of a checkout that tracks `folder`, and whether tracked files were changed; None elsewhere."""
    # An installed copy may lie below somebody else's repository, in a virtual environment that is ignored there.
    if _output(["git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py"]) is None:
        return None
    found = _output(["git", "-C", str(folder), "rev-parse", "HEAD"])
    if not found:
        return None
    changed = _output(["git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    return {"id": found.strip(), "changed": bool(changed and changed.strip())}


def _output(command: Sequence[str]) -> str | None:
    """What a command prints; None where it is not installed, fails, or takes longer than ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None
