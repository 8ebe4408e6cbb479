"""Image folders: a file per image, or tar shards; encoded in a pool of threads, and gone on with after a kill."""

from __future__ import annotations

import contextlib
import hashlib
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ganruntime.chunks import Chunk, Drawn, buckets_of, chunks_of
from ganruntime.cores import usable_cores
from ganruntime.errors import OutputError
from ganruntime.files import output_error
from ganruntime.image_writer import ImageWriter
from ganruntime.input_files import InputFiles
from ganruntime.replay_record import ReplayRecord, pixels_digest
from ganruntime.runs import BundleRecord, Request, RunFolder
from ganruntime.shards import TarStream, image_key, shard_name
from ganruntime.spec import GeneratorSpec, Label

_GROUP_ELEMENTS = 1 << 18  # what one task of the pool encodes: small images pay for the task, large ones should spread
_GROUP_IMAGES = 16


class Encoded(NamedTuple):
    """An image's file: its bytes, their SHA-256, and that of its pixels where a record needs it."""

    data: bytes
    sha256: str
    pixels_sha256: str | None


class _Group(NamedTuple):
    """Images next to each other that are being encoded."""

    start: int
    buckets: list[int]
    inputs: Mapping[str, NDArray[Any]]
    encoded: Future[list[Encoded]]


