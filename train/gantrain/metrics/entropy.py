"""What a classifier's certainty says: the Inception score, and its two halves told apart, quality and diversity.

With p(y|x) a classifier's probabilities of an image and p(y) their mean over all images,

- the Inception score is exp(mean KL(p(y|x) ‖ p(y))): Salimans, Goodfellow, Zaremba, Cheung, Radford and Chen, "Improved
  techniques for training GANs", 2016 (arXiv:1606.03498). From 1 to the number of classes K.
- quality is 1 - mean H(p(y|x)) / ln K: 1 where every image is surely of some class;
- diversity is H(p(y)) / ln K: 1 where all classes are equally frequent.

So ln IS = (quality + diversity - 1)·ln K. Over all images at once: the paper's ten parts only serve to show the spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime.errors import InputError


@dataclass(frozen=True)
class ClassifierEntropy:
    """inception_score in [1, K]; quality and diversity in [0, 1]."""

    inception_score: float
    quality: float
    diversity: float


def classifier_entropy(probabilities: ArrayLike) -> ClassifierEntropy:
    """Of a classifier's probabilities [N, K], K at least 2, each row summing to 1.

    Raises:
        InputError: they are no such probabilities.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or len(p) < 1 or p.shape[1] < 2:
        raise InputError("not the probabilities of classes", got=list(p.shape), expected="[N, K], K at least 2")
    if not np.isfinite(p).all() or p.min() < 0.0 or np.abs(p.sum(axis=1) - 1.0).max() > 1e-4:
        raise InputError("not the probabilities of classes", expected="rows of numbers from 0 to 1 that sum to 1")
    p = p / p.sum(axis=1, keepdims=True)
    most = float(np.log(p.shape[1]))
    each, whole = float(_entropy(p).mean()), float(_entropy(p.mean(axis=0, keepdims=True))[0])
    # By concavity the second is the larger; rounding must not make the score 0.9999….
    return ClassifierEntropy(float(np.exp(max(0.0, whole - each))), 1.0 - each / most, whole / most)


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-Σ p ln p of every row, with 0·ln 0 = 0."""
    safe = np.where(p > 0.0, p, 1.0)
    result: NDArray[np.float64] = -(p * np.log(safe)).sum(axis=1)
    return result
