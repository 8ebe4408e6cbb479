"""The log of a run for TensorBoard as well, where it is asked for: `tensorboard --logdir RUN/tensorboard`.

tensorboardX writes the event files: it needs numpy and protobuf alone, and neither TensorBoard nor its servers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ganruntime.errors import MissingDependencyError
from gantrain.run_folder import writing

FOLDER_IN_RUN = "tensorboard"
_FLUSH_SECONDS = 10  # what a kill may cost; log.jsonl loses nothing

TAGS = {
    "loss_d": "loss/discriminator",
    "loss_g": "loss/generator",
    "d_real": "discriminator/real",
    "d_fake": "discriminator/generated",
    "d_accuracy": "discriminator/accuracy",
    "d_score": "discriminator/score",
    "gradient_d": "gradient/discriminator",
    "gradient_g": "gradient/generator",
    "diversity": "generator/diversity",
}


class EventFiles:
    """Appends lines of the log to a new event file in RUN/tensorboard.

    Args:
        step: the run's; what earlier files have of later steps, TensorBoard leaves out from now on.

    Raises:
        MissingDependencyError: tensorboardX is not installed; names the extra.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, run: Path, step: int) -> None:
        folder = run / FOLDER_IN_RUN
        with writing(folder):
            self._writer = import_writer().SummaryWriter(
                str(folder),
                purge_step=step + 1 if step else None,
                flush_secs=_FLUSH_SECONDS,
                # tensorboardX 2.6.5 names files by the second, and would write over one of the same second.
                filename_suffix=f".{time.time_ns()}",
            )

    def add(self, line: Mapping[str, Any]) -> None:
        """Takes a line as `StepReport.to_log` gives it."""
        step = line["step"]
        values = {tag: line.get(name) for name, tag in TAGS.items()}
        values["timing/images_per_second"] = line.get("timing", {}).get("images_per_second")
        values |= {tag_of_figure(key): value for key, value in line.get("metrics", {}).items()}
        for tag, value in values.items():
            if value is not None:
                self._writer.add_scalar(tag, value, step)
        for finding in line.get("diagnosis", {}).get("began", ()):
            text = "\n".join([finding["what"], *(f"- {remedy}" for remedy in finding["try"])])
            self._writer.add_text(f"diagnosis/{finding['name']}", text, step)

    def close(self) -> None:
        self._writer.close()


def tag_of_figure(key: str) -> str:
    """`metrics/fid/SPACE` of a figure `fid[SPACE]`: TensorBoard's tags have no brackets."""
    name, _, space = key.rstrip("]").partition("[")
    return f"metrics/{name}/{space}"


def import_writer() -> ModuleType:
    """The module tensorboardX. Raises `MissingDependencyError` naming the extra."""
    try:
        import tensorboardX
    except ImportError as error:
        raise MissingDependencyError(
            "files for TensorBoard need tensorboardX, which is not installed",
            got=str(error),
            remedy='pip install "ganexport[tensorboard]", or --set tensorboard=false: log.jsonl has the same figures',
        ) from error
    module: ModuleType = tensorboardX
    return module