class EncodedWriter(ImageWriter):
    """Encodes in a pool of threads, a bounded number of images ahead, and keeps the files in order."""

    _digests_pixels = False

    def __init__(
        self,
        path: Path,
        request: Request,
        bundle: BundleRecord,
        file_count: int,
        workers: int | None = None,
        files: InputFiles | None = None,
    ) -> None:
        super().__init__(path, request.count)
        self.request = request
        self._encoding = request.encoding
        inputs = files.lines() if files else b""
        self._folder = RunFolder(path, request, bundle, self.name_of, file_count, inputs)
        self.request = self._folder.request
        self._workers = usable_cores() if workers is None else workers
        self._pool = ThreadPoolExecutor(self._workers, "encoding") if self._workers else None
        self._groups: deque[_Group] = deque()
        self._busy = False

    @abstractmethod
    def name_of(self, number: int) -> str:
        """The name of a file of the run, counted from 0."""

    @abstractmethod
    def _keep(self, index: int, encoded: Encoded, bucket: int, inputs: Mapping[str, Any]) -> None:
        """Writes the next image; `index` counts from 0."""

    def add(self, drawn: Drawn) -> None:
        self._busy = True
        buckets = buckets_of(len(drawn.images), self.request.buckets)
        size = min(_GROUP_IMAGES, max(1, _GROUP_ELEMENTS // max(1, drawn.images[0].size)))
        groups = list(chunks_of(0, len(drawn.images), size))
        for group in groups:
            rows = slice(group.start, group.start + group.count)
            self._groups.append(
                _Group(
                    drawn.start + group.start,
                    buckets[rows],
                    {name: values[rows] for name, values in drawn.inputs.items()},
                    self._submit(drawn.images[rows]),
                )
            )
        # A chunk's worth may wait, so that the pool has work while the next chunk is still running.
        self._take(max(len(groups), 2 * self._workers) if self._workers else 0)
        self._busy = False

    def finish(self) -> None:
        # An exception out of the middle of a file leaves that file's state unknown: nothing may be added to it.
        if self._busy:
            self.discard()
            return
        try:
            self._take(0)
        finally:
            self.discard()

    def discard(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._groups.clear()
        self._folder.close()

    def _take(self, most: int) -> None:
        """Keeps what was encoded until at most so many groups wait."""
        while len(self._groups) > most:
            group = self._groups.popleft()
            for i, encoded in enumerate(group.encoded.result()):
                inputs = {name: values[i].tolist() for name, values in group.inputs.items()}
                self._keep(group.start + i, encoded, group.buckets[i], inputs)

    def _submit(self, images: NDArray[np.uint8]) -> Future[list[Encoded]]:
        if self._pool is not None:
            return self._pool.submit(self._encode, images)
        done: Future[list[Encoded]] = Future()
        done.set_result(self._encode(images))
        return done

    def _encode(self, images: NDArray[np.uint8]) -> list[Encoded]:
        encoded = []
        for image in images:
            data = self._encoding.bytes_from_image(image)
            pixels = pixels_digest(image) if self._digests_pixels else None
            encoded.append(Encoded(data, hashlib.sha256(data).hexdigest(), pixels))
        return encoded


class ImageFolder(EncodedWriter):
    """One picture file per image, `seed7-00000123.png`: the name says how to draw it again."""

    def __init__(
        self,
        path: Path,
        request: Request,
        bundle: BundleRecord,
        workers: int | None = None,
        files: InputFiles | None = None,
    ) -> None:
        super().__init__(path, request, bundle, request.count, workers, files)
        self.written = self._folder.done - len(self._folder.redo)

    def name_of(self, number: int) -> str:
        return image_key(self.request.seed, self.request.first + number) + self._encoding.suffix

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Whole chunks of the run, as if nothing were there: cut otherwise, an image might run in another bucket."""
        lost = sorted({number // size for number in self._folder.redo})
        done = self._folder.done
        rest = range(done // size, -(-self.count // size)) if done < self.count else range(0)
        cells = [cell for cell in lost if cell not in rest]

        def later() -> Iterator[Chunk]:
            for these in (cells, rest):
                for cell in these:
                    yield Chunk(cell * size, min(size, self.count - cell * size))

        return later()

    def _keep(self, index: int, encoded: Encoded, bucket: int, inputs: Mapping[str, Any]) -> None:
        if index < self._folder.done and index not in self._folder.redo:
            return
        name = self.name_of(index)
        partial = self._folder.partial(name)
        try:
            # Without fsync: a file each would cost more than drawing it. The next start checks every file's hash.
            partial.write_bytes(encoded.data)
            self._folder.put(index, encoded.sha256, len(encoded.data), sync=False)
        except OSError as error:
            raise _output_error(self.path / name, error) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        self.written += 1


class TarShards(EncodedWriter):
    """WebDataset-style shards of a fixed number of images, each image with its replay record."""

    _digests_pixels = True

    def __init__(
        self,
        path: Path,
        request: Request,
        bundle: BundleRecord,
        spec: GeneratorSpec,
        workers: int | None = None,
        files: InputFiles | None = None,
    ) -> None:
        assert request.shard_images is not None
        self._size = request.shard_images
        self._shards = -(-request.count // self._size)
        self._classes = {t.name: t.role.classes for t in spec.inputs if isinstance(t.role, Label)}
        self._partial: Path | None = None  # named before it is opened: an interruption may come between
        self._file: IO[bytes] | None = None
        self._tar: TarStream | None = None
        self._files = files
        super().__init__(path, request, bundle, self._shards, workers, files)
        whole = (n for n in range(self._folder.done) if n not in self._folder.redo)
        self.written = sum(self._images_in(number) for number in whole)

    def name_of(self, number: int) -> str:
        return shard_name(number)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Whole shards, each cut into chunks by itself."""
        shards = [*sorted(self._folder.redo), *range(self._folder.done, self._shards)]
        return (c for n in shards for c in chunks_of(n * self._size, self._images_in(n), size))

    def discard(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = self._tar = None
        if self._partial is not None:
            with contextlib.suppress(OSError):
                self._partial.unlink(missing_ok=True)
        super().discard()

    def _images_in(self, number: int) -> int:
        return min(self._size, self.count - number * self._size)

    def _keep(self, index: int, encoded: Encoded, bucket: int, inputs: Mapping[str, Any]) -> None:
        number, within = divmod(index, self._size)
        try:
            if within == 0:
                self._partial = self._folder.partial(self.name_of(number))
                self._file = self._partial.open("wb")
                self._tar = TarStream(self._file)
            assert self._file is not None
            assert self._tar is not None
            at = self.request.first + index
            classes = {n: names[inputs[n]] for n, names in self._classes.items() if inputs.get(n) in range(len(names))}
            files = self._files.records(at) if self._files else {}
            record = ReplayRecord.of(
                self.request, self._folder.bundle, at, bucket, inputs, classes, encoded.pixels_sha256, files
            )
            key = image_key(self.request.seed, at)
            self._tar.add(key + self._encoding.suffix, encoded.data)
            self._tar.add(key + ".json", record.dumps())
            if within == self._images_in(number) - 1:
                digest = self._tar.finish()
                self._file.close()
                self._folder.put(number, digest, self._tar.size_bytes, sync=True)
                self._file = self._tar = None
                self.written += self._images_in(number)
        except OSError as error:
            raise _output_error(self.path / self.name_of(number), error) from error


def _output_error(path: Path, error: OSError) -> OutputError:
    return error if isinstance(error, OutputError) else output_error(path, error)
