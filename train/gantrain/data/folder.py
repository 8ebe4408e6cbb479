"""A folder of pictures, subfolders too, in the order of their paths."""

from __future__ import annotations

import os
from pathlib import Path

from ganruntime.errors import DataError
from gantrain.data.picture import SUFFIXES, images_from_pictures, is_picture
from gantrain.data.source import ImageSource


def images_from_folder(path: Path, size: int, images: int = 0) -> ImageSource:
    """Every picture below `path`; of these the first `images`, if that is not 0.

    Files that are no pictures by their name are left out and listed in the source's `skipped`; links to folders are
    not followed.

    Raises:
        DataError: there are no pictures (or only one), or one is broken, too small or too large; names the file.
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
    names = [str(path / name) for name in pictures[: images or None]]
    return ImageSource(path.resolve().name, images_from_pictures(names, _read, size), skipped=tuple(sorted(skipped)))


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read", got=error.strerror, remedy="repair or remove this file") from error
