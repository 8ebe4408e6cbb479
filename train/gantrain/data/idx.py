"""IDX files, as MNIST, Fashion-MNIST and KMNIST come: images of one size and a label for each, plain or gzipped.

The format (Yann LeCun's MNIST page): two zero bytes, a type (8: unsigned byte), the number of dimensions, each of them
as a big-endian 32-bit integer, the data in C order. Files are read in pieces, and never further than their header says:
beside the images at the size to train on, one piece of at most 4 MiB is in memory.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import DataError
from gantrain.data.small_images import check_side, resized
from gantrain.data.source import ImageSource, check_memory

_UNSIGNED_BYTE = 8
_MOST_SIDE = 4096
_PIECE_BYTES = 4 << 20
_GZIP = b"\x1f\x8b"
_IMAGES_NAME = re.compile(r"^(?P<set>.*?)[-_.]?images[-_.]idx3[-_.]ubyte(?P<gz>\.gz)?$")
_REMEDY = "download the file again, and compare its checksum"


def is_idx(path: Path) -> bool:
    """Whether the file begins as an IDX file of bytes does, plain or gzipped; False where it cannot be read."""
    try:
        with ExitStack() as stack:
            return _opened(path, stack).read(3) == bytes((0, 0, _UNSIGNED_BYTE))
    except (OSError, EOFError, zlib.error):
        return False


def images_file_in(folder: Path) -> Path | None:
    """The training images in a folder of IDX files, or those of its only set. None where there are no IDX files.

    Raises:
        DataError: there are several sets, and none of them is called train.
    """
    found = sorted(path for path in folder.iterdir() if _IMAGES_NAME.match(path.name) and path.is_file())
    sets = {cast(re.Match[str], _IMAGES_NAME.match(path.name))["set"]: path for path in found}
    if len(sets) <= 1:
        return next(iter(sets.values()), None)
    train = [path for name, path in sets.items() if name.endswith("train")]
    if len(train) == 1:
        return train[0]
    raise DataError(
        f"{folder} holds several sets of IDX files",
        got=", ".join(path.name for path in found),
        expected="one that is called train",
        remedy="name the images file itself",
    )


def images_from_idx(path: Path, size: int, images: int = 0) -> ImageSource:
    """The images of an IDX file, and the labels of the file beside it (`…-images-idx3-ubyte`, `…-labels-idx1-ubyte`).

    Images of up to an eighth less than `size` get a margin of zeros (28 pixels become 32), larger ones are reduced.

    Args:
        path: the file with the images.
        images: only the first this many; 0 for all.

    Returns:
        uint8 [N, size, size, 1]; labels {"class": int64 [N]} where there is a labels file.

    Raises:
        DataError: a header is none, or promises what is not there; the labels are not as many as the images.
    """
    with ExitStack() as stack:
        file = _opened(path, stack)
        count, height, width = _header(file, path, 3)
        if height != width or not 1 <= height <= _MOST_SIDE or count < 2:
            raise DataError(
                f"{path} holds no square images",
                got=f"{count} of {height}×{width}",
                expected=f"at least two, of 1 to {_MOST_SIDE} pixels a side",
            )
        wanted = min(images or count, count)
        check_side(str(path), height, size, margin=True)
        check_memory(str(path), wanted, size)
        _check_length(path, 16 + count * height * width)
        pixels = np.empty((wanted, size, size, 1), np.uint8)
        rows = max(1, _PIECE_BYTES // (height * width))
        for first in range(0, wanted, rows):
            n = min(rows, wanted - first)
            piece = np.frombuffer(_exactly(file, n * height * width, path), np.uint8)
            resized(piece.reshape(n, height, width, 1), pixels[first : first + n])
        if wanted == count:
            _expect_end(file, path)
    labels = _labels_beside(path, count)
    name = _IMAGES_NAME.match(path.name)
    source = (
        path.resolve().parent.name if name is None or not name["set"] else f"{path.resolve().parent.name}-{name['set']}"
    )
    if labels is None:
        return ImageSource(source, pixels)
    classes = tuple(str(k) for k in range(int(labels.max()) + 1))
    return ImageSource(source, pixels, {"class": labels[:wanted]}, classes={"class": classes})


def _labels_beside(path: Path, count: int) -> NDArray[np.int64] | None:
    if not _IMAGES_NAME.match(path.name):
        return None
    stem = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    beside = [path.with_name(stem), path.with_name(stem + ".gz")]
    found = next((file for file in beside if file.is_file()), None)
    if found is None:
        return None
    with ExitStack() as stack:
        file = _opened(found, stack)
        (labels,) = _header(file, found, 1)
        if labels != count:
            raise DataError(f"{found} is not of {path.name}", got=f"{labels} labels", expected=f"{count}")
        _check_length(found, 8 + count)
        values = np.frombuffer(_exactly(file, count, found), np.uint8).astype(np.int64)
        _expect_end(file, found)
    return values


def _opened(path: Path, stack: ExitStack) -> BinaryIO:
    try:
        file = stack.enter_context(path.open("rb"))
        start = file.read(2)
        file.seek(0)
    except OSError as error:
        raise DataError(f"{path} cannot be read", got=error.strerror) from error
    return cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=file))) if start == _GZIP else file


def _header(file: BinaryIO, path: Path, dimensions: int) -> Sequence[int]:
    start = _exactly(file, 4, path)
    if start != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        what = "images" if dimensions == 3 else "labels"
        raise DataError(
            f"{path} is no IDX file of {what}",
            got=f"it begins with {start.hex(' ')}",
            expected=f"00 00 08 {dimensions:02x}: unsigned bytes in {dimensions} dimensions",
            remedy="name the file with the images" if dimensions == 3 else "remove the file, or download it again",
        )
    return [int(value) for value in np.frombuffer(_exactly(file, 4 * dimensions, path), ">u4")]


def _check_length(path: Path, expected: int) -> None:
    """Of a plain file, before anything is allocated; a gzipped one shows when it is read."""
    with path.open("rb") as file:
        if file.read(2) == _GZIP:
            return
    length = path.stat().st_size
    if length != expected:
        raise DataError(
            f"{path} is not as long as its header says",
            got=f"{length:,} bytes",
            expected=f"{expected:,}",
            remedy=_REMEDY,
        )


def _exactly(file: BinaryIO, count: int, path: Path) -> bytes:
    parts, missing = [], count
    try:
        while missing:
            part = file.read(min(missing, _PIECE_BYTES))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged", got=str(error), remedy=_REMEDY) from error
    if missing:
        raise DataError(f"{path} ends too early", got=f"{missing:,} bytes are missing", remedy=_REMEDY)
    return b"".join(parts)


def _expect_end(file: BinaryIO, path: Path) -> None:
    try:
        more = file.read(1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged", got=str(error), remedy=_REMEDY) from error
    if more:
        raise DataError(f"{path} goes on after its last item", expected="the end of the file", remedy=_REMEDY)
