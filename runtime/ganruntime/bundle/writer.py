"""Writing a bundle: whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ganruntime.bundle.manifest import MANIFEST_NAME, FileRecord, GoldenRecord, Manifest, Variant, file_name
from ganruntime.bundle.reader import read_bundle
from ganruntime.bundle.tuning import Tuning
from ganruntime.errors import BundleFormatError, BundleIntegrityError, InputError, OutputError
from ganruntime.files import folder_written_atomically
from ganruntime.spec import GeneratorSpec


class BundleDraft:
    """A bundle being written. Put files in, name the variants, and leave the `with` block."""

    def __init__(self, folder: Path, spec: GeneratorSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.files: dict[str, FileRecord] = {}
        self.variants: list[Variant] = []
        self.golden: GoldenRecord | None = None
        self.preview: str | None = None
        self.reports: dict[str, Any] = {}
        self.tunings: list[Tuning] = []

    def add(self, name: str, data: bytes) -> None:
        """Writes a file of the bundle and records its hash. A file of that name is replaced."""
        file_name(name, "bundle file")
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # Unlinked first: the old file may be a hard link into the bundle that is being replaced.
        target.unlink(missing_ok=True)
        target.write_bytes(data)
        self.files[name] = FileRecord(hashlib.sha256(data).hexdigest(), len(data))

    def put_variant(self, variant: Variant) -> None:
        """Adds a variant behind the others, or in the place of one of the same name: their order is a preference."""
        if variant.name in [v.name for v in self.variants]:
            self.variants = [variant if v.name == variant.name else v for v in self.variants]
        else:
            self.variants = [*self.variants, variant]

    def put_tuning(self, tuning: Tuning) -> None:
        """Adds a tuning, in place of one of the same machine and versions."""
        self.tunings = [*(t for t in self.tunings if t.place != tuning.place), tuning]

    def manifest(self) -> Manifest:
        if self.golden is None:
            raise BundleFormatError("the bundle has no golden samples")
        return Manifest(
            self.spec,
            dict(sorted(self.files.items())),
            tuple(self.variants),
            self.golden,
            self.preview,
            self.reports,
            tuple(self.tunings),
        )


@contextlib.contextmanager
def bundle_written(path: Path | str, spec: GeneratorSpec) -> Iterator[BundleDraft]:
    """Yields a draft; on success it becomes the bundle at `path`, replacing one there; on an error nothing changes.

    It takes its place when no `bundle_changed` is under way, so that a change of the old bundle does not undo it.

    Raises:
        InputError: `path` is something other than a bundle, which is not overwritten.
        OutputError: the disk is full or may not be written.
    """
    path = Path(path)
    with contextlib.ExitStack() as lock, _written(path, spec) as draft:
        yield draft
        lock.enter_context(_one_writer(path))


@contextlib.contextmanager
def _written(path: Path, spec: GeneratorSpec) -> Iterator[BundleDraft]:
    if path.is_dir() and any(path.iterdir()) and not (path / MANIFEST_NAME).is_file():
        raise InputError(
            f"{path} is a folder that is not a bundle",
            expected="a new name, or a bundle to replace",
            remedy="choose another name",
        )
    with folder_written_atomically(path) as folder:
        draft = BundleDraft(folder, spec)
        yield draft
        (folder / MANIFEST_NAME).write_text(draft.manifest().dumps(), encoding="utf-8")


@contextlib.contextmanager
def bundle_changed(path: Path | str) -> Iterator[BundleDraft]:
    """Yields a draft that holds what the bundle at `path` holds, to add an engine or a verdict; written whole again.

    Writers of one bundle wait for each other. Files that stay are hard links where the file system has them.

    Raises:
        BundleError: there is no bundle at `path`, or it is malformed.
        OutputError: the disk is full or may not be written.
    """
    path = Path(path)
    with _one_writer(path):
        bundle = read_bundle(path)
        with _written(path, bundle.spec) as draft:
            for name, record in bundle.manifest.files.items():
                try:
                    _link_or_copy(path / name, draft.folder / name)
                except FileNotFoundError as error:
                    raise BundleIntegrityError(
                        f"{path}: {name} is missing", remedy="export the bundle again, or copy it again"
                    ) from error
                draft.files[name] = record
            draft.variants = list(bundle.manifest.variants)
            draft.golden, draft.preview = bundle.manifest.golden, bundle.manifest.preview
            draft.reports = dict(bundle.manifest.reports)
            draft.tunings = list(bundle.manifest.tunings)
            yield draft


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)


@contextlib.contextmanager
def _one_writer(path: Path) -> Iterator[None]:
    """Holds a lock on the bundle's parent folder: the bundle itself is exchanged, and a lock would go with it."""
    with contextlib.ExitStack() as closing:
        try:
            descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            closing.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise OutputError(f"cannot write beside {path}", got=error.strerror) from error
        yield
