"""Runs: the folder of a bulk run, its record, and which of its files are whole.

Two files stand beside the images or shards. `run.json` says what was asked, and is written first. `files.jsonl` has a
line for each file that is whole, in order: its name, size and SHA-256. A file is written under another name, completed,
renamed, and only then gets its line. So whatever moment a run is killed at, the lines are true; a line that was cut off
itself is dropped, and the file that it was about drawn again.

    run.json     {"format": "ganexport-run", "schema_version": 2, "request": {…}, "bundle": {…}}
    files.jsonl  {"file": "shard-000000.tar", "sha256": "…", "size_bytes": 10485760}

A run that was given files for its inputs has a third one, written before the other two: where those files lay.

    inputs.jsonl  {"input": "photo", "index": 0, "path": "/photos/cat.png", "sha256": "…", "size": [256, 256]}
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from ganruntime.errors import BackendError, InputError, OutputError
from ganruntime.files import output_error, sha256_of
from ganruntime.run_request import FOLDER_FORMATS, Request, cpu_kind, request_from
from ganruntime.strict_json import strict_loads

__all__ = [
    "FILES_NAME",
    "FOLDER_FORMATS",
    "INPUTS_NAME",
    "RUN_NAME",
    "BundleRecord",
    "Request",
    "RunFolder",
    "cpu_kind",
    "read_run",
    "request_from",
]

RUN_NAME, FILES_NAME, INPUTS_NAME = "run.json", "files.jsonl", "inputs.jsonl"
FORMAT, SCHEMA_VERSION = "ganexport-run", 2
_LIMIT_BYTES = 1 << 20
_PARTIAL = re.compile(r"\.(seed\d+-\d+\.[a-z]+|shard-\d+\.tar|run\.json|inputs\.jsonl)\.partial\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class BundleRecord:
    """Where a run's bundle was, and its manifest when the run began. Information: verdicts may be added since."""

    path: str | None = None
    manifest_sha256: str | None = None


def read_run(path: Path) -> tuple[Request, BundleRecord]:
    """The run record of the folder `path`. Raises `InputError` where there is none, or it is malformed."""
    file = path / RUN_NAME
    try:
        with file.open("rb") as stream:
            text = stream.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} has no run record", got=error.strerror, expected=str(file)) from error
    try:
        if len(text) > _LIMIT_BYTES:
            raise ValueError(f"more than {_LIMIT_BYTES:,} bytes")
        data = strict_loads(text.decode())
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        table, version = data["request"], data["schema_version"]
        if version not in (1, SCHEMA_VERSION):
            raise ValueError(f"schema version {version!r}, and this release reads 1 and {SCHEMA_VERSION}")
        if not isinstance(table, dict):
            raise ValueError("request is not an object")
        if version != _version_of(table.get("threads")):
            raise ValueError(f"schema version {version} and threads {table.get('threads')!r}")
        request = Request(**(table | {"buckets": tuple(table["buckets"])}))
        request.require_types()
        return request, BundleRecord(**data["bundle"])
    except (ValueError, TypeError, KeyError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{file} is not a run record", got=reason[:200], remedy="choose another folder, or remove this one"
        ) from error


def _version_of(threads: object) -> int:
    """Where there are no threads to tell, a record is of version 1, which earlier releases read."""
    return 1 if threads is None else SCHEMA_VERSION


