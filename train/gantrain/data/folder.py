"""A folder of pictures, subfolders too, in the order of their paths."""

from __future__ import annotations

import os
from pathlib import Path

from ganruntime.errors import DataError
from gantrain.data.dataset_json import FILE, Labels, labels_from_dataset_json, labels_from_folders
from gantrain.data.picture import SUFFIXES, BrokenPicture, images_from_pictures, is_picture
from gantrain.data.source import ImageSource


def images_from_folder(path: Path, size: int, images: int = 0, broken: str = "skip") -> ImageSource:
    """Every picture below `path`; of these the first `images`, if that is not 0.

    Labels are those of a `dataset.json` in the folder; without one, the subfolders are the classes where every picture
    lies in one. Files that are no pictures by their name are left out and listed in the source's `skipped`, and so are
    broken ones; links to folders are not followed.

    Args:
        broken: `skip` leaves broken pictures out, `stop` raises for the first.

    Raises:
        DataError: there are no pictures (or only one), or one is too small or too large, or broken where that is to
            stop it, or the labels do not fit; names the file.
    """
    pictures: list[str] = []
    skipped: list[str] = []

    def unreadable(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be read", got=error.strerror, remedy="check the permissions of this folder"
        ) from error

    for folder, _, files in os.walk(path, onerror=unreadable):
        for file in files:
            relative = (Path(folder) / file).relative_to(path).as_posix()
            (pictures if is_picture(relative) else skipped).append(relative)
    pictures.sort()
    if len(pictures) < 2:
        raise DataError(
            f"{path} holds no pictures" if not pictures else f"{path} holds only one picture",
            got=f"{len(pictures) + len(skipped)} files" + (f", such as {sorted(skipped)[0]}" if skipped else ""),
            expected="at least two files ending in " + ", ".join(SUFFIXES),
            remedy="name the folder that the pictures are in (its subfolders are searched too)",
        )
    labels = _labels(path, pictures, has_file=FILE in skipped)
    names = [str(path / name) for name in pictures[: images or None]]
    found = images_from_pictures(names, _read, size, broken)
    others = [name for name in skipped if name != FILE] + [pictures[names.index(name)] for name in found.broken]
    return ImageSource(path.resolve().name, found.images, labels.of(found.kept), tuple(sorted(others)), labels.classes)


def _labels(path: Path, pictures: list[str], *, has_file: bool) -> Labels:
    if not has_file:
        return labels_from_folders(pictures)
    try:
        data = (path / FILE).read_bytes()
    except OSError as error:
        raise DataError(f"{path / FILE} cannot be read", got=error.strerror) from error
    return labels_from_dataset_json(data, str(path / FILE), pictures)


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise BrokenPicture(
            f"{name} cannot be read", got=error.strerror, remedy="repair or remove this file"
        ) from error
