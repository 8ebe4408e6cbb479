"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009): the archives as
they are downloaded, or the folders in them, in the binary or the Python version.

Training images only: the test batch is for measuring, and can be named by itself where it is one of the binary version.
Nothing is unpacked to the disk, and no pickle is loaded (`gantrain.data.cifar_pickle`). In memory while it is read: the
batches twice (50,000 images take 154 MB), and the images at the size to train on.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import DataError
from gantrain.data.cifar_pickle import MOST_BYTES, table_from_pickle
from gantrain.data.small_images import check_side, resized
from gantrain.data.source import ImageSource

SIDE = 32
_PIXELS = 3 * SIDE * SIDE
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FILES = re.compile(
    r"^(data_batch_[1-5](\.bin)?|train(\.bin)?|batches\.meta(\.txt)?|meta|(fine|coarse)_label_names\.txt)$"
)
_REMEDY = "download the archive again, and compare its checksum"


@dataclass(frozen=True)
class _Batch:
    """pixels: uint8 [N, 3072], planes R, G, B. labels: attribute -> int64 [N]."""

    pixels: NDArray[np.uint8]
    labels: dict[str, NDArray[np.int64]]


def is_cifar_folder(folder: Path) -> bool:
    """Whether the folder holds a training batch of CIFAR's."""
    names = ("data_batch_1", "data_batch_1.bin", "train.bin")
    cifar100 = (folder / "train").is_file() and (folder / "meta").is_file()
    return cifar100 or any((folder / name).is_file() for name in names)


def images_from_cifar(path: Path, size: int, images: int = 0) -> ImageSource:
    """The training images of CIFAR-10 or CIFAR-100.

    Args:
        path: an archive (`.tar.gz`), the folder that was in it, or one file of the binary version (`.bin`).
        images: only the first this many; 0 for all.

    Returns:
        uint8 [N, size, size, 3], size at most 32; labels {"class"} for CIFAR-10, {"fine", "coarse"} for CIFAR-100.

    Raises:
        DataError: it is none of these, or a file in it is damaged or made to do harm; names the file.
    """
    check_side(str(path), SIDE, size, margin=False)
    files = {PurePosixPath(name).name: data for name, data in _files(path)}
    batches = [
        _batch(name, data, f"{path}: {name}" if path.suffix != ".bin" else str(path))
        for name, data in sorted(files.items())
        if name.startswith(("data_batch", "train")) or path.suffix == ".bin"
    ]
    if not batches:
        raise DataError(
            f"{path} holds no CIFAR",
            got=", ".join(sorted(files)) or "no file that CIFAR has",
            expected="data_batch_1 to data_batch_5, or train, plain or with .bin",
            remedy="name the archive as it was downloaded, or the folder that was in it",
        )
    kinds = {frozenset(batch.labels) for batch in batches}
    if len(kinds) != 1:
        raise DataError(
            f"{path} holds batches of CIFAR-10 and of CIFAR-100", remedy="keep them in folders of their own"
        )
    pixels = np.concatenate([batch.pixels for batch in batches])[: images or None]  # [N, 3072]
    result = np.empty((len(pixels), size, size, 3), np.uint8)
    resized(pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), result)
    labels = {
        attribute: np.concatenate([batch.labels[attribute] for batch in batches])[: images or None]
        for attribute in batches[0].labels
    }
    return ImageSource(
        "cifar10" if "class" in labels else "cifar100", result, labels, classes=_classes(files, labels, path)
    )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every file that CIFAR has, or of the one `.bin` that was named."""
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if _FILES.match(file.name))
    elif path.suffix == ".bin":
        found = [path]
    else:
        yield from _members(path)
        return
    for file in found:
        with _reading(path):
            length = file.stat().st_size
            _check_size(str(file), length)
            yield file.name, file.read_bytes()


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    total = 0
    with _reading(path), tarfile.open(path, "r|*") as archive:
        for member in archive:
            total += member.size
            _check_size(f"{path}: {member.name}", total)
            if not member.isfile() or not _FILES.match(PurePosixPath(member.name).name):
                continue
            file = archive.extractfile(member)
            assert file is not None  # it is a plain file
            data = file.read(member.size)
            if len(data) != member.size:
                raise DataError(f"{path}: {member.name} ends too early", remedy=_REMEDY)
            yield member.name, data


def _check_size(name: str, length: int) -> None:
    if length > MOST_BYTES:
        raise DataError(f"{name} is larger than CIFAR is", got=f"{length:,} bytes", expected=f"at most {MOST_BYTES:,}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{path} is no archive that can be read", got=str(error), expected="CIFAR's .tar.gz", remedy=_REMEDY
        ) from error


def _batch(name: str, data: bytes, where: str) -> _Batch:
    return _batch_from_bin(data, where) if name.endswith(".bin") else _batch_from_pickle(data, where)


def _batch_from_bin(data: bytes, where: str) -> _Batch:
    """Records of a label byte (CIFAR-10) or a coarse and a fine one (CIFAR-100), and 3,072 pixel bytes."""
    for attributes, tops in ((("class",), (10,)), (("coarse", "fine"), (20, 100))):
        width = len(attributes) + _PIXELS
        if data and len(data) % width == 0:
            records = np.frombuffer(data, np.uint8).reshape(-1, width)
            labels = {name: records[:, k].astype(np.int64) for k, name in enumerate(attributes)}
            if all(labels[name].max() < top for name, top in zip(attributes, tops, strict=True)):
                return _Batch(records[:, len(attributes) :], labels)
    raise DataError(
        f"{where} is no binary batch of CIFAR",
        got=f"{len(data):,} bytes",
        expected=f"records of {1 + _PIXELS} bytes (CIFAR-10) or {2 + _PIXELS} (CIFAR-100), labels within their classes",
        remedy=_REMEDY,
    )


def _batch_from_pickle(data: bytes, where: str) -> _Batch:
    table = table_from_pickle(data, where)
    pixels = table.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(pixels) < 1:
        raise DataError(f"{where} holds no images", expected=f"data: uint8 [N, {_PIXELS}]", remedy=_REMEDY)
    found = {"class": table.get("labels")} if "labels" in table else {
        "coarse": table.get("coarse_labels"), "fine": table.get("fine_labels")
    }  # fmt: skip
    tops = {"class": 10, "coarse": 20, "fine": 100}
    labels = {name: _label_values(values, len(pixels), tops[name], where) for name, values in found.items()}
    return _Batch(pixels, labels)


def _label_values(values: Any, count: int, top: int, where: str) -> NDArray[np.int64]:
    whole = isinstance(values, list) and all(type(value) is int and 0 <= value < top for value in values)
    if not whole or len(values) != count:
        raise DataError(f"{where} holds no labels", expected=f"{count} integers from 0 to {top - 1}", remedy=_REMEDY)
    return np.array(values, np.int64)


def _classes(files: dict[str, bytes], labels: dict[str, NDArray[np.int64]], path: Path) -> dict[str, tuple[str, ...]]:
    if "class" in labels:
        return {"class": CIFAR10}
    named: dict[str, tuple[str, ...]] = {}
    meta = table_from_pickle(files["meta"], f"{path}: meta") if "meta" in files else {}
    for attribute, count in (("coarse", 20), ("fine", 100)):
        lines = files.get(f"{attribute}_label_names.txt", b"").split() or meta.get(f"{attribute}_label_names")
        lines = lines if isinstance(lines, list) else []
        names = tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in lines)
        whole = len(names) == count == len(set(names)) and all(names)
        named[attribute] = names if whole else tuple(str(k) for k in range(count))
    return named
