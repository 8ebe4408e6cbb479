"""Shards: WebDataset-style tar files whose bytes depend on what is in them alone.

A sample is two members next to each other under one key, the picture and its replay record:

    seed7-00000123.png
    seed7-00000123.json

Headers are POSIX ustar with mtime 0, uid and gid 0, no names of users, mode 0644; members in the order of their
indices; the end padded to 10,240 bytes, as `tar` does.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path
from typing import IO

from ganruntime.errors import InputError

MEMBER_LIMIT_BYTES = 1 << 30
_BLOCK_BYTES = 512


def shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def image_key(seed: int, index: int) -> str:
    """The name of an image without its suffix; it says how to draw it again."""
    return f"seed{seed}-{index:08d}"


class TarStream:
    """Writes a tar file front to back, and knows its SHA-256 at the end without reading it again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def add(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # mtime, uid, gid 0, no user names, mode 0644
        info.size = len(data)
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        self._write(data)
        self._write(b"\0" * (-len(data) % _BLOCK_BYTES))

    def finish(self) -> str:
        """Writes the end and flushes it to the disk. Returns the SHA-256 of the whole file."""
        self._write(b"\0" * (2 * _BLOCK_BYTES))
        self._write(b"\0" * (-self.size_bytes % tarfile.RECORDSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size_bytes += len(data)


def members_of(path: Path) -> list[str]:
    """The names of a shard's members, in order. Raises `InputError` where it is not a tar file."""
    with _opened(path) as archive:
        try:
            return archive.getnames()
        except tarfile.TarError as error:
            raise InputError(f"{path} is not a whole tar file", got=str(error)[:200]) from error


def sample_of(path: Path, key: str) -> tuple[bytes, tuple[str, bytes] | None]:
    """A sample of a shard: its record, and its picture as (name, bytes), None where the shard has none.

    Args:
        key: a member's name, with or without its suffix.

    Raises:
        InputError: the file is not a shard, or has no such member.
    """
    stem = key.partition(".")[0]
    record: bytes | None = None
    picture: tuple[str, bytes] | None = None
    with _opened(path) as archive:
        try:
            for member in archive:
                if not member.isfile() or member.name.partition(".")[0] != stem:
                    if record is not None:
                        break
                    continue
                if member.size > MEMBER_LIMIT_BYTES:
                    raise InputError(f"{path}: {member.name} is too large", got=f"{member.size:,} bytes")
                file = archive.extractfile(member)
                assert file is not None
                if member.name.endswith(".json"):
                    record = file.read()
                else:
                    picture = member.name, file.read()
        except (tarfile.TarError, EOFError) as error:
            raise InputError(f"{path} is not a whole tar file", got=str(error)[:200]) from error
    if record is None:
        raise InputError(f"{path} has no record of {key}", remedy=f"tar tf {path} lists what is in it")
    return record, picture


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} is not a shard", got=str(error)[:200], expected="a tar file of a run") from error
