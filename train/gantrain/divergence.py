"""Training that has left the numbers: a loss, a gradient, a weight or a sample that is NaN or infinite."""

from __future__ import annotations

import math
from pathlib import Path

from ganruntime.errors import TrainingError
from gantrain.progress import StepReport
from gantrain.run_folder import checkpoint_of
from gantrain.training_state import TrainingState


def check_losses(run: Path, report: StepReport, saved_step: int) -> None:
    """Raises `TrainingError` where a loss or a gradient is not finite."""
    for name, value in (
        ("discriminator's loss", report.loss_d),
        ("generator's loss", report.loss_g),
        ("discriminator's gradient", report.gradient_d),
        ("generator's gradient", report.gradient_g),
    ):
        if value is not None and not math.isfinite(value):
            raise diverged(run, f"the {name} is {value} at step {report.step}", saved_step)


def check_weights(run: Path, state: TrainingState, saved_step: int) -> None:
    """Raises `TrainingError` where a weight or a statistic is not finite."""
    if not state.is_finite():
        raise diverged(run, f"a weight is no longer finite at step {state.step}", saved_step)


def diverged(run: Path, what: str, saved_step: int) -> TrainingError:
    return TrainingError(
        f"training has diverged: {what}",
        got=f"the last good checkpoint is of step {saved_step}: {checkpoint_of(run)}",
        remedy="start a new run with lower learning rates: --set generator_lr=1e-4 --set discriminator_lr=1e-4",
    )
