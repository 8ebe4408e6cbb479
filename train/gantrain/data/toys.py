"""Toy distributions that are known exactly, so that what a generator misses can be counted.

- `ring`: 8 Gaussians on the unit circle, σ 0.01; `grid`: 25 Gaussians, 5 × 5, spacing 2, σ 0.05. Both are those of
  Srivastava et al., "VEEGAN: Reducing mode collapse in GANs using implicit variational learning", 2017
  (arXiv:1705.07761), section 4.1, and of Lin et al., "PacGAN", 2018 (arXiv:1712.04086).
- `curves`: the works of a painter, y = a·x² + (a - 1) with a ~ U[1, 2), at 15 places x from -1 to 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ganruntime import noise
from ganruntime.errors import DataError
from gantrain.data.vectors import VectorSource

CURVE_POINTS = 15
_MODE, _POINT, _CURVE = (noise.stream_of(f"gantrain.data.toys {name}") for name in ("mode", "point", "curve"))


@dataclass(frozen=True, eq=False)
class GaussianMixture(VectorSource):
    """Equally likely Gaussians of the same σ in every direction.

    Args:
        name: of the source.
        centres: float64 [modes, size].
        sigma: standard deviation about a centre.
        seed: of the rows.
    """

    name: str
    centres: NDArray[np.float64]
    sigma: float
    seed: int = 0
    size: int = field(init=False)
    classes: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", int(self.centres.shape[1]))
        object.__setattr__(self, "classes", {"mode": tuple(str(k) for k in range(len(self.centres)))})

    def rows(self, first: int, count: int) -> NDArray[np.float32]:
        offsets = noise.normal(self.seed, first, count, self.size, stream=_POINT).astype(np.float64)  # [count, size]
        rows: NDArray[np.float32] = (self.centres[self._modes(first, count)] + self.sigma * offsets).astype(np.float32)
        return rows

    def labels(self, first: int, count: int) -> dict[str, NDArray[np.int64]]:
        """{"mode": int64 [count]}, an index into `centres`."""
        return {"mode": self._modes(first, count)}

    def _modes(self, first: int, count: int) -> NDArray[np.int64]:
        place = (noise.uniform(self.seed, first, count, 1, stream=_MODE)[:, 0].astype(np.float64) + 1.0) / 2.0
        return (place * len(self.centres)).astype(np.int64)  # place is below 1 by 2⁻²⁴ at least


@dataclass(frozen=True)
class Curves(VectorSource):
    """Curves y = a·x² + (a - 1), a ~ U[1, 2), as their heights at `places`."""

    name: str = "curves"
    seed: int = 0
    size: int = CURVE_POINTS
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def places(self) -> NDArray[np.float64]:
        """x, float64 [size], from -1 to 1."""
        return np.linspace(-1.0, 1.0, self.size)

    def openings(self, first: int, count: int) -> NDArray[np.float64]:
        """a of each row, float64 [count] in [1, 2)."""
        return 1.5 + noise.uniform(self.seed, first, count, 1, stream=_CURVE)[:, 0].astype(np.float64) / 2.0

    def rows(self, first: int, count: int) -> NDArray[np.float32]:
        a = self.openings(first, count)[:, None]  # [count, 1]
        rows: NDArray[np.float32] = (a * np.square(self.places) + (a - 1.0)).astype(np.float32)
        return rows


def ring(seed: int = 0) -> GaussianMixture:
    """8 Gaussians, σ 0.01, on the unit circle, the first at (1, 0), anticlockwise."""
    h = 0.5**0.5  # written out: cos and sin differ between platforms in the last bit
    centres = [(1, 0), (h, h), (0, 1), (-h, h), (-1, 0), (-h, -h), (0, -1), (h, -h)]
    return GaussianMixture("ring", np.array(centres, np.float64), 0.01, seed)


def grid(seed: int = 0) -> GaussianMixture:
    """25 Gaussians, σ 0.05, at (x, y) with x and y of -4, -2, 0, 2, 4; y changes fastest."""
    side = np.arange(-4.0, 5.0, 2.0)
    return GaussianMixture("grid", np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2), 0.05, seed)


def curves(seed: int = 0) -> Curves:
    """Curves at 15 places."""
    return Curves(seed=seed)


TOYS: dict[str, Callable[[int], VectorSource]] = {"ring": ring, "grid": grid, "curves": curves}


def toy_from_name(name: str, seed: int = 0) -> VectorSource:
    """A toy by its name in `TOYS`. Raises `DataError` that suggests the nearest one."""
    if name not in TOYS:
        near = difflib.get_close_matches(name, TOYS, n=1)
        raise DataError(f"there is no toy distribution {name!r}", expected=f"{near[0]!r}?" if near else ", ".join(TOYS))
    return TOYS[name](seed)
