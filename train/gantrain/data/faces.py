"""Drawn faces with labels: an endless data set of our own, in which every face is a pure function of (seed, index).

A face is its attributes: names that serve as labels, and a tuple of continuous jitter that makes the faces a
distribution and not a table. `face_attributes` says what there is, `face_drawing` turns it into a picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganruntime import noise
from ganruntime.errors import InputError
from gantrain.data.face_attributes import (
    BACKGROUNDS,
    CLASS_WEIGHTS,
    EYE_COLOURS,
    FACE_ATTRIBUTES,
    HAIR_COLOURS,
    HAIR_STYLES,
    JITTER,
    OUTFIT_COLOURS,
    SKINS,
    FaceAttributes,
    with_attributes,
)
from gantrain.data.face_drawing import picture_from_face

__all__ = [
    "BACKGROUNDS",
    "EYE_COLOURS",
    "FACE_ATTRIBUTES",
    "HAIR_COLOURS",
    "HAIR_STYLES",
    "JITTER",
    "OUTFIT_COLOURS",
    "SKINS",
    "FaceAttributes",
    "draw_face",
    "face_attributes",
    "face_images",
    "with_attributes",
]

LEAST_SIZE, LARGEST_SIZE = 16, 4096

_STREAM = noise.stream_of("gantrain.data.faces")
_CUTS = {name: np.cumsum(list(w.values()))[:-1] / sum(w.values()) for name, w in CLASS_WEIGHTS.items()}
# The row of noise: one number an attribute, spare ones so that a new attribute leaves old faces alone, then the jitter.
_JITTER_FIRST = 16
_ROW = _JITTER_FIRST + len(JITTER)


def face_attributes(seed: int, index: int) -> FaceAttributes:
    """The attributes of face `index` of `seed`.

    Raises:
        InputError: seed or index is negative, too large or not an integer.
    """
    return _attributes_from_row(noise.uniform(seed, index, 1, _ROW, stream=_STREAM)[0])


def _attributes_from_row(row: NDArray[np.float32]) -> FaceAttributes:
    """float32 [_ROW] in [-1, 1) -> attributes."""
    names = {
        name: classes[int(np.searchsorted(_CUTS[name], (float(row[k]) + 1.0) / 2.0, side="right"))]
        for k, (name, classes) in enumerate(FACE_ATTRIBUTES.items())
    }
    return FaceAttributes(**names, jitter=tuple(float(value) for value in row[_JITTER_FIRST:]))


def draw_face(attributes: FaceAttributes, size: int) -> Image.Image:
    """Draws a face, RGB, `size` × `size` pixels. The same attributes give the same bytes.

    Raises:
        InputError: size is not an integer in [16, 4096].
    """
    _check_size(size)
    return picture_from_face(attributes, size)


def face_images(seed: int, first: int, count: int, size: int) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.int64]]]:
    """Draws faces `first` … `first + count - 1` of `seed`. Face i is the same whatever range it is drawn in.

    Returns:
        images: uint8 [count, size, size, 3].
        labels: attribute -> int64 [count], indices into `FACE_ATTRIBUTES[attribute]`.

    Raises:
        InputError: an argument is negative, too large or not an integer.
    """
    _check_size(size)
    rows = noise.uniform(seed, first, count, _ROW, stream=_STREAM)  # [count, _ROW]
    images = np.empty((count, size, size, 3), np.uint8)  # [N, H, W, C]
    labels = {name: np.empty(count, np.int64) for name in FACE_ATTRIBUTES}
    for k, row in enumerate(rows):
        attributes = _attributes_from_row(row)
        images[k] = np.asarray(draw_face(attributes, size))
        for name, label in attributes.labels().items():
            labels[name][k] = label
    return images, labels


def _check_size(size: int) -> None:
    whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool)
    if not whole or not LEAST_SIZE <= size <= LARGEST_SIZE:
        raise InputError(
            "a face cannot be drawn at this size",
            got=repr(size),
            expected=f"a whole number of pixels from {LEAST_SIZE} to {LARGEST_SIZE}",
        )
