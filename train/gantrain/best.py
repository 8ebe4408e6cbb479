"""The best generator of a run: `best/` beside `checkpoint/`, a checkpoint of the generator alone, and its figure.

Which step is the best so far, and by which figure, is part of the training's state, and `best/` is written after the
checkpoint of the step that it is of. A kill between the two is made good from that checkpoint when the run goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ganruntime.spec import GeneratorSpec

FOLDER_IN_RUN = "best"


@dataclass(frozen=True)
class Best:
    """The step whose generator scored best, the name of the figure that says so (`fid[SPACE]`), and its value."""

    step: int
    key: str
    value: float

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "key": self.key, "value": self.value}

    @classmethod
    def from_json(cls, table: object) -> Best:
        """Raises `ValueError` where the table is none of ours."""
        if not isinstance(table, dict) or set(table) != {"step", "key", "value"}:
            raise ValueError(f"not a best step: {table!r}")
        step, key, value = table["step"], table["key"], table["value"]
        if not isinstance(step, int) or isinstance(step, bool) or step < 0 or not isinstance(key, str):
            raise ValueError(f"not a best step: {table!r}")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"not a best figure: {value!r}")
        return cls(step, key, float(value))


def best_of(run: Path) -> Path:
    return run / FOLDER_IN_RUN


def with_figure(spec: GeneratorSpec, best: Best) -> GeneratorSpec:
    """The spec of the best generator, which says how good it is."""
    metrics = {**spec.provenance.metrics, best.key: best.value}
    return replace(spec, provenance=replace(spec.provenance, metrics=metrics))
