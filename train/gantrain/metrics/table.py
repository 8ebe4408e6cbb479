"""Every metric by name: what it needs, and the figures that it gives.

To add one, write its formula in a file of its own, and a function here that takes the evidence and gives figures; where
the evidence does not serve, it raises `NotApplicable` with the reason. See docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import InputError
from gantrain.data.toys import Curves, GaussianMixture
from gantrain.data.vectors import VectorSource
from gantrain.metrics.entropy import classifier_entropy
from gantrain.metrics.frechet import frechet_distance
from gantrain.metrics.kernel import kernel_distance
from gantrain.metrics.labels import conditional_accuracy, mode_dropping
from gantrain.metrics.manifold import density_coverage, precision_recall
from gantrain.metrics.memorisation import Memorisation, memorisation
from gantrain.metrics.modes import curve_fit, modes_found
from gantrain.metrics.spaces import Description, Float32, Pixels


class NotApplicable(InputError):
    """A metric cannot be computed of this generator and data."""


@dataclass(frozen=True)
class Figure:
    """One number of a metric.

    name: of the number, without the feature space.
    features: the feature space; a figure in another one is another figure.
    better: `higher`, `lower`, `near 1` or `near 0.5`.
    samples: how many real and how many generated samples it was computed from.
    parts: what it is the mean of, or what it counts, by name; may be empty.
    """

    name: str
    value: float
    features: str
    better: str
    samples: tuple[int, int]
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The whole name: `fid[digits-judge-32px-1f2e3d4c]`."""
        return f"{self.name}[{self.features}]"


@dataclass(frozen=True)
class Evidence:
    """What metrics look at.

    space: the name of the feature space of `real` and `fake`.
    real, fake: descriptions of real and generated samples.
    classes: attribute -> class names, of a judge's probabilities.
    asked: attribute -> int64 [M], the class that each generated sample was asked to be of.
    toy: the exact distribution, for generators of vectors.
    train_pixels, held_out_pixels, fake_pixels: float32 [N, P] each in the space of `Pixels`; None where nothing is held
        out, or samples are vectors.
    """

    space: str
    real: Description
    fake: Description
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    asked: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    toy: VectorSource | None = None
    train_pixels: Float32 | None = None
    held_out_pixels: Float32 | None = None
    fake_pixels: Float32 | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """Real and generated samples."""
        return len(self.real.features), len(self.fake.features)

    @property
    def in_equal_numbers(self) -> tuple[Float32, Float32]:
        """The features of as many real samples as generated ones, the first of either: neighbourhoods shrink as samples
        are more, so that recall and coverage would rise with the number of generated samples alone."""
        count = min(self.counts)
        return self.real.features[:count], self.fake.features[:count]


@dataclass(frozen=True)
class Metric:
    """line: what it says, for --help and the docs. compute: the evidence -> figures; raises `NotApplicable`."""

    line: str
    compute: Callable[[Evidence], list[Figure]]


def _fid(e: Evidence) -> list[Figure]:
    return [Figure("fid", frechet_distance(e.real.features, e.fake.features), e.space, "lower", e.counts)]


def _kid(e: Evidence) -> list[Figure]:
    return [Figure("kid", kernel_distance(e.real.features, e.fake.features), e.space, "lower", e.counts)]


def _precision_recall(e: Evidence) -> list[Figure]:
    real, fake = e.in_equal_numbers
    found, counts = precision_recall(real, fake), (len(real), len(fake))
    return [
        Figure("precision", found.precision, e.space, "higher", counts),
        Figure("recall", found.recall, e.space, "higher", counts),
    ]


def _density_coverage(e: Evidence) -> list[Figure]:
    real, fake = e.in_equal_numbers
    found, counts = density_coverage(real, fake), (len(real), len(fake))
    return [
        Figure("density", found.density, e.space, "near 1", counts),
        Figure("coverage", found.coverage, e.space, "higher", counts),
    ]


def _require_judge(e: Evidence) -> None:
    if not e.classes:
        raise NotApplicable(
            "there are no classes to judge by",
            got=f"features {e.space}",
            remedy="labelled data, and --features judge",
        )


def _mean(name: str, parts: dict[str, float], e: Evidence, better: str, counts: tuple[int, int]) -> Figure:
    """The mean over attributes, and each of them where there is more than one."""
    mean = float(np.mean(list(parts.values())))
    return Figure(name, mean, e.space, better, counts, parts if len(parts) > 1 else {})


