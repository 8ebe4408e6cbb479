"""Metrics while a generator trains, and whether it is the best so far.

    monitor = Monitor.of(data, held_out=settings.held_out)       # once; fits a judge, or finds it in the cache
    found = monitor.score(draw)                                  # draw(first, count) -> samples
    log(found.by_key())
    if monitor.is_better(found.value(monitor.metric), best):     # keep the checkpoint beside the last

Nothing here draws from torch's random state, so that a run with metrics has the same bits as one without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import InputError
from gantrain.data.source import ImageSource
from gantrain.data.toys import Curves, GaussianMixture
from gantrain.data.vectors import VectorSource
from gantrain.metrics.reference import reference_of
from gantrain.metrics.scoring import Chunk, Scorer, Scores, scorer_of_images, scorer_of_vectors, space_from_name

SAMPLES = 1_000
_CHUNK = 64
# Images in the first two, of which the quick ones; each toy's own beside the Fréchet distance.
_IMAGE_METRICS = ("fid", "density-coverage")
_JUDGED_METRICS = ("fid", "density-coverage", "entropy", "mode-dropping")

Draw = Callable[[int, int], NDArray[np.generic] | Chunk]


@dataclass(frozen=True)
class Monitor:
    """Scores a generator again and again on the same latents.

    Args:
        scorer: the real side.
        metrics: names of `gantrain.metrics.table.METRICS`.
        metric: the figure that decides which checkpoint is best, without its feature space.
        lower: whether less of it is better.
        samples: how many samples a score takes.
    """

    scorer: Scorer
    metrics: tuple[str, ...]
    metric: str
    lower: bool
    samples: int

    @classmethod
    def of(
        cls,
        data: ImageSource | VectorSource,
        *,
        held_out: float = 0.0,
        samples: int = SAMPLES,
        features: str = "auto",
        conditional: bool = False,
    ) -> Monitor:
        """A monitor for training on `data`.

        Args:
            data: the whole source, before anything was held out of it.
            held_out: the share that is; the figures are then against these images.
            samples: generated samples of a score; for images also the most real ones.
            features: as in `gantrain.metrics.scoring.space_from_name`; for images alone.
            conditional: whether `draw` says which labels it asked for.

        Raises:
            InputError: an argument does not fit, or there are too few images.
        """
        if samples < 16:
            raise InputError("too few samples for a score", got=samples, expected="at least 16")
        if isinstance(data, VectorSource):
            own = ("modes",) if isinstance(data, GaussianMixture) else ("curves",) if isinstance(data, Curves) else ()
            # A few numbers wide, clusters have nearly the moments of what lies between them: coverage sees the gap.
            metrics = (*own, "fid", "density-coverage")
            return cls(scorer_of_vectors(data, samples), metrics, "coverage", False, samples)
        reference = reference_of(data, held_out, most=samples)
        space = space_from_name(features, reference)
        metrics = _JUDGED_METRICS if space.classes else _IMAGE_METRICS
        if conditional and space.classes:
            metrics = (*metrics, "conditional")
        return cls(scorer_of_images(reference, space, neighbours=False), metrics, "fid", True, samples)

    def score(self, draw: Draw) -> Scores:
        """Scores samples 0 … `samples` - 1.

        Args:
            draw: (first, count) -> images uint8 [count, H, W, C] or vectors float32 [count, D] of these indices; or
                these and attribute -> int64 [count], the labels that were asked for.

        Raises:
            InputError: the samples are not those, or hold what is not finite.
        """
        return self.scorer.score(self._chunks(draw), self.metrics)

    @property
    def key(self) -> str:
        """The whole name of the figure that decides: `fid[SPACE]`."""
        return f"{self.metric}[{self.scorer.space.name}]"

    def value(self, scores: Scores) -> float:
        """The figure that decides."""
        return scores.by_key()[self.key]

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best so far; of equal ones the first stays. NaN is never better."""
        if not math.isfinite(value):
            return False
        return best is None or (value < best if self.lower else value > best)

    def _chunks(self, draw: Draw) -> Iterator[Chunk]:
        for first in range(0, self.samples, _CHUNK):
            drawn = draw(first, min(_CHUNK, self.samples - first))
            no_labels: Mapping[str, NDArray[np.int64]] = {}
            yield drawn if isinstance(drawn, tuple) else (drawn, no_labels)
