"""The progress of a training, on one line of a terminal; in a file or a pipe, a line now and then."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TextIO

_TERMINAL_SECONDS = 0.1
_FILE_SECONDS = 15.0
_BAR = 12


@dataclass(frozen=True)
class StepReport:
    """Where a training stands.

    Args:
        step, steps: steps made, and asked for.
        images: real images seen.
        loss_d, loss_g: the losses of the step.
        d_real, d_fake: mean D(x) over its real and its generated images: probabilities of being real.
        seconds: training time of this run so far, before an interruption included.
        images_per_second: of this step and those since the last report.
    """

    step: int
    steps: int
    images: int
    loss_d: float
    loss_g: float
    d_real: float
    d_fake: float
    seconds: float
    images_per_second: float


class ProgressLine:
    """An `on_step` for `gantrain.loop.train` that shows progress on a stream, usually standard error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._on_terminal = stream.isatty()
        self._shown_at = -float("inf")
        self._rate = 0.0
        self._open = False

    def __call__(self, report: StepReport) -> None:
        # Averaged over some twenty reports, so that the remaining time does not jump.
        self._rate += (report.images_per_second - self._rate) * (0.05 if self._rate else 1.0)
        now = time.monotonic()
        interval = _TERMINAL_SECONDS if self._on_terminal else _FILE_SECONDS
        if now - self._shown_at < interval and report.step < report.steps:
            return
        self._shown_at = now
        text = self._text(report)
        if self._on_terminal:
            width = shutil.get_terminal_size().columns
            self._stream.write("\r" + text[: width - 1].ljust(width - 1))
            self._open = True
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the line, so that what is written next begins on its own."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False

    def _text(self, report: StepReport) -> str:
        images_per_step = report.images / max(1, report.step)
        remaining = (report.steps - report.step) * images_per_step / max(self._rate, 1e-9)
        filled = _BAR * report.step // max(1, report.steps)
        bar = f"[{'#' * filled}{'-' * (_BAR - filled)}] " if self._on_terminal else "step "
        # What may be cut off in a narrow terminal comes last.
        return (
            f"{bar}{report.step}/{report.steps}  {_duration(remaining)} left  "
            f"loss D {report.loss_d:.3f} G {report.loss_g:.3f}  D(x) {report.d_real:.2f} D(G(z)) {report.d_fake:.2f}  "
            f"{self._rate:,.0f} images/s"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"
