"""Is it any good: classes among the generated images, whether they were copied, and whether they are all alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganruntime.errors import MissingDependencyError

if TYPE_CHECKING:
    from gantrain.data.source import ImageSource

Images = NDArray[np.uint8]

MOST_SHARE, LEAST_CONFIDENCE = 0.25, 0.8
LEAST_DIVERSITY = 0.8
_FACE_ATTRIBUTES = ("skin", "hair_colour", "hair_style", "glasses", "pose", "background")  # what can be told at 32 px
_FEATURE_SIDE = 16
_BLOCK = 512


@dataclass(frozen=True)
class Condition:
    """Something that must hold of the images: what, what was found, and whether it holds."""

    text: str
    found: str
    holds: bool


@dataclass(frozen=True)
class Shares:
    """How often each class of an attribute occurs, among the real images and among the generated ones."""

    attribute: str
    classes: tuple[str, ...]
    real: tuple[float, ...]
    generated: tuple[float, ...]
    held_out_accuracy: float

    @property
    def distance(self) -> float:
        """Total variation distance of the two: 0 is the same, 1 nothing in common."""
        return 0.5 * float(np.abs(np.subtract(self.real, self.generated)).sum())


@dataclass(frozen=True)
class Judgement:
    """What a judge says of the generated images.

    judge: what it is and how far it can be trusted, one sentence.
    figures: by name, for demo.json.
    """

    judge: str
    shares: tuple[Shares, ...]
    conditions: tuple[Condition, ...]
    figures: Mapping[str, float]

    @property
    def passed(self) -> bool:
        return all(condition.holds for condition in self.conditions)


@dataclass(frozen=True)
class Resemblance:
    """How near the generated images come to the training images, and to each other.

    Distances are root mean squares over 16 × 16 averaged pixels, 0 to 255.

    pairs: (generated, nearest real), indices: those that come nearest, and typical ones after them.
    nearest_pairs: how many of the pairs are of the first kind.
    generated_distance: median distance of a generated image to its nearest real one.
    real_distance: median distance of a real image to its nearest other real one.
    copies: share of generated images that are nearer to a real one than the nearest hundredth of the real ones are to
        each other.
    diversity: mean distance between generated images over that between real ones.
    """

    pairs: tuple[tuple[int, int], ...]
    nearest_pairs: int
    generated_distance: float
    real_distance: float
    copies: float
    diversity: float


def judge_images(images: Images, source: ImageSource) -> Judgement:
    """The judgement of uint8 [N, H, W, C] by what the source is of.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    return _judge_digits(images, source) if "digit" in source.labels else _judge_faces(images, source)


def _judge_digits(images: Images, source: ImageSource) -> Judgement:
    from gantrain.metrics.digit_judge import DigitJudge

    judge = DigitJudge.fit(size=images.shape[1])
    score = judge.score(images)
    real = np.bincount(source.labels["digit"], minlength=10) / len(source.images)
    classes = tuple(str(digit) for digit in range(10))
    shares = Shares("digit", classes, tuple(map(float, real)), score.shares, judge.held_out_accuracy)
    largest = max(score.shares)
    return Judgement(
        judge=(
            f"Ten support vector machines, fitted to three quarters of the real digits. On the other quarter they "
            f"are right {judge.held_out_accuracy:.1%} of the time, mean confidence {judge.held_out_confidence:.2f}."
        ),
        shares=(shares,),
        conditions=(
            Condition("all ten digits are found", f"{score.digits_found} of 10", score.digits_found == 10),
            Condition(f"no digit above {MOST_SHARE:.0%}", f"largest share {largest:.1%}", largest <= MOST_SHARE),
            Condition(
                f"mean confidence at least {LEAST_CONFIDENCE}",
                f"{score.mean_confidence:.3f}",
                score.mean_confidence >= LEAST_CONFIDENCE,
            ),
        ),
        figures={
            "judge_held_out_accuracy": judge.held_out_accuracy,
            "digits_found": score.digits_found,
            "largest_share": largest,
            "mean_confidence": score.mean_confidence,
        },
    )


