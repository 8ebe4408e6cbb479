"""A zip of pictures, read in place: nothing is unpacked to the disk."""

from __future__ import annotations

import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from ganruntime.errors import DataError
from gantrain.data.dataset_json import FILE, Labels, labels_from_dataset_json, labels_from_folders
from gantrain.data.picture import SUFFIXES, BrokenPicture, images_from_pictures, is_picture
from gantrain.data.source import ImageSource

MOST_MEMBER_BYTES = 256 << 20
_MOST_RATIO = 200  # deflate reaches 1,032; a picture, compressed already, stays near 1, and an empty bitmap below 200
_RATIO_FROM_BYTES = 16 << 20
_ENCRYPTED = 0x1


def images_from_zip(path: Path, size: int, images: int = 0, broken: str = "skip") -> ImageSource:
    """Every picture in the zip, in the order of their names; of these the first `images`, if that is not 0.

    Labels are those of a `dataset.json` in the zip, as StyleGAN2-ADA writes it; without one, the folders in the zip are
    the classes where every picture lies in one. Files that are no pictures by their name are left out and listed in the
    source's `skipped`, and so are broken ones.

    Args:
        broken: `skip` leaves broken pictures out, `stop` raises for the first.

    Raises:
        DataError: it is no zip, or is encrypted or made to do harm (paths that leave it, members that unpack to
            unreasonable sizes); or there are no pictures (or only one); or one is too small or too large, or broken
            where that is to stop it; or the labels do not fit.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path} is not a zip",
            got=str(error),
            expected="a zip of images, a file of IDX images, or a CIFAR archive",
            remedy="pack the pictures again: zip -r images.zip FOLDER",
        ) from error
    with archive:
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        pictures = sorted(name for name in members if is_picture(name))
        skipped = tuple(sorted(name for name in members if not is_picture(name)))
        for name in members:
            _check_path(path, name)
        if len(pictures) < 2:
            raise DataError(
                f"{path} holds no pictures" if not pictures else f"{path} holds only one picture",
                got=f"{len(members)} files" + (f", such as {skipped[0]}" if skipped else ""),
                expected="at least two files ending in " + ", ".join(SUFFIXES),
                remedy="pack the pictures themselves, not a zip of them",
            )
        labels = _labels(archive, path, members, pictures)
        pictures = pictures[: images or None]
        for name in pictures:
            _check_member(path, members[name])
        lock = threading.Lock()  # a ZipFile's members share one file position

        def read(name: str) -> bytes:
            with lock:
                return _bytes_of_member(archive, path, members[name.removeprefix(f"{path}: ")])

        found = images_from_pictures([f"{path}: {name}" for name in pictures], read, size, broken)
    others = [name for name in skipped if name != FILE]
    others += [name.removeprefix(f"{path}: ") for name in found.broken]
    return ImageSource(path.stem, found.images, labels.of(found.kept), tuple(sorted(others)), labels.classes)


def _labels(archive: zipfile.ZipFile, path: Path, members: dict[str, zipfile.ZipInfo], pictures: list[str]) -> Labels:
    if FILE not in members:
        return labels_from_folders(pictures)
    _check_member(path, members[FILE])
    return labels_from_dataset_json(_bytes_of_member(archive, path, members[FILE]), f"{path}: {FILE}", pictures)


def _check_path(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or (parts and parts[0].endswith(":")):
        raise DataError(
            f"{path} has a member whose path leaves the zip",
            got=repr(name),
            remedy="do not trust this file; if it is yours, pack it again from inside its folder",
        )


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise DataError(
            f"{path}: {info.filename} is encrypted", remedy="unpack the zip with its password and name the folder"
        )
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > MOST_MEMBER_BYTES or (info.file_size > _RATIO_FROM_BYTES and ratio > _MOST_RATIO):
        raise DataError(
            f"{path}: {info.filename} unpacks to an unreasonable size",
            got=f"{info.file_size:,} bytes from {info.compress_size:,}",
            expected=f"a picture of at most {MOST_MEMBER_BYTES:,} bytes",
            remedy="do not trust this file; if it is yours, remove that member",
        )


def _bytes_of_member(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as member:
            # zipfile stops at the declared size, which was checked; the limit is for a release that would not.
            return member.read(MOST_MEMBER_BYTES)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BrokenPicture(
            f"{path}: {info.filename} is damaged", got=str(error), remedy="pack the pictures again"
        ) from error
