"""The digit judge: a classifier of real digits that says what a generator draws, and how surely.

One support vector machine a digit, "this digit or none", with a Gaussian kernel (Cortes and Vapnik 1995) on 16×16
pixels, its decision value made a probability by Platt scaling (Platt 1999) that is fitted across folds. An image's
digit is that of the surest machine, and its confidence that machine's probability.

The ten are not made to sum to 1, because that would make the judge sure of anything: with a kernel that falls off with
distance, an image unlike every real digit gets ten small numbers. Measured at 32 px: unseen real digits 0.97, averages
of two digits 0.66, mirrored digits 0.50, noise 0.03.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganruntime.errors import InputError, MissingDependencyError
from gantrain.data.digits import digits

CLASSES = 10
_SIDE = 16
_HELD_OUT = 0.25


@dataclass(frozen=True)
class DigitScore:
    """What a judge found among N images.

    Args:
        counts: images per digit, ten integers that sum to N.
        shares: `counts` / N.
        mean_confidence: mean over the images of the largest of the ten probabilities, in [0, 1].
    """

    counts: tuple[int, ...]
    shares: tuple[float, ...]
    mean_confidence: float

    @property
    def digits_found(self) -> int:
        """How many of the ten digits occur at all."""
        return sum(count > 0 for count in self.counts)


class DigitJudge:
    """Classifies images of digits, white ink on black.

    Attributes:
        held_out_accuracy: share of the real digits it was not fitted to (a quarter of them) that it classifies rightly.
        held_out_confidence: its mean confidence on the same.
    """

    def __init__(self, machines: Sequence[Any], held_out_accuracy: float, held_out_confidence: float) -> None:
        self._machines = tuple(machines)
        self.held_out_accuracy = held_out_accuracy
        self.held_out_confidence = held_out_confidence

    @classmethod
    def fit(cls, seed: int = 0, size: int = 32) -> DigitJudge:
        """Fits a judge to three quarters of the real digits as `size` px images show them, in a second or two.

        Raises:
            InputError: the size is below 8 pixels.
            MissingDependencyError: scikit-learn is not installed.
        """
        if size < 8:
            raise InputError("no digit can be told at this size", got=size, expected="at least 8 pixels")
        try:
            from sklearn.calibration import CalibratedClassifierCV
            from sklearn.model_selection import StratifiedKFold, train_test_split
            from sklearn.svm import SVC
        except ImportError as error:
            raise MissingDependencyError(
                "the digit judge needs scikit-learn, which is not installed", remedy='pip install "ganexport[train]"'
            ) from error
        source = digits(size)
        pixels, labels = _features(source.images), source.labels["digit"]
        fit_x, held_x, fit_y, held_y = train_test_split(
            pixels, labels, test_size=_HELD_OUT, random_state=seed % (1 << 32), stratify=labels
        )
        folds = StratifiedKFold(5, shuffle=True, random_state=seed % (1 << 32))
        machines = [
            CalibratedClassifierCV(SVC(C=10.0), method="sigmoid", cv=folds, ensemble=False).fit(fit_x, fit_y == digit)
            for digit in range(CLASSES)
        ]
        probabilities = _probabilities(machines, held_x)
        accuracy = float((probabilities.argmax(axis=1) == held_y).mean())
        return cls(machines, accuracy, float(probabilities.max(axis=1).mean()))

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """uint8 [N, H, W, 1] -> float64 [N, 10], each in [0, 1]; a row need not sum to 1.

        Raises:
            InputError: that is no batch of grey images.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 1 or len(images) == 0:
            raise InputError(
                "the digit judge takes grey images",
                got=f"{images.dtype} {list(images.shape)}",
                expected="uint8 [N, H, W, 1]",
            )
        return _probabilities(self._machines, _features(images))

    def score(self, images: NDArray[np.uint8]) -> DigitScore:
        """Judges images uint8 [N, H, W, 1]. Raises `InputError` as `probabilities` does."""
        probabilities = self.probabilities(images)  # [N, 10]
        counts = np.bincount(probabilities.argmax(axis=1), minlength=CLASSES)
        return DigitScore(
            counts=tuple(int(count) for count in counts),
            shares=tuple(float(count) / len(images) for count in counts),
            mean_confidence=float(probabilities.max(axis=1).mean()),
        )


def _probabilities(machines: Sequence[Any], features: NDArray[np.float32]) -> NDArray[np.float64]:
    """float32 [N, 256] -> float64 [N, 10]: each machine's probability of its own digit."""
    return np.stack([machine.predict_proba(features)[:, 1] for machine in machines], axis=1).astype(np.float64)


def _features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [N, H, W, 1] -> float32 [N, 256] in [0, 1]: box averages, so that every pixel of the image counts."""
    features = np.empty((len(images), _SIDE * _SIDE), np.float32)
    for row, image in zip(features, images, strict=True):
        reduced = Image.fromarray(image[..., 0]).resize((_SIDE, _SIDE), Image.Resampling.BOX)
        row[:] = np.asarray(reduced, np.float32).reshape(-1) / 255.0
    return features
