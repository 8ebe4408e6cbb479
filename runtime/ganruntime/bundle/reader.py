"""Reading a bundle. Every byte is checked against the manifest before anything parses it."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ganruntime.bundle.manifest import MANIFEST_LIMIT_BYTES, MANIFEST_NAME, Manifest, Variant
from ganruntime.bundle.npz import arrays_from_npz
from ganruntime.bundle.onnx_wire import metadata_of
from ganruntime.errors import BundleError, BundleFormatError, BundleIntegrityError, SpecError
from ganruntime.spec import GeneratorSpec

SPEC_KEY = "ganexport.spec"
_EXCHANGES = 100  # of a folder by exports, while one file is being read


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest has been read. Files are checked when they are asked for."""

    path: Path
    manifest: Manifest
    manifest_sha256: str

    @property
    def spec(self) -> GeneratorSpec:
        return self.manifest.spec

    def variant(self, name: str) -> Variant:
        """Raises `BundleFormatError` with the names that there are."""
        return self.manifest.variant(name)

    def read(self, name: str) -> bytes:
        """The bytes of a listed file, read once and checked: what is parsed is what was checked.

        Raises:
            BundleIntegrityError: the file is not listed, missing, a link, outside the bundle, truncated or edited.
            BundleError: the bundle was exported anew since it was opened.
        """
        try:
            return self._checked(name)
        except BundleIntegrityError as error:
            if self._is_replaced():
                raise BundleError(
                    f"{self.path} was exported anew since it was opened", remedy="open it again"
                ) from error
            raise

    def _is_replaced(self) -> bool:
        try:
            data = _read_plain_file(self.path, MANIFEST_NAME, limit_bytes=MANIFEST_LIMIT_BYTES)
        except (BundleError, FileNotFoundError):
            return False
        return hashlib.sha256(data).hexdigest() != self.manifest_sha256

    def _checked(self, name: str) -> bytes:
        record = self.manifest.files.get(name)
        if record is None:
            raise BundleIntegrityError(
                f"{self.path}: {name} is not a file of this bundle", expected=", ".join(sorted(self.manifest.files))
            )
        try:
            data = _read_plain_file(self.path, name, expected_bytes=record.size_bytes)
        except FileNotFoundError:
            raise _integrity(self.path, name, "is missing") from None
        found = hashlib.sha256(data).hexdigest()
        if found != record.sha256:
            raise _integrity(
                self.path,
                name,
                "was changed after the export",
                got=f"SHA-256 {found}",
                expected=f"SHA-256 {record.sha256}",
            )
        return data

    def file(self, name: str) -> Path:
        """The path of a listed file, checked as by `read`; for libraries that open paths only."""
        self.read(name)
        return self.path / name

    def graph(self, variant: Variant) -> bytes:
        """The ONNX file of a variant, checked further: whole, nothing external, and of this bundle's spec."""
        data = self.read(variant.file)
        metadata = metadata_of(data, f"{self.path}: {variant.file}")
        if SPEC_KEY in metadata:
            try:
                same = GeneratorSpec.loads(metadata[SPEC_KEY]) == self.spec
            except SpecError as error:
                raise _integrity(self.path, variant.file, "carries a malformed spec", got=error.problem) from error
            if not same:
                raise _integrity(self.path, variant.file, "carries another spec than the manifest")
        return data

    def golden(self) -> dict[str, NDArray[np.generic]]:
        """The arrays of the reference samples. Keys are described in `docs/bundle-format.md`."""
        name = self.manifest.golden.file
        return arrays_from_npz(self.read(name), f"{self.path}: {name}")


