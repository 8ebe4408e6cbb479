"""The timing cache file: how long each kernel took, so that a second build of a like network asks instead of timing.

A cache is good for one TensorRT version on one GPU model only. TensorRT finds a mismatch while it parses the cache in
native code; we find it before, in a header of our own, and so an edited or truncated file never reaches that code::

    ganexport timing cache 1\\n
    {"cuda": "13.0", "gpu": "NVIDIA L4", "sha256": "…", "architecture": "sm89", "tensorrt": "11.4.0.106"}\\n
    TensorRT's own bytes
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ganruntime.errors import InputError, OutputError
from ganruntime.files import write_atomically
from ganruntime.sessions.cuda import Gpu

_MAGIC = b"ganexport timing cache 1\n"
_HEADER_BYTES = 4096


@dataclass(frozen=True)
class TimingCacheKey:
    """What a timing depends on."""

    tensorrt: str
    architecture: str
    gpu: str
    cuda: str

    @classmethod
    def of(cls, tensorrt_version: str, gpu: Gpu) -> TimingCacheKey:
        return cls(tensorrt=tensorrt_version, architecture=gpu.architecture, gpu=gpu.name, cuda=gpu.runtime_cuda)

    def __str__(self) -> str:
        return f"TensorRT {self.tensorrt}, {self.gpu} ({self.architecture}), CUDA {self.cuda}"

    @property
    def file_name(self) -> str:
        """`nvidia-l4.sm89.trt11.4.0.106.cuda13.0.timing`"""
        gpu = re.sub(r"[^a-z0-9]+", "-", self.gpu.lower()).strip("-")
        return f"{gpu}.{self.architecture}.trt{self.tensorrt}.cuda{self.cuda}.timing"


def check_timing_cache_path(path: Path) -> None:
    """Raises `OutputError` where the folder is missing: now, and not after minutes of building."""
    if not path.is_dir() and not path.parent.is_dir():
        raise OutputError(f"timing cache {path}: its folder does not exist", remedy=f"mkdir -p {path.parent}")


@dataclass(frozen=True)
class TimingCacheFile:
    """The file of one key: `path` itself, or where `path` is a folder, the key's own file in it."""

    path: Path
    key: TimingCacheKey

    @classmethod
    def at(cls, path: Path, key: TimingCacheKey) -> TimingCacheFile:
        return cls(path / key.file_name if path.is_dir() else path, key)

    def read(self) -> bytes:
        """TensorRT's bytes; empty where the file does not exist yet.

        Raises:
            InputError: the file is of another TensorRT, GPU or CUDA, is not a timing cache of ours, or is damaged.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise InputError(f"timing cache {self.path}: cannot be read", got=error.strerror or str(error)) from error
        if not data.startswith(_MAGIC):
            raise self._damaged("is not a timing cache that ganexport wrote", repr(data[: len(_MAGIC)]))
        end = data.find(b"\n", len(_MAGIC), len(_MAGIC) + _HEADER_BYTES)
        try:
            header = json.loads(data[len(_MAGIC) : max(end, 0)])
            sha256 = header.pop("sha256")
            found = TimingCacheKey(**header)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise self._damaged("has a header that cannot be read", str(error)) from error
        if found != self.key:
            raise InputError(
                f"timing cache {self.path} is of another environment",
                got=found,
                expected=self.key,
                remedy="name another file, or a folder: there each environment has its own file",
            )
        blob = data[end + 1 :]
        if hashlib.sha256(blob).hexdigest() != sha256:
            raise self._damaged("is damaged: its hash does not match", f"{len(blob)} bytes")
        return blob

    @contextlib.contextmanager
    def one_writer(self) -> Iterator[None]:
        """Holds a lock while the file is read, added to and written: builds that share it lose none of their timings.

        Raises:
            OutputError: the folder cannot be opened.
        """
        with contextlib.ExitStack() as closing:
            try:
                descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
                closing.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise OutputError(f"timing cache {self.path}: cannot be locked", got=error.strerror) from error
            yield

    def write(self, blob: bytes) -> None:
        """Writes it whole or not at all. Raises `OutputError`."""
        header = asdict(self.key) | {"sha256": hashlib.sha256(blob).hexdigest()}
        write_atomically(self.path, _MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n" + blob)

    def _damaged(self, problem: str, got: str) -> InputError:
        return InputError(f"timing cache {self.path} {problem}", got=got, remedy=f"delete it: rm {self.path}")