def _entropy(e: Evidence) -> list[Figure]:
    _require_judge(e)
    found = {name: classifier_entropy(p) for name, p in e.fake.probabilities.items()}
    counts = 0, len(e.fake.features)
    return [
        _mean("inception_score", {name: f.inception_score for name, f in found.items()}, e, "higher", counts),
        _mean("quality", {name: f.quality for name, f in found.items()}, e, "higher", counts),
        _mean("diversity", {name: f.diversity for name, f in found.items()}, e, "higher", counts),
    ]


def _mode_dropping(e: Evidence) -> list[Figure]:
    _require_judge(e)
    found = {
        name: mode_dropping(e.real.probabilities[name], e.fake.probabilities[name]) for name in e.fake.probabilities
    }
    dropped = {f"{name}={e.classes[name][k]}": f.generated[k] for name, f in found.items() for k in f.dropped}
    return [
        Figure("dropped_classes", float(len(dropped)), e.space, "lower", e.counts, dropped),
        _mean("class_distance", {name: f.distance for name, f in found.items()}, e, "lower", e.counts),
    ]


def _conditional(e: Evidence) -> list[Figure]:
    _require_judge(e)
    asked = {name: values for name, values in e.asked.items() if name in e.fake.probabilities}
    if not asked:
        raise NotApplicable("the generator is not asked for a class that the judge tells")
    parts = {name: conditional_accuracy(e.fake.probabilities[name], values) for name, values in asked.items()}
    return [_mean("conditional_accuracy", parts, e, "higher", (0, len(e.fake.features)))]


def memorisation_of(e: Evidence) -> Memorisation:
    """The nearest neighbours behind the figures. Raises `NotApplicable` where nothing is held out."""
    if e.train_pixels is None or e.held_out_pixels is None or e.fake_pixels is None:
        raise NotApplicable(
            "memorisation is measured against images that the generator never saw, and there are none",
            remedy="train with --set held_out=0.1; for a bundle that was, --held-out 0.1",
        )
    return memorisation(e.train_pixels, e.held_out_pixels, e.fake_pixels)


def _memorisation(e: Evidence) -> list[Figure]:
    found = memorisation_of(e)
    assert e.train_pixels is not None and e.fake_pixels is not None  # noqa: PT018
    counts = len(e.train_pixels), len(e.fake_pixels)
    return [
        Figure("neighbour_ratio", found.ratio, Pixels.name, "near 1", counts),
        Figure("nearer_to_train", found.nearer_to_train, Pixels.name, "near 0.5", counts),
    ]


def _modes(e: Evidence) -> list[Figure]:
    if not isinstance(e.toy, GaussianMixture):
        raise NotApplicable("modes can be counted for the toys ring and grid alone")
    found = modes_found(e.fake.features, e.toy)
    counts = 0, len(e.fake.features)
    return [
        Figure("modes_found", float(found.found), e.space, "higher", counts, {"modes": float(found.modes)}),
        Figure("high_quality", found.high_quality, e.space, "higher", counts),
        Figure("mode_distance", found.distance, e.space, "lower", counts),
    ]


def _curves(e: Evidence) -> list[Figure]:
    if not isinstance(e.toy, Curves):
        raise NotApplicable("curves can be fitted for the toy curves alone")
    found = curve_fit(e.fake.features, e.toy)
    counts = 0, len(e.fake.features)
    return [
        Figure("on_curve", found.on_curve, e.space, "higher", counts),
        Figure("curve_residual", found.residual, e.space, "lower", counts),
        Figure("opening_distance", found.distance, e.space, "lower", counts),
    ]


METRICS: dict[str, Metric] = {
    "modes": Metric("toys ring and grid: modes found, share of samples within 3σ of one", _modes),
    "curves": Metric("toy curves: share of samples on a curve of the family, and how evenly", _curves),
    "fid": Metric("Fréchet distance of features (Heusel et al. 2017)", _fid),
    "kid": Metric("kernel distance of features (Bińkowski et al. 2018)", _kid),
    "precision-recall": Metric("improved precision and recall (Kynkäänniemi et al. 2019)", _precision_recall),
    "density-coverage": Metric("density and coverage (Naeem et al. 2020)", _density_coverage),
    "entropy": Metric("Inception score by a judge, and its halves, quality and diversity", _entropy),
    "mode-dropping": Metric("classes that are dropped, and the distance of the classes' shares", _mode_dropping),
    "conditional": Metric("share of images of the class that was asked for, by a judge", _conditional),
    "memorisation": Metric("nearest neighbours among training images, against held-out ones", _memorisation),
}
