"""A judge for tests that needs no training: whether the left and the right half of an image are dark or light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = ("dark", "light")


@dataclass
class HalvesJudge:
    """levels: the grey values that part dark from light, left and right. softness: how far from them it is sure."""

    levels: tuple[float, float] = (127.5, 127.5)
    softness: float = 4.0
    name: str = "halves"

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        return {"left": NAMES, "right": NAMES}

    @property
    def accuracy(self) -> Mapping[str, float]:
        return {"left": 1.0, "right": 0.975}

    def describe(self, images: NDArray[np.uint8]) -> Any:
        middle = images.shape[2] // 2
        found = {}
        halves = (images[:, :, :middle], images[:, :, middle:])
        for name, half, level in zip(self.classes, halves, self.levels, strict=True):
            light = 1.0 / (1.0 + np.exp(-(half.mean((1, 2, 3)) - level) / self.softness))
            found[name] = np.stack([1.0 - light, light], axis=1).astype(np.float32)
        return SimpleNamespace(probabilities=found)
