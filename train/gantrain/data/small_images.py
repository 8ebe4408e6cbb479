"""Arrays of small images, as MNIST and CIFAR have them, at the size to train on: reduced, or given a margin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ganruntime.errors import DataError

_MOST_MARGIN = 1 / 7  # 28 pixels become 32, as LeNet-5 had them (LeCun et al. 1998)


def check_side(name: str, side: int, size: int, *, margin: bool) -> None:
    """Raises `DataError` where images of `side` pixels cannot become ones of `size`, before any is read.

    Args:
        margin: whether a margin of zeros may be added, of at most a seventh of the side in all.
    """
    most = side + int(side * _MOST_MARGIN) if margin else side
    if size > most:
        raise DataError(
            f"{name} has images smaller than those to train on",
            got=f"{side}×{side} pixels",
            expected=f"at least {size}×{size}" + (f", or {most} with a margin" if most > side else ""),
            remedy=f"--set size={32 if most >= 32 else 16}",
        )


def resized(images: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """uint8 [N, side, side, C] into `out`, uint8 [N, size, size, C]: reduced by Lanczos' kernel, or zeros around it."""
    side, size = images.shape[1], out.shape[1]
    if size >= side:
        first = (size - side) // 2
        out[...] = 0
        out[:, first : first + side, first : first + side] = images
        return
    for source, target in zip(images, out, strict=True):
        plain = Image.fromarray(source[..., 0] if source.shape[2] == 1 else source)
        reduced = np.asarray(plain.resize((size, size), Image.Resampling.LANCZOS))
        target[...] = reduced.reshape(target.shape)
