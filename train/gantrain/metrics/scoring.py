"""Scoring: from chunks of generated samples to figures, in memory that grows with features and not with images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import InputError
from gantrain.data.vectors import VectorSource
from gantrain.metrics.reference import Reference
from gantrain.metrics.spaces import Description, FeatureSpace, Float32, Pixels, Values
from gantrain.metrics.table import METRICS, Evidence, Figure, NotApplicable

_CHUNK = 256
Chunk = tuple[NDArray[np.generic], Mapping[str, NDArray[np.int64]]]


@dataclass(frozen=True)
class Scores:
    """figures: what was computed. skipped: metric -> why it was not. evidence: what they were computed from."""

    figures: tuple[Figure, ...]
    skipped: Mapping[str, str]
    evidence: Evidence

    def by_key(self) -> dict[str, float]:
        """{`fid[SPACE]`: value}: for logs and a spec's provenance."""
        return {figure.key: figure.value for figure in self.figures}


class Scorer:
    """The real side of a score, described once, and the metrics.

    Attributes:
        space: the feature space.
        text: what the real samples are, for people.
    """

    def __init__(
        self,
        space: FeatureSpace,
        real: Description,
        text: str,
        *,
        toy: VectorSource | None = None,
        train_pixels: Float32 | None = None,
        held_out_pixels: Float32 | None = None,
    ) -> None:
        self.space = space
        self.text = text
        self._real = real
        self._toy = toy
        self._train_pixels, self._held_out_pixels = train_pixels, held_out_pixels

    def score(self, chunks: Iterable[Chunk], metrics: Sequence[str] | None = None) -> Scores:
        """Scores generated samples.

        Args:
            chunks: (samples, labels asked for) in order: images uint8 [n, H, W, C] or vectors float32 [n, D], and
                attribute -> int64 [n].
            metrics: names of `METRICS`; None for all that apply.

        Raises:
            InputError: there is no metric of that name, or one that was named does not apply; or samples are few, or
                hold what is not finite.
        """
        unknown = [name for name in metrics or () if name not in METRICS]
        if unknown:
            raise InputError(f"no metric is called {unknown[0]!r}", expected=", ".join(METRICS))
        evidence = self._evidence(chunks)
        figures: list[Figure] = []
        skipped: dict[str, str] = {}
        for name in metrics or METRICS:
            try:
                figures += METRICS[name].compute(evidence)
            except NotApplicable as reason:
                if metrics is not None:
                    raise
                skipped[name] = reason.problem
        return Scores(tuple(figures), skipped, evidence)

    def _evidence(self, chunks: Iterable[Chunk]) -> Evidence:
        pixels = Pixels() if self._train_pixels is not None else None
        described, reduced, asked = [], [], []
        for samples, labels in chunks:
            described.append(self.space.describe(samples))
            asked.append(labels)
            if pixels is not None:
                reduced.append(pixels.describe(samples).features)
        if not described:
            raise InputError("nothing was generated to score")
        return Evidence(
            space=self.space.name,
            real=self._real,
            fake=Description.joined(described),
            classes=self.space.classes,
            asked={name: np.concatenate([labels[name] for labels in asked]) for name in asked[0]},
            toy=self._toy,
            train_pixels=self._train_pixels,
            held_out_pixels=self._held_out_pixels,
            fake_pixels=np.concatenate(reduced) if reduced else None,
        )


def scorer_of_images(reference: Reference, space: FeatureSpace, *, neighbours: bool = True) -> Scorer:
    """A scorer of images. Describes the real ones: seconds for some thousand.

    Args:
        neighbours: whether memorisation is to be measured, for which all training images are described, in 3 KB each.
    """
    train, held_out = None, None
    if neighbours and reference.held_out is not None and len(reference.held_out.images) <= len(reference.train.images):
        train = _described(Pixels(), reference.train.images).features
        held_out = _described(Pixels(), reference.held_out.images).features
    real = _described(space, reference.images.images)
    return Scorer(space, real, reference.text, train_pixels=train, held_out_pixels=held_out)


def scorer_of_vectors(source: VectorSource, count: int) -> Scorer:
    """A scorer of vectors against `count` fresh rows: those of the seed after the one that is trained on."""
    from gantrain.data.toys import toy_from_name

    fresh = toy_from_name(source.name, (source.seed + 1) % (1 << 64))
    real = Values().describe(fresh.rows(0, count))
    return Scorer(
        Values(), real, f"{count:,} rows of {source.name} with another seed than those trained on", toy=source
    )


def _described(space: FeatureSpace, images: NDArray[np.uint8]) -> Description:
    return Description.joined(
        [space.describe(images[first : first + _CHUNK]) for first in range(0, len(images), _CHUNK)]
    )


def space_from_name(name: str, source: Reference) -> FeatureSpace:
    """`judge`, `random`, `auto` (a judge where the data have labels, else random), or the path of a TorchScript file.

    Raises:
        InputError: there is no such space, or the data have no labels to fit a judge to.
    """
    from pathlib import Path

    from gantrain.metrics.judge import judge_of, judged_attributes
    from gantrain.metrics.random_features import RandomFeatures
    from gantrain.metrics.script_features import ScriptFeatures

    if name == "auto":
        name = "judge" if judged_attributes(source.whole) else "random"
    if name == "judge":
        return judge_of(source.whole)
    if name == "random":
        return RandomFeatures()
    return ScriptFeatures(Path(name))
