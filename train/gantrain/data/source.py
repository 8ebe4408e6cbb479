"""What training draws from: images in memory, all of one size, with their labels if they have any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import DataError

MOST_BYTES = 32 << 30


@dataclass(frozen=True)
class ImageSource:
    """A data set in memory.

    Args:
        name: what it is called in a checkpoint's provenance.
        images: uint8 [N, H, W, C], N at least 2, C 1 or 3.
        labels: attribute -> int64 [N].
        skipped: files that are no images, or broken ones, and were left out, by name.
        classes: attribute -> its class names, in label order. Where it is left out for an attribute, the classes are
            called by their numbers, 0 to the largest label that occurs.
    """

    name: str
    images: NDArray[np.uint8]
    labels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[0] < 2 or shape[3] not in (1, 3):
            raise DataError(
                f"{self.name} is no set of images to train on",
                got=f"{self.images.dtype} {list(shape)}",
                expected="at least two images, uint8 [N, H, W, 1 or 3]",
            )
        classes = {}
        for attribute, values in self.labels.items():
            names = self.classes.get(attribute) or tuple(str(k) for k in range(int(values.max(initial=0)) + 1))
            _check_labels(self.name, attribute, values, shape[0], names)
            classes[attribute] = tuple(names)
        object.__setattr__(self, "classes", classes)

    @property
    def channels(self) -> int:
        return int(self.images.shape[3])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels, labels and classes: a run is resumed on the very data that it was started on."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        for name in sorted(self.labels):
            digest.update(name.encode() + np.ascontiguousarray(self.labels[name], np.int64).tobytes())
            digest.update(repr(self.classes[name]).encode())
        return digest.hexdigest()

    @cached_property
    def fingerprint_without_classes(self) -> str:
        """What `fingerprint` was while class names had no part in it: tells an old run's record from other data's."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        for name in sorted(self.labels):
            digest.update(name.encode() + np.ascontiguousarray(self.labels[name], np.int64).tobytes())
        return digest.hexdigest()

    def part(self, indices: NDArray[np.int64], name: str | None = None) -> ImageSource:
        """Some of the images with their labels, in the order of `indices`; a copy of theirs."""
        labels = {attribute: values[indices] for attribute, values in self.labels.items()}
        return ImageSource(name or self.name, self.images[indices], labels, self.skipped, self.classes)


def _check_labels(name: str, attribute: str, values: NDArray[np.int64], count: int, classes: tuple[str, ...]) -> None:
    if values.shape != (count,) or values.dtype != np.int64:
        raise DataError(
            f"{name}: the labels {attribute!r} are not one an image",
            got=f"{values.dtype} {list(values.shape)}",
            expected=f"int64 [{count}]",
        )
    if values.min() < 0 or values.max() >= len(classes):
        raise DataError(
            f"{name}: labels {attribute!r} without a class",
            got=f"{values.min()} to {values.max()}",
            expected=f"0 to {len(classes) - 1}",
        )


def check_memory(name: str, count: int, size: int) -> None:
    """Raises `DataError` where the images would not fit into memory, before the first is read."""
    needed = count * size * size * 3
    if needed > MOST_BYTES:
        raise DataError(
            f"{name}: the images are too many to hold in memory",
            got=f"{count:,} images of {size} px, {needed / 2**30:.0f} GiB",
            expected=f"at most {MOST_BYTES >> 30} GiB",
            remedy=f"--set images={MOST_BYTES // (size * size * 3)}, or a smaller size",
        )
