"""How far a build is: TensorRT's nested phases as one fraction, shown as a bar, and stopped by Ctrl-C."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import tensorrt as trt

# (fraction done in [0, 1], innermost phase)
OnProgress = Callable[[float, str], None]


@dataclass
class _Phase:
    name: str
    parent: str | None
    steps: int
    done: int = 0
    children: dict[str, _Phase] = field(default_factory=dict)

    def fraction(self) -> float:
        """Steps done over steps, the one under way counted by how far its own phases are."""
        under_way = max((child.fraction() for child in self.children.values()), default=0.0)
        return min(1.0, (self.done + under_way) / max(1, self.steps))


class PhaseTree:
    """TensorRT's phases: each has steps, a step may hold a phase. Called from several threads at once.

    `fraction` never falls: TensorRT may open a phase again, and a bar that runs backwards tells nobody anything.
    """

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        self.cancelled = threading.Event()
        self.fraction = 0.0
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._phases: dict[str, _Phase] = {}

    def cancel(self) -> None:
        """Asks TensorRT to stop the build at its next step, and says so where progress is shown."""
        self.cancelled.set()
        with self._lock:
            self._report("")

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            phase = _Phase(name, parent, steps)
            self._phases[name] = phase
            if parent in self._phases:
                self._phases[parent].children[name] = phase
            self._report(name)

    def step(self, name: str, step: int) -> bool:
        """Step `step` (from 0) of a phase is done. False asks TensorRT to stop the build."""
        with self._lock:
            if name in self._phases:
                phase = self._phases[name]
                phase.done = max(phase.done, step + 1)
                phase.children.clear()
            self._report(name)
        return not self.cancelled.is_set()

    def finish(self, name: str) -> None:
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None:
                phase.done = phase.steps
                if phase.parent is None:
                    self.fraction = max(self.fraction, 1.0 if not self._phases else self.fraction)
            self._report(name)

    def _report(self, name: str) -> None:
        roots = [p.fraction() for p in self._phases.values() if p.parent not in self._phases]
        self.fraction = max(self.fraction, min(roots, default=self.fraction))
        if self._on_progress is not None:
            self._on_progress(self.fraction, "stopping at the next step" if self.cancelled.is_set() else name)


def monitor_from_phases(phases: PhaseTree) -> trt.IProgressMonitor:
    """The `IProgressMonitor` that feeds `phases`. Keep it until the build has ended: TensorRT does not."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        # Called from C++, which an exception would end: a broken terminal must not break a build.
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with contextlib.suppress(Exception):
                phases.start(phase_name, parent_phase, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            with contextlib.suppress(Exception):
                phases.finish(phase_name)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with contextlib.suppress(Exception):
                return phases.step(phase_name, step)
            return not phases.cancelled.is_set()

    return Monitor()


class ProgressBar:
    """One line on a terminal, rewritten at most ten times a second; nothing where the stream is not a terminal."""

    _WIDTH = 30
    _INTERVAL_S = 0.1

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream.isatty()
        self._started_s = time.monotonic()
        self._next_s = 0.0
        self._length = 0

    def update(self, fraction: float, phase: str) -> None:
        now_s = time.monotonic()
        if not self._shown or (now_s < self._next_s and fraction < 1.0):
            return
        self._next_s = now_s + self._INTERVAL_S
        full = int(fraction * self._WIDTH)
        bar = "#" * full + "-" * (self._WIDTH - full)
        line = f"{self._label} [{bar}] {fraction:4.0%} {now_s - self._started_s:5.0f} s  {phase[:40]}"
        # A line that wraps could not be rewritten.
        line = line[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + line.ljust(self._length))
        self._stream.flush()
        self._length = len(line)

    def close(self) -> None:
        """Removes the line, so that what follows starts on a clean one."""
        if self._shown and self._length:
            self._stream.write("\r" + " " * self._length + "\r")
            self._stream.flush()
            self._length = 0