class RunFolder:
    """A folder that one process writes a run into. Opening it for a request that was begun there goes on with it.

    Attributes:
        request: as it was when the run began, which may tell less than the one that was given.
        done: how many files have a line, from the first on.
        redo: {number: SHA-256} of those among them that are missing or were changed since.

    Raises:
        InputError: another request was begun here; says what differs. Or it is no folder of a run.
        OutputError: another process is writing here, or the disk may not be written.
    """

    def __init__(
        self,
        path: Path,
        request: Request,
        bundle: BundleRecord,
        name_of: Callable[[int], str],
        file_count: int,
        inputs: bytes = b"",
    ) -> None:
        self.path = path
        self.request = request
        self.done = 0
        self.redo: dict[int, str] = {}
        self._name_of = name_of
        self._lock: int | None = None
        self._lines: int | None = None
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(path)
            if (path / RUN_NAME).exists():
                self.request, self.bundle = self._begun_before()
                # The same files by their hashes, which may lie elsewhere by now.
                self._keep_inputs(inputs)
            else:
                # Without a record nothing is known of what lies here: lines of an older run would vouch for its files.
                for name in (FILES_NAME, INPUTS_NAME):
                    (path / name).unlink(missing_ok=True)
                self._keep_inputs(inputs)
                self._begin(bundle)
                self.bundle = bundle
            self._remove_partial()
            end = self._whole_lines(file_count)
            self._lines = os.open(path / FILES_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._lines, end)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and not isinstance(error, OutputError):
                raise output_error(path, error) from error
            raise

    def partial(self, name: str) -> Path:
        """Where a file is written until it is whole. Only the holder of the lock writes there, so the name is fixed."""
        return self.path / f".{name}.partial"

    def put(self, number: int, sha256: str, size_bytes: int, *, sync: bool) -> None:
        """Renames a completed partial file to its name, and gives it its line.

        Raises:
            BackendError: the file stands in for one that was lost, and has other bytes than that one had.
        """
        name = self._name_of(number)
        expected = self.redo.get(number)
        if expected is not None and expected != sha256:
            raise BackendError(
                f"{name} was drawn again and is not what it was",
                got=f"SHA-256 {sha256}",
                expected=f"SHA-256 {expected}",
                remedy="go on with the run on the kind of machine that it was begun on",
            )
        self.partial(name).replace(self.path / name)
        if expected is not None:
            del self.redo[number]
            return
        assert number == self.done, (number, self.done)
        if sync:
            _sync_folder(self.path)
        line = json.dumps({"file": name, "sha256": sha256, "size_bytes": size_bytes}, sort_keys=True) + "\n"
        assert self._lines is not None
        data = line.encode()
        while data:  # a disk that is nearly full takes part of it, and refuses the rest the next time
            data = data[os.write(self._lines, data) :]
        if sync:
            os.fsync(self._lines)
        self.done += 1

    def close(self) -> None:
        """Lets another process write here. Calling it twice is harmless."""
        if self._lines is not None:
            os.close(self._lines)
            self._lines = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _begun_before(self) -> tuple[Request, BundleRecord]:
        there, bundle = read_run(self.path)
        differences = there.differences(self.request)
        if differences:
            raise InputError(
                f"{self.path} holds another run",
                got="\n            ".join(differences),
                expected=f"what {self.path / RUN_NAME} says",
                remedy="choose another folder, or remove this one",
            )
        return there, bundle

    def _begin(self, bundle: BundleRecord) -> None:
        record = {
            "format": FORMAT,
            "schema_version": _version_of(self.request.threads),
            "request": self.request.to_json(),
            "bundle": {f.name: getattr(bundle, f.name) for f in fields(bundle)},
        }
        self._write(RUN_NAME, (json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())
        _sync_folder(self.path)

    def _keep_inputs(self, inputs: bytes) -> None:
        file = self.path / INPUTS_NAME
        if inputs and not (file.is_file() and file.read_bytes() == inputs):
            self._write(INPUTS_NAME, inputs)

    def _write(self, name: str, data: bytes) -> None:
        partial = self.partial(name)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path / name)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _remove_partial(self) -> None:
        """Removes what a killed run was writing."""
        with os.scandir(self.path) as entries:
            left = [e.name for e in entries if _PARTIAL.match(e.name)]
        for name in left:
            (self.path / name).unlink(missing_ok=True)

    def _whole_lines(self, file_count: int) -> int:
        """Reads the lines and checks each file against its own; gives the bytes of the lines that hold."""
        end = 0
        try:
            lines = (self.path / FILES_NAME).open("rb")
        except FileNotFoundError:
            return 0
        with lines:
            for line in lines:
                entry = _entry(line)
                name = self._name_of(self.done)
                if entry is None or self.done >= file_count or entry[0] != name:
                    break
                if not _is_whole(self.path / name, entry[1], entry[2]):
                    self.redo[self.done] = entry[1]
                self.done += 1
                end += len(line)
        return end


def _entry(line: bytes) -> tuple[str, str, int] | None:
    """(file, SHA-256, size) of a line, or None where it was cut off or is something else."""
    if not line.endswith(b"\n"):
        return None
    try:
        data = json.loads(line)
        file, digest, size = data["file"], data["sha256"], data["size_bytes"]
    except (ValueError, TypeError, KeyError):
        return None
    known = isinstance(file, str) and isinstance(digest, str) and _SHA256.match(digest) and isinstance(size, int)
    return (file, digest, size) if known else None


def _is_whole(path: Path, digest: str, size_bytes: int) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == size_bytes and sha256_of(path) == digest
    except FileNotFoundError:
        return False


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise OutputError(
                f"another process is writing into {path}", remedy="wait for it, or choose another folder"
            ) from error
        raise
    return descriptor


def _sync_folder(path: Path) -> None:
    # Some file systems refuse fsync on folders; the rename itself has happened by now.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
