"""Attribute directions: where to move in latent space so that an image shows a class, and how far.

Shen, Gu, Tang and Zhou, "Interpreting the Latent Space of GANs for Semantic Face Editing", 2020 (arXiv:1907.10786): the
normal of the plane that parts latents whose images show a class from the others, by logistic regression; the difference
of the two means, of Radford et al. (arXiv:1511.06434), is the other way. The judge is as in `arithmetic`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ganexport.arithmetic import Draw, Sample
from ganruntime import latents
from ganruntime.errors import InputError
from ganruntime.spec import TensorSpec

if TYPE_CHECKING:
    from gantrain.metrics.judge import Judge

METHODS = ("logistic", "means")
LEAST_SHOWN = 20  # images of a class, and as many others, for a direction to be told from chance
LEAST_MOVED = 8
STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # along the direction, in deviations of a coordinate
_RIDGE = 1.0
_PIECE = 256
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Direction:
    """A direction of one class of one attribute.

    vector: float32, the shape of a latent, of length 1.
    shown: how many images of the sample show the class.
    accuracy: on a quarter of the latents that it was not fitted to, the mean share of those that show the class and of
        those that do not which are on their side of the plane: 0.5 is chance.
    """

    attribute: str
    name: str
    vector: NDArray[np.float32]
    shown: int
    accuracy: float


@dataclass(frozen=True)
class Move:
    """What moving along a direction does to images that do not show its class.

    strength: how far, chosen on one half of them; what follows is measured on the other half.
    success: share that shows the class afterwards.
    kept: share of all other attributes that are told as before.
    images: uint8 [n, 2, H, W, C], before and after.
    """

    strength: float
    success: float
    kept: float
    images: NDArray[np.uint8]


def direction_of(
    sample: Sample, classes: tuple[str, ...], attribute: str, name: str, method: str = "logistic"
) -> Direction:
    """The direction of a class, from the judged sample.

    Raises:
        InputError: too few images show the class, or too few do not; or no method has that name.
    """
    shows = sample.told[attribute] == classes.index(name)
    if min(shows.sum(), (~shows).sum()) < LEAST_SHOWN:
        raise InputError(
            f"there is no direction of {attribute}={name}",
            got=f"shown by {int(shows.sum())} of {len(shows):,} images",
            expected=f"at least {LEAST_SHOWN} that show it, and as many that do not",
            remedy="draw more with --sample",
        )
    if method not in METHODS:
        raise InputError("no method has this name", got=repr(method), expected=", ".join(METHODS))
    x = sample.latents.reshape(len(shows), -1).astype(np.float64)  # [N, d]
    held_out = np.arange(len(shows)) % 4 == 3
    normal, offset = _FITS[method](x[~held_out], shows[~held_out])
    side = x[held_out] @ normal + offset > 0
    right = [float((side[shows[held_out] == wanted] == wanted).mean()) for wanted in (True, False)]
    vector = (normal / np.linalg.norm(normal)).reshape(sample.latents.shape[1:])
    return Direction(attribute, name, vector.astype(np.float32), int(shows.sum()), float(np.mean(right)))


def moved(
    tensor: TensorSpec, z: NDArray[np.float32], vector: NDArray[np.float32], strength: float
) -> NDArray[np.float32]:
    """Latents [n, …] moved along a direction by `strength` deviations, and kept where latents lie (`combined`)."""
    step = np.float32(strength * float(getattr(tensor.role, "scale", 1.0))) * vector
    return latents.combined(tensor, z, np.zeros_like(vector), step)


def move(draw: Draw, tensor: TensorSpec, judge: Judge, sample: Sample, found: Direction, trials: int) -> Move:
    """Moves the first `trials` latents of the sample whose images do not show the class.

    The strength is the smallest at which, within a hundredth, as many of every second one of them show it as at any.

    Raises:
        InputError: there are fewer than `LEAST_MOVED` such latents.
    """
    wanted = judge.classes[found.attribute].index(found.name)
    places = np.flatnonzero(sample.told[found.attribute] != wanted)[:trials]
    if len(places) < LEAST_MOVED:
        raise InputError(
            f"there is nothing to move to {found.attribute}={found.name}",
            got=f"{len(places)} images without it",
            expected=f"at least {LEAST_MOVED}",
        )
    choosing, judging = sample.latents[places[::2]], sample.latents[places[1::2]]

    def drawn(z: NDArray[np.float32], strength: float) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
        # Before and after with the same noise, so that the latent alone makes the difference.
        z = moved(tensor, z, found.vector, strength)
        images = np.concatenate([draw(z[k : k + _PIECE], k) for k in range(0, len(z), _PIECE)])
        return images, {name: p.argmax(axis=1) for name, p in judge.describe(images).probabilities.items()}

    shares = [float((drawn(choosing, s)[1][found.attribute] == wanted).mean()) for s in STRENGTHS]
    strength = next(s for s, share in zip(STRENGTHS, shares, strict=True) if share >= max(shares) - 0.01)
    before, told_before = drawn(judging, 0.0)
    after, told = drawn(judging, strength)
    others = [name for name in judge.classes if name != found.attribute]
    same = [float((told[name] == told_before[name]).mean()) for name in others]
    return Move(
        strength=strength,
        success=float((told[found.attribute] == wanted).mean()),
        kept=float(np.mean(same)) if same else 1.0,
        images=np.stack([before, after], axis=1),
    )


def _difference_of_means(x: Float64, shows: NDArray[np.bool_]) -> tuple[Float64, float]:
    """The normal, and the offset of the plane in the middle of the two means."""
    one, other = x[shows].mean(axis=0), x[~shows].mean(axis=0)
    normal: Float64 = one - other
    return normal, -float(normal @ (one + other)) / 2.0


def _logistic_regression(x: Float64, shows: NDArray[np.bool_]) -> tuple[Float64, float]:
    """Ridge logistic regression by Newton's method, both classes weighing the same.

    Minimises Σ wᵢ log(1 + exp(-yᵢ (n·xᵢ + o))) + ½ |n|²; the offset is not held.
    """
    y = np.where(shows, 1.0, -1.0)
    weight = np.where(shows, 0.5 / shows.mean(), 0.5 / (1.0 - shows.mean()))
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # [N, d + 1]
    ridge = np.full(design.shape[1], _RIDGE)
    ridge[-1] = 1e-9

    def loss(beta: Float64) -> float:
        return float(weight @ np.logaddexp(0.0, -y * (design @ beta)) + 0.5 * ridge @ beta**2)

    beta = np.zeros(design.shape[1])
    value = loss(beta)
    for _ in range(50):
        wrong = 1.0 / (1.0 + np.exp(np.clip(y * (design @ beta), -500.0, 500.0)))  # probability of the other class
        gradient = -design.T @ (weight * y * wrong) + ridge * beta
        curvature = weight * wrong * (1.0 - wrong)
        step = np.linalg.solve(design.T @ (design * curvature[:, None]) + np.diag(ridge), gradient)
        length = 1.0
        while (new := loss(beta - length * step)) > value and length > 1e-6:
            length /= 2.0
        beta = beta - length * step
        if value - new <= 1e-10 * (1.0 + abs(value)):
            break
        value = new
    return beta[:-1], float(beta[-1])


_FITS: dict[str, Callable[[Float64, NDArray[np.bool_]], tuple[Float64, float]]] = {
    "logistic": _logistic_regression,
    "means": _difference_of_means,
}
