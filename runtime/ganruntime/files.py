"""Whole files and whole folders, or none: what a killed process, a full disk or Ctrl-C cannot leave half-written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ganruntime.errors import GanError, InputError, OutputError

_CHUNK_BYTES = 1 << 20
_PARTIAL = re.compile(r"\.(?P<name>.+)\.partial-(?P<pid>\d+)-[0-9a-f]{8}\Z")
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 lower-case hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path | str, data: bytes) -> None:
    """Writes `data` to `path`, or leaves what was there.

    Raises:
        InputError: `path` ends in no name.
        OutputError: the disk is full, the folder is missing or may not be written; names the path and the cause.
    """
    with file_written_atomically(path) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def file_written_atomically(path: Path | str) -> Iterator[Path]:
    """Yields the path of a new file beside `path`, to be made and closed by whoever writes it, such as another program;
    on success it takes the place of `path`, on an error it is removed.

    Raises:
        InputError: `path` ends in no name.
        OutputError: the disk is full, the folder is missing or may not be written; names the path and the cause.
    """
    path = _named(path)
    _remove_abandoned(path)
    partial = _partial_beside(path)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        if isinstance(error, GanError):
            raise
        raise output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_atomically(path: Path | str) -> Iterator[Path]:
    """Yields a new folder beside `path` to fill; on success it takes the place of `path`, on an error it is removed.

    An existing folder at `path` is exchanged in one system call (renameat2) where the file system has it, so that at
    every moment `path` is either the old folder or the new one. Elsewhere two renames follow each other, and a kill
    between them leaves the new folder under its partial name.

    Raises:
        InputError: `path` is a file or a link, or ends in no name.
        OutputError: the disk is full, the folder is missing or may not be written; names the path and the cause.
    """
    path = _named(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(
            f"{path} is not a folder", expected="a new name, or a folder to replace", remedy="choose another name"
        )
    _remove_abandoned(path)
    partial = _partial_beside(path)
    try:
        try:
            partial.mkdir()
            yield partial
            for file in sorted(partial.rglob("*")):
                _sync(file)
            _sync(partial)
            _put_in_place(partial, path)
            _sync_folder(path.parent)
        except OSError as error:
            if isinstance(error, GanError):
                raise
            raise output_error(path, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, path: Path) -> None:
    """Renames `partial` to `path`; what was at `path` ends up at `partial`, or is removed."""
    if not path.exists():
        partial.rename(path)
        return
    if _exchange(partial, path):
        return
    old = _partial_beside(path)
    path.rename(old)
    partial.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swaps two paths in one system call; False where the kernel or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(b))


def _named(path: Path | str) -> Path:
    path = Path(path)
    if path.name in ("", ".."):
        raise InputError(f"{path} has no name of its own", expected="a path that ends in a name")
    return path


def _partial_beside(path: Path) -> Path:
    # With the process id in the name, what a killed process left can be told from what another is writing now.
    return path.parent / f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"


def _remove_abandoned(path: Path) -> None:
    """Removes the partial files and folders of `path` whose process is gone."""
    with contextlib.suppress(OSError):
        for sibling in path.parent.iterdir():
            match = _PARTIAL.fullmatch(sibling.name)
            if match is None or match["name"] != path.name or is_alive(int(match["pid"])):
                continue
            if sibling.is_dir() and not sibling.is_symlink():
                shutil.rmtree(sibling, ignore_errors=True)
            else:
                sibling.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether a process of this id runs, anybody's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    # Some file systems refuse fsync on folders; the rename itself has happened by now.
    with contextlib.suppress(OSError):
        _sync(path)


def output_error(path: Path, error: OSError) -> OutputError:
    """The `OutputError` of a failed write, with the remedy that its errno calls for."""
    remedies = {
        errno.ENOSPC: "free some space, or choose another disk",
        errno.EDQUOT: "free some space: your quota is used up",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f), or write smaller pieces",
        errno.ENOENT: "choose a folder that files can be made in"
        if path.parent.is_dir()
        else f"create the folder first: mkdir -p {path.parent}",
        errno.ENOTDIR: "choose a path whose parent is a folder",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
        errno.EROFS: "choose a disk that is not read-only",
        errno.ENAMETOOLONG: "choose a shorter name",
    }
    return OutputError(
        f"cannot write {path}",
        got=error.strerror or str(error),
        remedy=remedies.get(error.errno or 0, "check the disk and its permissions"),
    )
