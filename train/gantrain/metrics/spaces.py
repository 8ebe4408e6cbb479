"""Feature spaces: what turns images or vectors into the rows of numbers that metrics compare.

A figure in one space says nothing about a figure in another, so a space's name is part of the name of every figure, and
the name changes with anything that changes the features.

    digits-judge-32px-1f2e3d4c   a judge of our own, trained on that data; with class probabilities
    random-32px                  a convolutional network with fixed random weights, for images without labels
    pixels-16px                  the pixels themselves, reduced: for nearest neighbours
    values                       vectors as they are
    NAME-1f2e3d4c                a TorchScript file of the user's, such as Inception's weights
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganruntime.errors import InputError

Float32 = NDArray[np.float32]
_PIXELS_SIDE = 16


@dataclass(frozen=True)
class Description:
    """features: float32 [N, D]. probabilities: attribute -> float32 [N, classes], where the space is a judge's."""

    features: Float32
    probabilities: Mapping[str, Float32] = field(default_factory=dict)

    @staticmethod
    def joined(parts: list[Description]) -> Description:
        """The descriptions of consecutive samples as one."""
        names = parts[0].probabilities
        return Description(
            np.concatenate([part.features for part in parts]),
            {name: np.concatenate([part.probabilities[name] for part in parts]) for name in names},
        )


class FeatureSpace(ABC):
    """A way to describe samples.

    Attributes:
        name: part of the name of every figure that is computed in it.
        classes: attribute -> class names, of a judge; empty otherwise.
    """

    name: str
    classes: Mapping[str, tuple[str, ...]] = {}

    @abstractmethod
    def describe(self, samples: NDArray[np.generic]) -> Description:
        """Images uint8 [N, H, W, C], or of `values` vectors float32 [N, D].

        A sample's features do not depend on those beside it, but for rounding.
        """


class Values(FeatureSpace):
    """Vectors, as they are."""

    name = "values"

    def describe(self, samples: NDArray[np.generic]) -> Description:
        return Description(np.ascontiguousarray(samples.reshape(len(samples), -1), np.float32))


class Pixels(FeatureSpace):
    """The pixels of images, averaged to at most 16×16, in [0, 1]; distances are root mean squares over pixels."""

    name = f"pixels-{_PIXELS_SIDE}px"

    def describe(self, samples: NDArray[np.generic]) -> Description:
        images = checked_images(samples)
        n, height, width, channels = images.shape
        if max(height, width) > _PIXELS_SIDE:
            size = _PIXELS_SIDE, _PIXELS_SIDE
            reduced = np.empty((n, *size, channels), np.float32)
            for row, image in zip(reduced, images, strict=True):
                for k in range(channels):
                    plane = Image.fromarray(np.ascontiguousarray(image[..., k]))
                    row[..., k] = np.asarray(plane.resize(size, Image.Resampling.BOX))
        else:
            reduced = images.astype(np.float32)
        flat = reduced.reshape(n, -1)
        return Description(flat / np.float32(255.0 * flat.shape[1] ** 0.5))


def checked_images(samples: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Raises `InputError` unless these are images uint8 [N, H, W, 1 or 3], at least one."""
    if samples.dtype != np.uint8 or samples.ndim != 4 or samples.shape[3] not in (1, 3) or len(samples) == 0:
        raise InputError(
            "not images that can be described",
            got=f"{samples.dtype} {list(samples.shape)}",
            expected="uint8 [N, H, W, 1 or 3]",
        )
    return samples.astype(np.uint8, copy=False)
