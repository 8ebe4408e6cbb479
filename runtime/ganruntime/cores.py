"""How many cores this process may really use: the affinity mask and the cgroup's quota, not the machine's size."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cores() -> int:
    """Cores for compute threads: the smaller of the affinity mask and the CPU quota (rounded down), at least 1.

    ONNX Runtime counts the machine's cores by default, and under a quota its threads then fight for the few they have
    (microsoft/onnxruntime#8313).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(Path("/"))
    return max(1, min(allowed, math.floor(quota))) if quota else allowed


def _cgroup_quota(root: Path) -> float | None:
    """The tightest CPU quota, in cores, of this process's cgroup and those above it; None where there is none."""
    quotas = [*_quotas_v2(root), *_quotas_v1(root)]
    return min(quotas) if quotas else None


def _quotas_v2(root: Path) -> list[float]:
    quotas: list[float] = []
    for folder in _own_and_above(root, "", root / "sys/fs/cgroup"):
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return quotas


def _quotas_v1(root: Path) -> list[float]:
    quotas: list[float] = []
    for folder in _own_and_above(root, "cpu", root / "sys/fs/cgroup/cpu"):
        quota, period = _words(folder / "cpu.cfs_quota_us"), _words(folder / "cpu.cfs_period_us")
        if quota and period and quota[0].isdigit() and period[0].isdigit() and int(period[0]):
            quotas.append(int(quota[0]) / int(period[0]))
    return quotas


def _own_and_above(root: Path, controller: str, mount: Path) -> list[Path]:
    """The folders of this process's cgroup, from its own up to the mount point."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            own = mount / path.lstrip("/")
            return [own, *(p for p in own.parents if p == mount or mount in p.parents)]
    # In a container the process's own path is often not visible below the mount, and the mount itself is the group.
    return [mount]


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
