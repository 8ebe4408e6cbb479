"""The log of a run as columns: what its page and its diagnosis look at, in 8 bytes a number."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gantrain.run_folder import LOG_FILE

COLUMNS = (
    "loss_d", "loss_g", "d_real", "d_fake", "d_accuracy", "d_score", "gradient_d", "gradient_g", "diversity",
)  # fmt: skip

Float64 = NDArray[np.float64]


class History:
    """The lines of log.jsonl so far.

    Attributes:
        scores: step -> the figures of that step, {`fid[SPACE]`: value or None}.
        last: the last line.
    """

    def __init__(self) -> None:
        self.scores: dict[int, Mapping[str, float | None]] = {}
        self.last: Mapping[str, Any] = {}
        self._steps = array("d")
        self._columns = {name: array("d") for name in COLUMNS}

    def add(self, line: Mapping[str, Any]) -> None:
        """Takes a line as `StepReport.to_log` gives it."""
        self._steps.append(line["step"])
        for name, column in self._columns.items():
            value = line.get(name)  # not in the log of an earlier release, or null
            column.append(math.nan if value is None else value)
        if line.get("metrics"):
            self.scores[line["step"]] = line["metrics"]
        self.last = line

    def column(self, name: str) -> tuple[Float64, Float64]:
        """The steps and values of a column where it has a value, float64 [N] each."""
        steps, values = np.array(self._steps), np.array(self._columns[name])
        known = ~np.isnan(values)
        return steps[known], values[known]

    def figure(self, key: str) -> tuple[Float64, Float64]:
        """The steps and values of a metric's figure, float64 [N] each."""
        found = [(step, value) for step, table in self.scores.items() if (value := table.get(key)) is not None]
        return np.array([step for step, _ in found], float), np.array([value for _, value in found], float)

    @property
    def figures(self) -> tuple[str, ...]:
        """Every figure that a score has had, in the order of their first."""
        return tuple(dict.fromkeys(key for table in self.scores.values() for key in table))


def lines_of(run: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a run's log, in order; none where there is no log."""
    path = run / LOG_FILE
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
