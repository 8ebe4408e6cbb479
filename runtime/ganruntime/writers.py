"""Where images go: what a path means, and the writer for it. What is interrupted leaves whole files only."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from ganruntime.bundle.manifest import MANIFEST_NAME
from ganruntime.encoding import SUFFIXES
from ganruntime.errors import InputError, OutputError
from ganruntime.image_folders import EncodedWriter, ImageFolder, TarShards
from ganruntime.image_writer import ImageWriter
from ganruntime.input_files import InputFiles
from ganruntime.runs import FOLDER_FORMATS, BundleRecord, Request
from ganruntime.single_files import NpyFile, NpzFile, SheetFile
from ganruntime.spec import GeneratorSpec

__all__ = [
    "FORMATS",
    "SHARD_IMAGES",
    "SHEET_LIMIT_IMAGES",
    "Destination",
    "EncodedWriter",
    "ImageFolder",
    "ImageWriter",
    "NpyFile",
    "NpzFile",
    "SheetFile",
    "TarShards",
    "destination_from_path",
    "require_drawable",
    "require_file_name",
    "writer_for",
]

SHEET_LIMIT_IMAGES = 10_000
SHARD_IMAGES = 1024
FORMATS = ("files", "tar", "npz", "npy", "sheet")
_FORMAT_OF_SUFFIX = {".npz": "npz", ".npy": "npy", ".png": "sheet"}
_EXPECTED = "a folder (FOLDER/), NAME.npz, NAME.npy or NAME.png (a sheet)"


@dataclass(frozen=True)
class Destination:
    """A path and what will stand there, one of `FORMATS`."""

    path: Path
    format: str


def destination_from_path(path: Path | str, format: str | None = None) -> Destination:
    """What a path means: a file by its suffix, or a folder.

    A folder is a path that exists as one, ends in a slash, or has no suffix. A suffix that is not known is refused
    rather than taken for a folder's name: it is more likely mistyped.

    Args:
        format: one of `FORMATS`; by default what the path says, and `files` for a folder.

    Raises:
        InputError: the path means nothing that is known, or something else than the format.
        OutputError: the folder that a file should lie in does not exist.
    """
    slash = str(path).endswith("/")
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in _FORMAT_OF_SUFFIX and not slash:
        means = _FORMAT_OF_SUFFIX[suffix]
        if format not in (None, means):
            raise InputError(
                f"{path} is not a path for --format {format}",
                got=f"{suffix}, which means {means}",
                expected="a folder" if format in FOLDER_FORMATS else f"NAME{_suffix_of(format)}",
                remedy=f"{path}/ means a folder of that name" if format in FOLDER_FORMATS else None,
            )
        require_file_name(path)
        return Destination(path, means)
    if suffix and not slash and not path.is_dir():
        raise InputError(
            f"{path}: images are not written as {suffix}", expected=_EXPECTED, remedy=_folder_remedy(path, suffix)
        )
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file", expected=_EXPECTED)
    if (path / MANIFEST_NAME).exists():
        raise InputError(f"{path} is a bundle", expected=_EXPECTED)
    if format not in (None, *FOLDER_FORMATS):
        raise InputError(f"{path} is a folder", expected=f"NAME{_suffix_of(format)} for --format {format}")
    return Destination(path, format or "files")


def writer_for(
    destination: Destination,
    spec: GeneratorSpec,
    request: Request,
    bundle: BundleRecord | None = None,
    *,
    columns: int | None = None,
    workers: int | None = None,
    files: InputFiles | None = None,
) -> ImageWriter:
    """The writer for a destination.

    Args:
        request: what is drawn; its format is the destination's where that is a folder.
        bundle: where it is drawn from, for the run record.
        columns: of a sheet.
        workers: threads that encode; by default as many as there are cores; 0 encodes in the caller's thread.
        files: what was given for inputs, for the records.

    Raises:
        InputError: the generator's outputs do not fit the destination, or the folder holds another run.
        OutputError: the path cannot be written, or another process is writing there.
    """
    path, count = destination.path, request.count
    require_drawable(destination, spec, request, columns)
    if destination.format == "npz":
        return NpzFile(path, count, request.seed, request.first)
    if destination.format == "npy":
        return NpyFile(path, count, request.seed, request.first)
    if destination.format == "sheet":
        return SheetFile(path, count, columns)
    bundle = bundle or BundleRecord()
    if destination.format == "tar":
        return TarShards(path, request, bundle, spec, workers, files)
    return ImageFolder(path, request, bundle, workers, files)


def require_drawable(
    destination: Destination, spec: GeneratorSpec, request: Request, columns: int | None = None
) -> None:
    """Raises `InputError` where the destination cannot hold what is asked for; nothing is written."""
    if columns is not None and destination.format != "sheet":
        raise InputError(
            "only a sheet has columns", got=f"{columns} columns of {destination.path}", remedy="-o NAME.png"
        )
    if destination.format in ("npz", "npy"):
        return
    request.encoding.require_channels(spec.image.channels if spec.image is not None else None, spec.name)
    if destination.format == "sheet" and request.count > SHEET_LIMIT_IMAGES:
        raise InputError(
            "too many images for one sheet",
            got=request.count,
            expected=f"at most {SHEET_LIMIT_IMAGES}",
            remedy="-o FOLDER/ or NAME.npz",
        )


def require_file_name(path: Path) -> None:
    """Raises `InputError` where `path` is a folder, `OutputError` where the folder that it lies in does not exist."""
    if path.is_dir():
        raise InputError(
            f"{path} is a folder", expected="a file name", remedy=f"choose another name; {path}/ means the folder"
        )
    if not path.parent.is_dir():
        quoted = shlex.quote(str(path.parent))
        raise OutputError(f"cannot write {path}", got="its folder does not exist", remedy=f"mkdir -p {quoted}")


def _suffix_of(format: str | None) -> str:
    return {"sheet": ".png"}.get(str(format), f".{format}")


def _folder_remedy(path: Path, suffix: str) -> str:
    if suffix == ".tar":
        return f"-o {path.with_suffix('')}/ --format tar"
    for image_format, known in SUFFIXES.items():
        if suffix in (known, f".{image_format}") and image_format != "png":
            return f"-o {path.with_suffix('')}/ --image-format {image_format}"
    return f"{path}/ means a folder of that name"
