"""Ctrl-C and SIGTERM as a wish that is granted after the current step."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType


class TrainingStopped(KeyboardInterrupt):
    """Training was stopped by a signal, and has left a checkpoint.

    Attributes:
        run: the run folder, from which `resume=True` goes on.
        step: steps made.
        signal_number: SIGINT or SIGTERM.
    """

    def __init__(self, run: Path, step: int, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.run = run
        self.step = step
        self.signal_number = signal_number


class StopSignals:
    """A context in which the first SIGINT or SIGTERM only sets `received`; a second one acts as it always does.

    Outside the main thread, where Python delivers no signals, it does nothing.

    Args:
        patient: later ones change nothing either: torchrun passes a signal on, perhaps one that has come already, and
            ends by force what does not end within half a minute.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._patient = patient
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if not self._patient:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()
