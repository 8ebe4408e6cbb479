"""Where images go: a folder of PNG files, one array file, or one sheet. What is interrupted leaves whole files only."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import tempfile
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.bundle.manifest import MANIFEST_NAME
from ganruntime.errors import InputError, OutputError
from ganruntime.files import is_alive, output_error, write_atomically
from ganruntime.images import pil_from_image, sheet_from_images
from ganruntime.spec import GeneratorSpec

SHEET_LIMIT_IMAGES = 10_000
_OTHER_SUFFIXES = {".npy", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".zip", ".tar", ".mp4"}


class ImageWriter(ABC):
    """Takes images in the order of their indices. Used as a context manager; what was added when it ends is kept.

    Attributes:
        written: images that lie in whole files by now.
    """

    def __init__(self, path: Path, seed: int, first: int) -> None:
        self.path = path
        self.seed = seed
        self.first = first
        self.written = 0

    @abstractmethod
    def add(self, images: NDArray[Any]) -> None:
        """Takes the next [b, H, W, C]. Raises `OutputError` where the disk is full or may not be written."""

    @abstractmethod
    def finish(self) -> None:
        """Completes the file of what was added; called once, also after an interruption."""

    def discard(self) -> None:  # noqa: B027  most hold nothing
        """Gives up what is not in whole files."""

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failed write the disk holds no more, and finishing would only hide the cause.
        if kind is None or not issubclass(kind, OSError):
            self.finish()
        else:
            self.discard()


class PngFolder(ImageWriter):
    """One PNG file per image, `seed7-00000123.png`: the name says how to draw it again."""

    def __init__(self, path: Path, seed: int, first: int) -> None:
        super().__init__(path, seed, first)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(path, error) from error
        self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        """Removes what killed runs left of images that were being written."""
        with contextlib.suppress(OSError):
            for partial in self.path.glob(".seed*.partial-*"):
                pid = partial.name.rpartition("-")[2]
                if pid.isdecimal() and not is_alive(int(pid)):
                    partial.unlink(missing_ok=True)

    def add(self, images: NDArray[Any]) -> None:
        for image in images:
            index = self.first + self.written
            target = self.path / f"seed{self.seed}-{index:08d}.png"
            partial = self.path / f".{target.name}.partial-{os.getpid()}"
            try:
                # Without fsync: a file each would cost more than drawing it, and any of them can be drawn again.
                with partial.open("wb") as file:
                    pil_from_image(image).save(file, "PNG")
                partial.replace(target)
            except OSError as error:
                raise output_error(target, error) from error
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
            self.written += 1

    def finish(self) -> None:
        pass


class NpzFile(ImageWriter):
    """One .npz file: `images` [n, …] in order, `seed` and `first`. Memory stays bounded: pixels wait on the disk."""

    def __init__(self, path: Path, seed: int, first: int) -> None:
        super().__init__(path, seed, first)
        self._added = 0
        self._shape: tuple[int, ...] | None = None
        self._dtype = np.dtype(np.uint8)
        try:
            self._spool: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  closed by finish
        except OSError as error:
            raise output_error(path, error) from error

    def add(self, images: NDArray[Any]) -> None:
        self._shape, self._dtype = images.shape[1:], images.dtype
        try:
            self._spool.write(np.ascontiguousarray(images).tobytes())
            self._spool.flush()
        except OSError as error:
            raise output_error(self.path, error) from error
        self._added += len(images)

    def finish(self) -> None:
        with self._spool:
            if self._shape is None:
                return
            partial = self.path.parent / f".{self.path.name}.partial-{os.getpid()}"
            try:
                with partial.open("wb") as file:
                    self._write(file)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(self.path)
            except OSError as error:
                raise output_error(self.path, error) from error
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
        self.written = self._added

    def discard(self) -> None:
        with contextlib.suppress(OSError):
            self._spool.close()

    def _write(self, file: IO[bytes]) -> None:
        assert self._shape is not None
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._added, *self._shape),
        }
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            # A ZipInfo has no time of day: the same images are the same file.
            with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_2_0(member, header)
                # A chunk may have been cut off by an interruption; the header counts whole chunks only.
                self._spool.seek(0)
                _copy(self._spool, member, self._added * int(np.prod(self._shape)) * self._dtype.itemsize)
            for name, value in (("seed", self.seed), ("first", self.first)):
                buffer = io.BytesIO()
                np.save(buffer, np.uint64(value))
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())


class SheetFile(ImageWriter):
    """One PNG with all images, in rows."""

    def __init__(self, path: Path, seed: int, first: int, columns: int | None = None) -> None:
        super().__init__(path, seed, first)
        self.columns = columns
        self._images: list[NDArray[Any]] = []

    def add(self, images: NDArray[Any]) -> None:
        self._images.append(images)

    def finish(self) -> None:
        if not self._images:
            return
        images = np.concatenate(self._images)
        buffer = io.BytesIO()
        # No wider than what there is to show: an interrupted run may hold less than a row.
        columns = min(self.columns, len(images)) if self.columns is not None else None
        sheet_from_images(images, columns).save(buffer, "PNG")
        write_atomically(self.path, buffer.getvalue())
        self.written = len(images)


def writer_for(
    path: Path, spec: GeneratorSpec, count: int, seed: int, first: int, columns: int | None = None
) -> ImageWriter:
    """The writer that a path means: NAME.npz, NAME.png (a sheet), or a folder.

    Raises:
        InputError: the path means something else, or the generator's outputs do not fit it.
        OutputError: the path cannot be written.
    """
    suffix = path.suffix.lower()
    if columns is not None and suffix != ".png":
        raise InputError("only a sheet has columns", got=f"{columns} columns of {path}", remedy="-o NAME.png")
    if suffix == ".npz":
        _require_no_folder(path)
        return NpzFile(path, seed, first)
    channels = spec.image.channels if spec.image is not None else None
    if channels not in (1, 3, 4):
        raise InputError(
            f"{spec.name} draws nothing that a PNG can hold",
            got=f"{channels} channels",
            expected="1, 3 or 4",
            remedy="-o NAME.npz",
        )
    if suffix == ".png":
        _require_no_folder(path)
        if count > SHEET_LIMIT_IMAGES:
            raise InputError(
                "too many images for one sheet",
                got=count,
                expected=f"at most {SHEET_LIMIT_IMAGES}",
                remedy="-o FOLDER or NAME.npz",
            )
        return SheetFile(path, seed, first, columns)
    if suffix in _OTHER_SUFFIXES:
        raise InputError(
            f"{path}: images are not written as {suffix}",
            expected="a folder (PNG files), NAME.npz or NAME.png (a sheet)",
        )
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file", expected="a folder, NAME.npz or NAME.png")
    if (path / MANIFEST_NAME).exists():
        raise InputError(f"{path} is a bundle", expected="a folder for images, NAME.npz or NAME.png")
    return PngFolder(path, seed, first)


def _require_no_folder(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder", expected="a file name", remedy="choose another name")
    if not path.parent.is_dir():
        quoted = shlex.quote(str(path.parent))
        raise OutputError(f"cannot write {path}", got="its folder does not exist", remedy=f"mkdir -p {quoted}")


def _copy(source: IO[bytes], target: IO[bytes], size_bytes: int) -> None:
    left = size_bytes
    while left:
        chunk = source.read(min(left, 1 << 20))
        if not chunk:
            raise OSError("the spool ended early")
        target.write(chunk)
        left -= len(chunk)
