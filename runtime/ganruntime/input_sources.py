"""Sources of inputs: a picture, a folder of pictures, or an array file, hashed when opened and again when read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ganruntime import input_arrays, input_pictures
from ganruntime.errors import InputError
from ganruntime.sizes import Size
from ganruntime.spec import GeneratorSpec, Image, TensorSpec


@dataclass(frozen=True)
class FileRow:
    """What one image was given for an input: the file, its SHA-256, and where the file holds many rows, which of them.

    size: of a picture, (height, width).
    """

    path: Path
    sha256: str
    row: int | None = None
    size: Size | None = None

    def to_json(self) -> dict[str, Any]:
        """What a replay record says; the name without its folder, for records travel."""
        said: dict[str, Any] = {"file": self.path.name, "sha256": self.sha256}
        return said if self.row is None else said | {"row": self.row}


class Source(Protocol):
    """What is given for one input."""

    count: int | None  # rows, one per image; None: the same for every image

    @property
    def sha256(self) -> str: ...

    def at(self, index: int) -> FileRow: ...

    def row(self, index: int) -> NDArray[np.generic]: ...

    def lines(self) -> Iterator[dict[str, Any]]: ...


class Pictures:
    """One picture for every image, or a picture per image, in the order of their names."""

    def __init__(self, tensor: TensorSpec, paths: list[Path], *, each: bool) -> None:
        self._tensor = tensor
        self.count = len(paths) if each else None
        self._files: list[FileRow] = []
        for path in paths:
            data = _bytes_of(path)
            size = input_pictures.size_of_picture(data, tensor, str(path))
            self._files.append(FileRow(path, hashlib.sha256(data).hexdigest(), size=size))
        self._last: tuple[Path, NDArray[np.generic]] | None = None

    @property
    def sha256(self) -> str:
        """Of the file, or of the hashes of a folder's pictures in order, a line each."""
        if self.count is None:
            return self._files[0].sha256
        return hashlib.sha256("".join(f.sha256 + "\n" for f in self._files).encode()).hexdigest()

    def at(self, index: int) -> FileRow:
        return self._files[0 if self.count is None else index]

    def row(self, index: int) -> NDArray[np.generic]:
        file = self.at(index)
        if self._last is None or self._last[0] != file.path:
            data = _bytes_of(file.path)
            _require_unchanged(file.path, hashlib.sha256(data).hexdigest(), file.sha256)
            self._last = file.path, input_pictures.values_from_picture(data, self._tensor, str(file.path))
        return self._last[1]

    def lines(self) -> Iterator[dict[str, Any]]:
        for index, file in enumerate(self._files):
            yield {
                "index": None if self.count is None else index,
                "path": str(file.path.resolve()),
                "sha256": file.sha256,
                "size": file.size,
            }


class Array:
    """An array file: one row for every image, or a row per image."""

    def __init__(self, spec: GeneratorSpec, tensor: TensorSpec, path: Path) -> None:
        data = _bytes_of(path)
        self._path = path
        self.sha256 = hashlib.sha256(data).hexdigest()
        value = input_arrays.array_from_bytes(data, path.suffix.lower(), tensor, str(path))
        self._rows: NDArray[np.generic]
        self._rows, each = input_arrays.rows_from_value(spec, tensor, value, str(path))
        self.count = len(self._rows) if each else None
        axes = tensor.role.height_and_width if isinstance(tensor.role, Image) else None
        self._size = None if axes is None else (self._rows.shape[1 + axes[0]], self._rows.shape[1 + axes[1]])

    def at(self, index: int) -> FileRow:
        return FileRow(self._path, self.sha256, None if self.count is None else index, self._size)

    def row(self, index: int) -> NDArray[np.generic]:
        row: NDArray[np.generic] = self._rows[0 if self.count is None else index]
        return row

    def lines(self) -> Iterator[dict[str, Any]]:
        yield {
            "index": None,
            "path": str(self._path.resolve()),
            "sha256": self.sha256,
            "size": self._size,
            "rows": self.count,
        }


def source_from_path(spec: GeneratorSpec, tensor: TensorSpec, path: Path) -> Source:
    """Opens what a path names. Raises `InputError` where it is nothing that the input takes."""
    image = isinstance(tensor.role, Image)
    suffix = path.suffix.lower()
    if path.is_dir():
        if not image:
            raise InputError(f"{path} is a folder, and input {tensor.name!r} is no image", expected=expected_of(tensor))
        pictures = sorted(p for p in path.iterdir() if _is_picture(p))
        if not pictures:
            raise InputError(f"{path} holds no pictures", expected=", ".join(input_pictures.SUFFIXES))
        return Pictures(tensor, pictures, each=True)
    if not path.exists():
        raise InputError(f"{path} does not exist", got=f"--input {tensor.name}={path}", expected=expected_of(tensor))
    if image and suffix in input_pictures.SUFFIXES:
        return Pictures(tensor, [path], each=False)
    if suffix not in input_arrays.SUFFIXES:
        raise InputError(f"{path} is nothing that input {tensor.name!r} takes", expected=expected_of(tensor))
    return Array(spec, tensor, path)


def expected_of(tensor: TensorSpec) -> str:
    arrays = ", ".join(input_arrays.SUFFIXES)
    if isinstance(tensor.role, Image):
        return f"a picture ({', '.join(input_pictures.SUFFIXES)}), a folder of them, or an array ({arrays})"
    return f"an array ({arrays}), or a value such as {'7' if not tensor.shape else '[…]'}"


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in input_pictures.SUFFIXES and not path.name.startswith(".") and path.is_file()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}", got=error.strerror) from error


def _require_unchanged(path: Path, now: str, then: str) -> None:
    if now != then:
        raise InputError(f"{path} was changed since the run began", got=f"SHA-256 {now}", expected=f"SHA-256 {then}")
