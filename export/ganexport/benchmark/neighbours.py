"""Neighbours: how much of this process's cores others took while it measured.

It decides whether a time means anything. PyTorch's OpenMP threads (libgomp) spin at every barrier for one that was
descheduled: on two cores with two busy neighbours an eager DCGAN was seen to take 148 ms for an image that takes it
1.3 ms with OMP_WAIT_POLICY=passive, and 1.0 ms with one thread.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

QUIET_SHARE = 0.05


@dataclass(frozen=True)
class Neighbours:
    """The share of the usable cores' time that went to others, in [0, 1]; None where the system does not say."""

    share: float | None

    @property
    def quiet(self) -> bool:
        """Whether the figures can be taken at face value. A system that does not say is taken at its word."""
        return self.share is None or self.share <= QUIET_SHARE

    def sentence(self) -> str:
        if self.share is None:
            return "this system does not say what other processes took"
        if self.quiet:
            return f"other processes took {self.share:.0%} of the cores"
        return (
            f"NOT A QUIET MACHINE: other processes took {self.share:.0%} of the cores while this was measured; "
            f"close them and measure again before you quote a figure"
        )


class NeighbourWatch:
    """Counts from its creation to `found`. Time stolen by a hypervisor counts as the neighbours'."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._busy, self._own, self._clock = self._now()

    def found(self) -> Neighbours:
        busy, own, clock = self._now()
        if busy is None or self._busy is None or clock <= self._clock:
            return Neighbours(None)
        elapsed = (clock - self._clock) * len(self._cores)
        return Neighbours(min(1.0, max(0.0, (busy - self._busy) - (own - self._own)) / elapsed))

    def _now(self) -> tuple[float | None, float, float]:
        """(busy seconds of our cores, our own CPU seconds, the clock)."""
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return self._busy_seconds(), own, time.perf_counter()

    def _busy_seconds(self) -> float | None:
        try:
            lines = self._stat.read_text().splitlines()
            tick = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError):
            return None
        wanted = {f"cpu{core}" for core in self._cores}
        busy, seen = 0, 0
        for line in lines:
            name, *fields = line.split()
            if name in wanted and len(fields) >= 8 and all(f.isdigit() for f in fields[:8]):
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
                busy += user + nice + system + irq + softirq + steal
                seen += 1
        return busy / tick if seen and seen == len(wanted) else None
