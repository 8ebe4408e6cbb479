"""Data sources by the names that users give them: digits, faces, a folder, a zip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import DataError, InputError
from gantrain.data.source import ImageSource

FACES = 4_000
_FACES_SEED = 0


def source_from_name(source: str, size: int, channels: int = 0, images: int = 0) -> ImageSource:
    """Loads training data.

    Args:
        source: `digits`, `faces`, or the path of a folder of images or of a zip of images.
        size: side of the square images, in pixels.
        channels: 1 for grey, 3 for RGB, 0 for what the source has.
        images: only the first this many; 0 for all (of the faces, which never end, 4,000).

    Raises:
        DataError: there is no such source, or something in it cannot be used; names the file.
        InputError: size, channels or images is out of range.
    """
    if size < 1 or channels not in (0, 1, 3) or images < 0:
        raise InputError("not a size, channels and a number of images", got=(size, channels, images))
    if source == "digits":
        from gantrain.data.digits import digits

        return _as_asked(digits(size), channels, images)
    if source == "faces":
        from gantrain.data.faces import face_images

        pixels, labels = face_images(_FACES_SEED, 0, images or FACES, size)
        return _as_asked(ImageSource("faces", pixels, labels), channels, images)
    path = Path(source).expanduser()
    if path.is_dir():
        from gantrain.data.folder import images_from_folder

        return _as_asked(images_from_folder(path, size, images), channels, images)
    if path.is_file():
        from gantrain.data.zip import images_from_zip

        return _as_asked(images_from_zip(path, size, images), channels, images)
    raise DataError(
        f"there is no data source {source!r}",
        expected="digits, faces, or the path of a folder or zip of images",
        remedy="check the path" if "/" in source or "." in source else "for a folder of that name: create it first",
    )


def _as_asked(source: ImageSource, channels: int, images: int) -> ImageSource:
    if images > len(source.images):
        raise DataError(
            f"{source.name} does not have that many images",
            got=f"images={images}",
            expected=f"at most {len(source.images)}",
            remedy="--set images=0 takes them all",
        )
    count = images or len(source.images)
    pixels = source.images[:count]
    if channels == 3 and source.channels == 1:
        pixels = np.repeat(pixels, 3, axis=3)
    if channels == 1 and source.channels == 3:
        pixels = grey_from_rgb(pixels)
    labels = {name: values[:count] for name, values in source.labels.items()}
    return ImageSource(source.name, pixels, labels, source.skipped)


def grey_from_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [..., 3] -> uint8 [..., 1]: the luma of ITU-R BT.601, as Pillow's mode "L" has it."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 65,536
    luma = (pixels.astype(np.uint32) * weights).sum(axis=-1, keepdims=True, dtype=np.uint32)
    grey: NDArray[np.uint8] = ((luma + 0x8000) >> 16).astype(np.uint8)
    return grey
