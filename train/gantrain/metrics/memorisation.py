"""Memorisation: are generated images nearer to what the generator learned from than to what it never saw?

For every generated image its nearest neighbours are sought among the training images and among as many held-out ones.
A generator that has learned the distribution is as near to the one as to the other; one that repeats its training
images is nearer to these. After Meehan, Chaudhuri and Dasgupta, "A non-parametric test to detect data-copying in
generative models", 2020 (arXiv:2004.05675), of whose test this is the plain form: a ratio, and a share.

A larger set has nearer neighbours, so the training images are taken in disjoint parts of the size of the held-out set,
in their order, and the figures are means over the parts: every training image is in one, but for a rest that would be
smaller than a part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime.errors import InputError
from gantrain.metrics.distances import checked_features, checked_pair, nearest


@dataclass(frozen=True)
class Memorisation:
    """How near generated images are to training images, against held-out ones.

    ratio: the mean distance to the nearest training image over that to the nearest held-out one; about 1 is right, and
        well below 1 is memorisation.
    nearer_to_train: share of (generated image, part) pairs that are nearer to train; about ½ is right. Ties count half.
    nearest_train, nearest_held_out: int64 [M], the nearest image of all training images, and of the held-out ones.
    distance_train, distance_held_out: float64 [M], how far these are.
    """

    ratio: float
    nearer_to_train: float
    nearest_train: NDArray[np.int64]
    nearest_held_out: NDArray[np.int64]
    distance_train: NDArray[np.float64]
    distance_held_out: NDArray[np.float64]


def memorisation(train: ArrayLike, held_out: ArrayLike, fake: ArrayLike) -> Memorisation:
    """Compares nearest neighbours of generated images.

    Args:
        train: [N, D], at least as many as held out.
        held_out: [H, D], H at least 2; its neighbours are the measure, so a few hundred serve best.
        fake: [M, D].

    Raises:
        InputError: the sets do not fit each other, or hold what is not finite.
    """
    known, unseen = checked_pair(train, held_out, 2)
    made = checked_features("generated", fake, 1)
    if made.shape[1] != known.shape[1]:
        raise InputError("features are of different spaces", got=f"{made.shape[1]} and {known.shape[1]} numbers a row")
    if len(known) < len(unseen):
        raise InputError(
            "more images are held out than were trained on",
            got=f"{len(unseen)} and {len(known)}",
            remedy="hold out fewer",
        )
    far, far_at = nearest(made, unseen)
    parts = np.split(known[: len(known) // len(unseen) * len(unseen)], len(known) // len(unseen))
    distances = [nearest(made, part)[0] for part in parts]
    near, near_at = nearest(made, known)
    mean_far = float(far.mean())
    mean_near = float(np.mean(distances))
    if mean_far == 0.0:
        raise InputError("every generated image is a held-out one", remedy="hold out other images than were generated")
    nearer = float(np.mean([np.where(d == far, 0.5, d < far).mean() for d in distances]))
    return Memorisation(mean_near / mean_far, nearer, near_at, far_at, near, far)