def read_bundle(path: Path | str) -> Bundle:
    """Opens a bundle: reads the manifest, and nothing else yet.

    Raises:
        BundleError: there is no bundle at `path`.
        BundleFormatError: the manifest is malformed or of a newer schema version.
        SpecError: the spec in it is malformed.
    """
    path = Path(path)
    _require_folder(path)
    try:
        data = _read_plain_file(path, MANIFEST_NAME, limit_bytes=MANIFEST_LIMIT_BYTES)
    except FileNotFoundError:
        raise BundleError(
            f"{path} is not a bundle",
            got="a folder without manifest.json",
            expected="NAME.gan/ as ganexport to-onnx writes it",
        ) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleFormatError(f"{path}: manifest.json is not UTF-8", got=str(error)) from error
    try:
        manifest = Manifest.loads(text)
    except (BundleFormatError, SpecError) as error:
        where = "" if error.problem.startswith(MANIFEST_NAME) else f"{MANIFEST_NAME}: "
        raise type(error)(
            f"{path}: {where}{error.problem}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
    return Bundle(path, manifest, hashlib.sha256(data).hexdigest())


def _require_folder(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise BundleError(
            f"no bundle at {path}", remedy="ganexport to-onnx CHECKPOINT -o NAME.gan makes one"
        ) from error
    except OSError as error:
        raise BundleError(f"the bundle at {str(path)[:400]} cannot be opened", got=error.strerror) from error
    if not stat.S_ISDIR(mode):
        raise BundleError(f"{path} is a file, and a bundle is a folder", expected="NAME.gan/ with manifest.json in it")


def _read_plain_file(
    root: Path, name: str, *, expected_bytes: int | None = None, limit_bytes: int | None = None
) -> bytes:
    """Reads root/name, following no link below root. Its size is checked before a byte of it is read.

    Raises:
        FileNotFoundError: there is no such file in the folder that stands at `root`.
    """
    for _ in range(_EXCHANGES):
        folder = None
        try:
            folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            return _read_below(folder, root, name, expected_bytes, limit_bytes)
        except FileNotFoundError:
            # An export that replaces the bundle empties the old folder; what is asked for is in the new one.
            if folder is None or _stands_at(folder, root):
                raise
        except OSError as error:
            folders = name.split("/")
            link = any((root / "/".join(folders[: i + 1])).is_symlink() for i in range(len(folders)))
            raise _integrity(
                root, name, "is a link, or lies behind one" if link else f"cannot be read ({error.strerror})"
            ) from error
        finally:
            if folder is not None:
                os.close(folder)
    raise _integrity(root, name, f"was replaced {_EXCHANGES} times while it was being read")


def _read_below(folder: int, root: Path, name: str, expected_bytes: int | None, limit_bytes: int | None) -> bytes:
    descriptors: list[int] = []
    *folders, last = name.split("/")
    try:
        # One folder at a time, relative to the one before: a folder exchanged for a link meanwhile is refused as well.
        inner = folder
        for part in folders:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=inner)
            descriptors.append(inner)
        # O_NONBLOCK: opening a named pipe would wait for a writer for ever.
        descriptors.append(os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=inner))
        status = os.fstat(descriptors[-1])
        if not stat.S_ISREG(status.st_mode):
            raise _integrity(root, name, "is not a plain file")
        if limit_bytes is not None and status.st_size > limit_bytes:
            raise BundleFormatError(
                f"{root}: {name} is too large", got=f"{status.st_size:,} bytes", expected=f"at most {limit_bytes:,}"
            )
        if expected_bytes is not None and status.st_size != expected_bytes:
            kind = "truncated" if status.st_size < expected_bytes else "longer than it was"
            raise _integrity(
                root, name, f"is {kind}", got=f"{status.st_size:,} bytes", expected=f"{expected_bytes:,} bytes"
            )
        with os.fdopen(descriptors.pop(), "rb") as file:
            return file.read(status.st_size)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _stands_at(folder: int, root: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), root.stat())
    except FileNotFoundError:
        return True  # the whole bundle is gone: as final as a missing file


def _integrity(
    root: Path, name: str, problem: str, *, got: object = None, expected: object = None
) -> BundleIntegrityError:
    return BundleIntegrityError(
        f"{root}: {name} {problem}",
        got=got,
        expected=expected,
        remedy="export the bundle again, or copy it again from where it came",
    )
