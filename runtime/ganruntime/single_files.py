"""Single files: all images of a run in one array (.npz, .npy) or on one sheet (.png)."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import zipfile
from abc import abstractmethod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.chunks import Drawn
from ganruntime.files import output_error, write_atomically
from ganruntime.image_writer import ImageWriter
from ganruntime.images import sheet_from_images


class ArrayFile(ImageWriter):
    """One file with `images` [n, …] in order. Memory stays bounded: pixels wait on the disk."""

    def __init__(self, path: Path, count: int, seed: int, first: int) -> None:
        super().__init__(path, count)
        self.seed = seed
        self.first = first
        self._added = 0
        self._shape: tuple[int, ...] | None = None
        self._dtype = np.dtype(np.uint8)
        try:
            self._spool: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115  closed by finish
        except OSError as error:
            raise output_error(path, error) from error

    def add(self, drawn: Drawn) -> None:
        images = drawn.images
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

    @abstractmethod
    def _write(self, file: IO[bytes]) -> None:
        """Writes the whole file."""

    def _write_images(self, file: IO[bytes]) -> None:
        """Writes `images` as a .npy stream."""
        assert self._shape is not None
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._added, *self._shape),
        }
        np.lib.format.write_array_header_2_0(file, header)
        # A chunk may have been cut off by an interruption; the header counts whole chunks only.
        self._spool.seek(0)
        copy_bytes(self._spool, file, self._added * int(np.prod(self._shape)) * self._dtype.itemsize)


class NpyFile(ArrayFile):
    """One .npy file: the images and nothing else; `numpy.load(path, mmap_mode="r")` reads it without loading it."""

    def _write(self, file: IO[bytes]) -> None:
        self._write_images(file)


class NpzFile(ArrayFile):
    """One .npz file: `images` [n, …], `seed` and `first`."""

    def _write(self, file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            # A ZipInfo has no time of day: the same images are the same file.
            with archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True) as member:
                self._write_images(member)
            for name, value in (("seed", self.seed), ("first", self.first)):
                buffer = io.BytesIO()
                np.save(buffer, np.uint64(value))
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())


class SheetFile(ImageWriter):
    """One PNG with all images, in rows."""

    def __init__(self, path: Path, count: int, columns: int | None = None) -> None:
        super().__init__(path, count)
        self.columns = columns
        self._images: list[NDArray[Any]] = []

    def add(self, drawn: Drawn) -> None:
        self._images.append(drawn.images)

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


def copy_bytes(source: IO[bytes], target: IO[bytes], size_bytes: int) -> None:
    left = size_bytes
    while left:
        chunk = source.read(min(left, 1 << 20))
        if not chunk:
            raise OSError("the spool ended early")
        target.write(chunk)
        left -= len(chunk)
