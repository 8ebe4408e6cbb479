"""Latent arithmetic on attributes, *glasses man − man + woman*, and how often what comes out is what was meant.

After Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", 2015 (arXiv:1511.06434), section 6.3.2: each term is the average of a few latents whose images show it.
There people chose the images and looked at the result; here a judge does both, a classifier fitted to real images and
measured on others of them (`gantrain.metrics.judge`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ganruntime import latents, noise
from ganruntime.errors import InputError
from ganruntime.spec import TensorSpec

if TYPE_CHECKING:
    from gantrain.metrics.judge import Judge

Conditions = Mapping[str, str]
Draw = Callable[[NDArray[np.float32], int], NDArray[np.uint8]]
"""(latents [N, …], index of the first) -> images uint8 [N, H, W, C]; the index chooses noise."""

LEAST_CONFIDENCE = 0.6  # of the judge, for an image to stand for what it shows
_PIECE = 256


@dataclass(frozen=True)
class Sample:
    """Latents that were drawn, [N, …], and what the judge makes of their images.

    told: attribute -> class index, int64 [N]. confidence: attribute -> the probability of that class, [N].
    """

    latents: NDArray[np.float32]
    told: Mapping[str, NDArray[np.int64]]
    confidence: Mapping[str, NDArray[np.float32]]

    def where(self, conditions: Conditions, classes: Mapping[str, tuple[str, ...]]) -> NDArray[np.int64]:
        """Which of them show all of these classes, as far as the judge is sure of it."""
        holds = np.ones(len(self.latents), bool)
        for attribute, name in conditions.items():
            index = classes[attribute].index(name)
            holds &= (self.told[attribute] == index) & (self.confidence[attribute] >= LEAST_CONFIDENCE)
        return np.flatnonzero(holds)

    def share(self, conditions: Conditions, classes: Mapping[str, tuple[str, ...]]) -> float:
        """Of all of them, those whose likeliest classes are these."""
        return float(_hold(self.told, conditions, classes).mean())


@dataclass(frozen=True)
class Arithmetic:
    """What came of it.

    wanted: the classes that the result should show.
    success: share of the results that show all of them. each: attribute -> share of the results that show its class.
    chance: share of images drawn at random that show all of them.
    found: how many images there were to average over, for take, minus and plus.
    images: uint8 [trials, 4, H, W, C], the averages of the three terms and the result.
    """

    wanted: Conditions
    success: float
    each: Mapping[str, float]
    chance: float
    found: tuple[int, int, int]
    images: NDArray[np.uint8]


def conditions_from_text(text: str, classes: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """`glasses=round,hair_style=short` as attribute -> class.

    Raises:
        InputError: an attribute or a class is unknown, or named twice.
    """
    conditions: dict[str, str] = {}
    for part in text.split(","):
        attribute, equals, name = (word.strip() for word in part.partition("="))
        if not equals:
            raise InputError("a term is attribute=class, and commas between them", got=repr(text))
        if attribute not in classes:
            raise InputError("the images have no such attribute", got=repr(attribute), expected=", ".join(classes))
        if name not in classes[attribute]:
            raise InputError(f"{attribute} has no such class", got=repr(name), expected=", ".join(classes[attribute]))
        if attribute in conditions:
            raise InputError(f"{attribute} is named twice", got=repr(text))
        conditions[attribute] = name
    return conditions


def wanted_from_terms(take: Conditions, minus: Conditions, plus: Conditions) -> dict[str, str]:
    """What take - minus + plus should show: of every attribute what one of two equal terms leaves of the third.

    Raises:
        InputError: the terms name different attributes, or one of them does not come out.
    """
    if not set(take) == set(minus) == set(plus):
        raise InputError(
            "the three terms name different attributes",
            got="; ".join(", ".join(term) for term in (take, minus, plus)),
            expected="the same attributes in each",
        )
    wanted = {}
    for attribute, name in take.items():
        if name == minus[attribute]:
            wanted[attribute] = plus[attribute]
        elif minus[attribute] == plus[attribute]:
            wanted[attribute] = name
        else:
            raise InputError(
                f"what {attribute} should be in the result does not follow",
                got=f"{name} - {minus[attribute]} + {plus[attribute]}",
                expected="a class that is taken away again: x - x + y, or x - y + y",
            )
    return wanted


def judged_sample(draw: Draw, tensor: TensorSpec, judge: Judge, seed: int, count: int) -> Sample:
    """The latents 0 … count - 1 of a seed, and what the judge makes of them."""
    z = noise.latents(tensor, seed, 0, count)
    pieces = [judge.describe(draw(z[k : k + _PIECE], k)).probabilities for k in range(0, count, _PIECE)]
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in judge.classes}
    return Sample(
        z, {name: p.argmax(axis=1) for name, p in joined.items()}, {name: p.max(axis=1) for name, p in joined.items()}
    )


def arithmetic(
    draw: Draw,
    tensor: TensorSpec,
    judge: Judge,
    sample: Sample,
    terms: tuple[Conditions, Conditions, Conditions],
    *,
    exemplars: int,
    trials: int,
    seed: int,
) -> Arithmetic:
    """take - minus + plus, `trials` times, each over `exemplars` latents a term chosen anew.

    Raises:
        InputError: what it should come to does not follow, or too few images of the sample show a term.
    """
    wanted = wanted_from_terms(*terms)
    places = [sample.where(term, judge.classes) for term in terms]
    for term, place in zip(terms, places, strict=True):
        if len(place) < exemplars:
            raise InputError(
                f"too few of the {len(sample.latents):,} images drawn show {text_from_conditions(term)}",
                got=f"{len(place)}, with a confidence of the judge of at least {LEAST_CONFIDENCE}",
                expected=f"at least {exemplars}",
                remedy="draw more with --sample, average fewer with --exemplars, or name other classes",
            )
    rows = []
    for trial in range(trials):
        a, b, c = (
            latents.averaged(tensor, sample.latents[_chosen(place, exemplars, seed, trial, name)])
            for place, name in zip(places, ("take", "minus", "plus"), strict=True)
        )
        rows.append(np.stack([a, b, c, latents.combined(tensor, a, b, c)]))
    z = np.stack(rows)  # [trials, 4, …]
    flat = z.reshape(-1, *z.shape[2:])
    first = len(sample.latents)
    drawn = [draw(flat[k : k + _PIECE], first + k) for k in range(0, len(flat), _PIECE)]
    images = np.concatenate(drawn).reshape(trials, 4, *drawn[0].shape[1:])
    told = {name: p.argmax(axis=1) for name, p in judge.describe(images[:, 3]).probabilities.items()}
    each = {name: float(_hold(told, {name: value}, judge.classes).mean()) for name, value in wanted.items()}
    return Arithmetic(
        wanted=wanted,
        success=float(_hold(told, wanted, judge.classes).mean()),
        each=each,
        chance=sample.share(wanted, judge.classes),
        found=(len(places[0]), len(places[1]), len(places[2])),
        images=images,
    )


def text_from_conditions(conditions: Conditions) -> str:
    """`glasses=round,hair_style=short`."""
    return ",".join(f"{attribute}={name}" for attribute, name in conditions.items())


def _chosen(place: NDArray[np.int64], count: int, seed: int, trial: int, name: str) -> NDArray[np.int64]:
    """`count` of them without repetition, a function of (seed, trial)."""
    ranks = noise.uniform(seed, trial, 1, len(place), stream=noise.stream_of(f"ganexport.arithmetic {name}"))[0]
    return place[np.argsort(ranks, kind="stable")[:count]]


def _hold(
    told: Mapping[str, NDArray[np.int64]], conditions: Conditions, classes: Mapping[str, tuple[str, ...]]
) -> NDArray[np.bool_]:
    parts = [told[attribute] == classes[attribute].index(name) for attribute, name in conditions.items()]
    holds: NDArray[np.bool_] = np.logical_and.reduce(parts)
    return holds
