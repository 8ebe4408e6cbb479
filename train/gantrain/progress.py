"""The progress of a training, on one line of a terminal; in a file or a pipe, a line now and then."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from gantrain.diagnosis import Change

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
        d_real, d_fake: mean D(x) over its real and its generated images: probabilities of being real where the
            objective has them, what D gives otherwise.
        d_accuracy: share in [0, 1] of its real and generated images that D tells rightly.
        seconds: training time of this run so far, before an interruption included.
        images_per_second: of this step and those since the last report.
        gradient_d, gradient_g: norms of the two networks' gradients, in the steps that are logged; None in others.
        diversity: how varied the generated batch is against the real one (`gantrain.samples`), likewise.
        metrics: the averaged generator's figures, {`fid[SPACE]`: value}, in the steps that are scored; None in others.
        best_step: the step whose generator scored best so far; None before the first score.
        change: what this step has changed of the diagnosis, in the steps that are logged.
    """

    step: int
    steps: int
    images: int
    loss_d: float
    loss_g: float
    d_real: float
    d_fake: float
    d_accuracy: float
    seconds: float
    images_per_second: float
    gradient_d: float | None = None
    gradient_g: float | None = None
    diversity: float | None = None
    metrics: Mapping[str, float] | None = None
    best_step: int | None = None
    change: Change | None = None

    @property
    def d_score(self) -> float:
        """What the discriminator maximises: minus its loss, -2·log 2 = -1.386 where it guesses (log losses only)."""
        return -self.loss_d

    def to_log(self) -> dict[str, Any]:
        """A line of log.jsonl, with "metrics" and "diagnosis" where there are any; all but its times repeats.

        What is not finite is null: JSON has no word for it.
        """
        scored = {} if self.metrics is None else {"metrics": {k: _finite(v) for k, v in self.metrics.items()}}
        diagnosed = {"diagnosis": self.change.to_json()} if self.change else {}
        return {
            "step": self.step,
            "images": self.images,
            "loss_d": _finite(self.loss_d),
            "loss_g": _finite(self.loss_g),
            "d_real": _finite(self.d_real),
            "d_fake": _finite(self.d_fake),
            "d_accuracy": self.d_accuracy,
            "d_score": _finite(self.d_score),
            "gradient_d": _finite(self.gradient_d),
            "gradient_g": _finite(self.gradient_g),
            "diversity": _finite(self.diversity),
            **scored,
            **diagnosed,
            "timing": {
                "seconds": round(self.seconds, 3),
                "images_per_second": round(self.images_per_second, 1),
            },
        }


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
        if report.metrics:
            self._line(_metrics_text(report))
        for finding in report.change.began if report.change else ():
            self._line(f"step {finding.step}: {finding.title}: {finding.what}")
            for remedy in finding.remedies:
                self._line(f"  try {remedy}")
        for name in report.change.ended if report.change else ():
            self._line(f"step {report.step}: {name} has passed")
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

    def _line(self, text: str) -> None:
        """A line that stays, above the one that is written over."""
        if self._open:
            self._stream.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
        self._stream.write(text + "\n")
        self._stream.flush()
        self._open = False

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
            f"{bar}{report.step}/{report.steps}  {duration(remaining)} left  "
            f"loss D {report.loss_d:.3f} G {report.loss_g:.3f}  D(x) {report.d_real:.2f} D(G(z)) {report.d_fake:.2f}  "
            f"D right {report.d_accuracy:.0%}  {self._rate:,.0f} images/s"
        )


def _metrics_text(report: StepReport) -> str:
    assert report.metrics is not None
    figures = "  ".join(f"{key.partition('[')[0]} {value:.4g}" for key, value in report.metrics.items())
    space = next(iter(report.metrics)).partition("[")[2].rstrip("]")
    best = "the best so far" if report.best_step == report.step else f"best was step {report.best_step}"
    return f"step {report.step} scored in {space}: {figures}" + (f"; {best}" if report.best_step is not None else "")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def duration(seconds: float) -> str:
    """Minutes and seconds, 3:07, or hours before them, 2:03:07."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"
