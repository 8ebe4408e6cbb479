"""Recorded images: an image of a run as it was left, found by what somebody has of it, with its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganruntime.buckets import pieces_of
from ganruntime.chunks import Chunk
from ganruntime.encoding import SUFFIXES
from ganruntime.errors import InputError
from ganruntime.input_files import parts_of
from ganruntime.replay_inputs import Line, files_of_image, read_lines, sizes_of_images
from ganruntime.replay_record import ReplayRecord
from ganruntime.runs import RUN_NAME, Request, read_run
from ganruntime.shards import image_key, members_of, sample_of, shard_name

_RECORD_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class Recorded:
    """An image as a run left it.

    record: what it was made of. picture: the bytes of its file, where there is one. bundle_path: where the run's bundle
    was, if known. where: what it is called in messages. input_lines: where the files lay that its inputs were given as.
    """

    record: ReplayRecord
    picture: bytes | None
    bundle_path: str | None
    where: str
    input_lines: Sequence[Line] = ()


def recorded_image(path: Path, member: str | None = None, index: int | None = None) -> Recorded:
    """Finds an image of a run and its record.

    Args:
        path: a record file (.json), a shard (.tar), an image file in the folder of a run, or that folder.
        member: of a shard, the name of the picture, of its record, or what they have in common.
        index: of a shard or a folder, the image's index.

    Raises:
        InputError: there is no such image, or no record of it.
    """
    if path.is_dir():
        return _from_folder(path, _needed(index, member, f"{path} is the folder of a run"))
    if not path.is_file():
        raise InputError(f"{path} does not exist", expected="a record, a shard, an image of a run, or its folder")
    if path.suffix == ".tar":
        return _from_shard(path, member, index)
    if member is not None or index is not None:
        raise InputError(f"{path} is one image", got="--member or --index", expected="neither")
    if path.suffix in SUFFIXES.values():
        stem = path.stem
        number = stem.rpartition("-")[2]
        if not number.isdecimal():
            raise InputError(f"{path} is not named as images of a run are", expected="seed7-00000123.png")
        found = _from_folder(path.parent, int(number))
        if found.where != str(path):
            raise InputError(f"{path} is not an image of the run in {path.parent}", expected=found.where)
        return found
    with path.open("rb") as file:
        record = ReplayRecord.loads(file.read(_RECORD_LIMIT_BYTES + 1), str(path))
    beside = path.with_suffix(record.encoding.suffix)
    picture = beside.read_bytes() if beside.is_file() else None
    return Recorded(record, picture, _bundle_path(path.parent), str(path), read_lines(path.parent))


def _from_shard(path: Path, member: str | None, index: int | None) -> Recorded:
    bundle_path = _bundle_path(path.parent)
    if index is not None and member is None:
        member = _key_of(path, index)
    record_bytes, picture = sample_of(path, _needed(member, None, f"{path} is a shard"))
    where = f"{path}: {picture[0] if picture is not None else member}"
    record = ReplayRecord.loads(record_bytes, where)
    lines = read_lines(path.parent)
    return Recorded(record, picture[1] if picture is not None else None, bundle_path, where, lines)


def _key_of(path: Path, index: int) -> str:
    ending = f"-{index:08d}.json"
    for name in members_of(path):
        if name.endswith(ending):
            return name
    raise InputError(f"{path} has no image of index {index}", remedy=f"tar tf {path} lists what is in it")


def _from_folder(path: Path, index: int) -> Recorded:
    request, bundle = read_run(path)
    number = index - request.first
    if not 0 <= number < request.count:
        raise InputError(
            f"{path} has no image of index {index}",
            expected=f"{request.first} to {request.first + request.count - 1}",
        )
    key = image_key(request.seed, index)
    if request.format == "tar":
        assert request.shard_images is not None
        return _from_shard(path / shard_name(number // request.shard_images), key, None)
    file = path / (key + request.encoding.suffix)
    if not file.is_file():
        raise InputError(f"{file} does not exist", remedy="ganexport generate with the run's options completes it")
    lines = read_lines(path) if request.files else []
    files = files_of_image(lines, request, index)
    record = ReplayRecord.of(request, bundle, index, _bucket_of(request, number, lines), request.inputs, files=files)
    return Recorded(record, file.read_bytes(), bundle.path, str(file), lines)


def _bucket_of(request: Request, number: int, lines: Sequence[Line]) -> int:
    """The bucket that image `number` of a folder ran in: chunks of the largest bucket, the last one cut further, all of
    them where the size of what images were given changes."""
    size = request.buckets[-1]
    start = number - number % size
    chunk = Chunk(start, min(size, request.count - start))
    sizes = sizes_of_images(lines, request, request.first + start, chunk.count)
    part = next(p for p in parts_of(chunk, sizes) if number < p.start + p.count)
    pieces = pieces_of(part.count, request.buckets)
    return next(p.bucket for p in pieces if number - part.start < p.start + p.rows)


def _bundle_path(folder: Path) -> str | None:
    return read_run(folder)[1].path if (folder / RUN_NAME).is_file() else None


def _needed(value: Any, other: Any, problem: str) -> Any:
    if value is None or other is not None:
        raise InputError(
            f"{problem}: which image?", remedy="--index I" + ("" if "folder" in problem else " or --member NAME")
        )
    return value
