"""Data sources by the names that users give them: digits, faces, a folder, a zip, IDX files, CIFAR archives."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import DataError, InputError
from gantrain.data.source import ImageSource
from gantrain.data.toys import TOYS

FACES = 4_000
FACES_SEED = 0
EXPECTED = "digits, faces, or the path of a folder or zip of images, of IDX files (MNIST), or of a CIFAR archive"


def source_from_name(source: str, size: int, channels: int = 0, images: int = 0, broken: str = "skip") -> ImageSource:
    """Loads training images.

    Args:
        source: `digits`, `faces`, or the path of a folder or zip of images, of IDX files (their folder, or the one with
            the images), of a CIFAR archive or the folder that was in it.
        size: side of the square images, in pixels.
        channels: 1 for grey, 3 for RGB, 0 for what the source has.
        images: only the first this many; 0 for all (of the faces, which never end, 4,000).
        broken: of a folder or zip: `skip` leaves broken pictures out and names them in the source's `skipped`, `stop`
            raises for the first.

    Raises:
        DataError: there is no such source, or something in it cannot be used; names the file.
        InputError: size, channels or images is out of range; or the source is a toy, which has no images
            (`gantrain.data.toys.toy_from_name`).
    """
    if size < 1 or channels not in (0, 1, 3) or images < 0:
        raise InputError("not a size, channels and a number of images", got=(size, channels, images))
    if source == "digits":
        from gantrain.data.digits import digits

        return _as_asked(digits(size), channels, images)
    if source == "faces":
        return _as_asked(_faces(size, images or FACES), channels, images)
    if source in TOYS:
        raise InputError(
            f"{source} is a toy distribution of vectors, and has no images",
            expected=EXPECTED,
            remedy="train it with a recipe for vectors: ganexport recipes lists them",
        )
    return _as_asked(_images_from_path(Path(source).expanduser(), source, size, images, broken), channels, images)


def _faces(size: int, count: int) -> ImageSource:
    from gantrain.data.faces import FACE_ATTRIBUTES, face_images

    pixels, labels = face_images(FACES_SEED, 0, count, size)
    return ImageSource("faces", pixels, labels, classes=FACE_ATTRIBUTES)


def _images_from_path(path: Path, source: str, size: int, images: int, broken: str) -> ImageSource:
    from gantrain.data import cifar, idx

    if path.is_dir():
        from gantrain.data.folder import images_from_folder

        try:
            file = idx.images_file_in(path)
            is_cifar = cifar.is_cifar_folder(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read", got=error.strerror) from error
        if file is not None:
            return idx.images_from_idx(file, size, images)
        if is_cifar:
            return cifar.images_from_cifar(path, size, images)
        return images_from_folder(path, size, images, broken)
    if path.is_file():
        if not zipfile.is_zipfile(path):
            if idx.is_idx(path):
                return idx.images_from_idx(path, size, images)
            if path.suffix == ".bin" or _is_tar(path):
                return cifar.images_from_cifar(path, size, images)
        from gantrain.data.zip import images_from_zip

        return images_from_zip(path, size, images, broken)
    raise DataError(
        f"there is no data source {source!r}",
        expected=EXPECTED,
        remedy="check the path" if "/" in source or "." in source else "for a folder of that name: create it first",
    )


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):  # of a damaged gzip, tarfile lets the latter two through
        return False


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
    return ImageSource(source.name, pixels, labels, source.skipped, source.classes)


def grey_from_rgb(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [..., 3] -> uint8 [..., 1]: the luma of ITU-R BT.601, as Pillow's mode "L" has it."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 65,536
    luma = (pixels.astype(np.uint32) * weights).sum(axis=-1, keepdims=True, dtype=np.uint32)
    grey: NDArray[np.uint8] = ((luma + 0x8000) >> 16).astype(np.uint8)
    return grey