def _judge_faces(images: Images, source: ImageSource) -> Judgement:
    """Attributes that can be told at this size, by a classifier each; all classes must occur, in a fair balance."""
    from gantrain.data.faces import FACE_ATTRIBUTES

    real, drawn = colour_features(source.images), colour_features(images)
    shares = tuple(
        _attribute_shares(name, FACE_ATTRIBUTES[name], real, source.labels[name], drawn) for name in _FACE_ATTRIBUTES
    )
    missing = [f"{s.attribute} {c}" for s in shares for c, g in zip(s.classes, s.generated, strict=True) if g == 0]
    worst = max(shares, key=lambda s: s.distance)
    diversity = resemblance(images, source.images).diversity
    accuracy = ", ".join(f"{s.attribute.replace('_', ' ')} {s.held_out_accuracy:.1%}" for s in shares)
    return Judgement(
        judge=f"A classifier an attribute, fitted to three quarters of the drawn faces; right on the rest: {accuracy}.",
        shares=shares,
        conditions=(
            Condition(
                "every class of every attribute is found",
                ", ".join(missing) + " missing" if missing else "none missing",
                not missing,
            ),
            Condition(
                "shares within a quarter of the real ones (total variation)",
                f"worst {worst.distance:.2f}, {worst.attribute.replace('_', ' ')}",
                worst.distance <= MOST_SHARE,
            ),
            Condition(
                f"diversity at least {LEAST_DIVERSITY} of the real faces'",
                f"{diversity:.2f}",
                diversity >= LEAST_DIVERSITY,
            ),
        ),
        figures={
            "diversity": diversity,
            "worst_share_distance": worst.distance,
            "classes_missing": float(len(missing)),
        },
    )


def _attribute_shares(
    name: str,
    classes: tuple[str, ...],
    real: NDArray[np.float32],
    labels: NDArray[np.int64],
    drawn: NDArray[np.float32],
) -> Shares:
    try:
        from sklearn.ensemble import ExtraTreesClassifier
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingDependencyError(
            "judging faces needs scikit-learn, which is not installed", remedy='pip install "ganexport[train]"'
        ) from error
    fit_x, held_x, fit_y, held_y = train_test_split(real, labels, test_size=0.25, random_state=0, stratify=labels)
    trees: Any = ExtraTreesClassifier(100, max_features=0.1, random_state=0).fit(fit_x, fit_y)
    found = np.bincount(trees.predict(drawn), minlength=len(classes)) / len(drawn)
    share = np.bincount(labels, minlength=len(classes)) / len(labels)
    accuracy = float((trees.predict(held_x) == held_y).mean())
    return Shares(name, classes, tuple(map(float, share)), tuple(map(float, found)), accuracy)


def resemblance(images: Images, real: Images, typical: int = 6, nearest: int = 6) -> Resemblance:
    """Compares every generated image with every training image. uint8 [N, H, W, C] both.

    Args:
        typical, nearest: how many pairs of each kind to name.
    """
    generated, training = colour_features(images), colour_features(real)
    found, distances = _nearest(generated, training, exclude_self=False)
    _, own = _nearest(training, training, exclude_self=True)
    order = np.argsort(distances, kind="stable")
    near = order[:nearest]
    middle = len(order) // 2
    chosen = [*near, *order[middle : middle + typical]]
    return Resemblance(
        pairs=tuple((int(i), int(found[i])) for i in chosen),
        nearest_pairs=len(near),
        generated_distance=float(np.median(distances)),
        real_distance=float(np.median(own)),
        copies=float((distances < np.quantile(own, 0.01)).mean()),
        diversity=_spread(generated) / max(_spread(training), 1e-9),
    )


def colour_features(images: Images) -> NDArray[np.float32]:
    """uint8 [N, H, W, C] -> float32 [N, 16 · 16 · C], 0 to 255: averages, so that a shift of one pixel is small."""
    n, side = len(images), min(_FEATURE_SIDE, *images.shape[1:3])
    features = np.empty((n, side, side, images.shape[3]), np.float32)
    for channel in range(images.shape[3]):
        for row, image in zip(features[..., channel], images[..., channel], strict=True):
            row[:] = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX), np.float32)
    return features.reshape(n, -1)


def _nearest(
    points: NDArray[np.float32], among: NDArray[np.float32], *, exclude_self: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index of, and root mean square distance to, the nearest of `among`: ([N], [N])."""
    index, distance = np.empty(len(points), np.int64), np.empty(len(points))
    lengths = np.square(among, dtype=np.float64).sum(axis=1)
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK].astype(np.float64)
        squares = np.square(block).sum(axis=1)[:, None] + lengths - 2.0 * block @ among.T.astype(np.float64)
        if exclude_self:
            rows = np.arange(len(block))
            squares[rows, start + rows] = np.inf
        best = squares.argmin(axis=1)
        index[start : start + _BLOCK] = best
        nearest = np.maximum(squares[np.arange(len(block)), best], 0.0)
        distance[start : start + _BLOCK] = np.sqrt(nearest / points.shape[1])
    return index, distance


def _spread(features: NDArray[np.float32]) -> float:
    """Root mean square distance between two different points: √(2 · total variance)."""
    return float(np.sqrt(2.0 * features.astype(np.float64).var(axis=0).sum()))
