"""One picture file to one training image: upright, cut to its central square, and never enlarged."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ganruntime.errors import DataError, GanError, InputError
from gantrain.data.source import check_memory

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MOST_PIXELS = 64 << 20
BROKEN = ("skip", "stop")
_GREY_MODES = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I")
_MOST_THREADS = 8


def is_picture(name: str) -> bool:
    """Whether a file's name ends as pictures do, and it is no hidden file or resource fork of another system."""
    path = PurePath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


class BrokenPicture(DataError):
    """A picture that cannot be read or decoded: the one defect that may be skipped."""


@dataclass(frozen=True)
class Pictures:
    """What was decoded.

    images: uint8 [N, size, size, C], C 1 where every picture is grey, else 3.
    kept: int64 [N], which of the names they are of, in order.
    broken: the names of the others.
    """

    images: NDArray[np.uint8]
    kept: NDArray[np.int64]
    broken: tuple[str, ...]


def images_from_pictures(
    names: Sequence[str], read: Callable[[str], bytes], size: int, broken: str = "stop"
) -> Pictures:
    """Decodes pictures in parallel, in their order, each into its place: beside the result, which is held once (and
    copied where all turn out to be grey or some to be broken), there is one picture in memory a thread, of at most 64
    million pixels.

    Args:
        names: what `read` takes, and what an error names.
        read: gives the bytes of a picture; must be thread-safe; raises `BrokenPicture` where it cannot.
        size: side of the images, in pixels.
        broken: `skip` leaves broken pictures out and says which, `stop` raises for the first.

    Raises:
        DataError: the first picture, in order, that is broken, too small or too large; or too many are broken to have
            two images.
    """
    if broken not in BROKEN:
        raise InputError("not what to do with broken pictures", got=repr(broken), expected=" or ".join(BROKEN))
    check_memory(str(PurePath(names[0]).parent), len(names), size)
    images = np.empty((len(names), size, size, 3), np.uint8)

    def fill(place: int) -> int | BrokenPicture:
        """Decodes into images[place]; its channels, or why there are none."""
        try:
            image = image_from_bytes(read(names[place]), names[place], size)
        except BrokenPicture as error:
            if broken == "stop":
                raise
            return error
        images[place] = image  # a grey one is broadcast over R, G and B
        return int(image.shape[2])

    with warnings.catch_warnings(), ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        # Pillow warns from 89 million pixels on; here such a picture is an error already.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            found = list(pool.map(fill, range(len(names))))
        except DataError:
            pool.shutdown(cancel_futures=True)  # the others are not decoded for nothing
            raise
    failures = [result for result in found if isinstance(result, BrokenPicture)]
    if len(names) - len(failures) < 2:
        raise DataError(
            f"{failures[0].problem}, and so are {len(failures) - 1} more of {len(names)}"
            if len(failures) > 1
            else failures[0].problem,
            got=failures[0].got,
            expected="at least two pictures that can be decoded",
            remedy="repair the files",
        ) from failures[0]
    kept = np.array([k for k, result in enumerate(found) if not isinstance(result, BrokenPicture)], np.int64)
    if failures:
        images = images[kept]
    if all(result == 1 for result in found if not isinstance(result, BrokenPicture)):
        images = np.ascontiguousarray(images[..., :1])
    names_broken = tuple(names[k] for k, result in enumerate(found) if isinstance(result, BrokenPicture))
    return Pictures(images, kept, names_broken)


def image_from_bytes(data: bytes, name: str, size: int) -> NDArray[np.uint8]:
    """One picture file's bytes as uint8 [size, size, 1 or 3].

    Turned as its EXIF says; transparency over white; 16-bit grey by its upper 8 bits; of an animation the first frame;
    cut to the largest central square and reduced with Lanczos' kernel.

    Raises:
        DataError: it cannot be decoded, or is smaller than `size`, or has more than 64 million pixels.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            _check_size(picture, name, size)
            picture.load()
            upright = ImageOps.exif_transpose(picture)
    except GanError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, …
        raise BrokenPicture(
            f"{name} is a broken picture", got=str(error) or type(error).__name__, remedy="repair or remove this file"
        ) from error
    plain = _grey_or_rgb(upright, name)
    width, height = plain.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    # Cut first: resize(box=…) would let the kernel reach beyond the square.
    square = plain.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(square, np.uint8).reshape(size, size, -1)


def _check_size(picture: Image.Image, name: str, size: int) -> None:
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise _too_large(name, f"{width}×{height} pixels")
    side = min(width, height)
    if side < size:
        fitting = 1 << max(0, side.bit_length() - 1)
        raise DataError(
            f"{name} is smaller than the images to train on",
            got=f"{width}×{height} pixels",
            expected=f"at least {size}×{size}",
            remedy=(f"--set size={fitting}, or " if fitting >= 16 else "") + "enlarge or remove this file",
        )


def _too_large(name: str, got: str) -> DataError:
    return DataError(
        f"{name} is too large for a training image",
        got=got,
        expected=f"at most {MOST_PIXELS:,} pixels",
        remedy="reduce or remove this file",
    )


def _grey_or_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode in ("F", "I;16", "I;16L", "I;16B", "I;16N", "I"):
        values = np.asarray(picture, np.float64)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise DataError(
                f"{name} has pixels that are not 8 or 16 bits",
                got=f"Pillow mode {picture.mode}, values from {values.min():g} to {values.max():g}",
                remedy="convert this file to 8 bits a channel",
            )
        return Image.fromarray((values / 257.0 + 0.5).astype(np.uint8))
    if "A" in picture.mode or "a" in picture.mode or "transparency" in picture.info:
        is_grey = picture.mode in _GREY_MODES
        with_alpha = picture.convert("RGBA")
        paper = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(paper, with_alpha).convert("L" if is_grey else "RGB")
    return picture.convert("L" if picture.mode in _GREY_MODES else "RGB")
