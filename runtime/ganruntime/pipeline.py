"""The pipeline: the noise of the next chunk is drawn while this one runs and the last one is encoded.

Three stages, each in a thread of its own with a bounded number of chunks before it: noise, inference, and whatever the
caller does with the images (`ganruntime.writers` encodes them in a pool of threads). NumPy, the backends and the
encoders let go of the interpreter while they work, so that the stages overlap. An error of a stage is raised where its
chunk would have come; closing stops the stages and waits for what runs at that moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from ganruntime import noise
from ganruntime.chunks import Chunk, Drawn
from ganruntime.generator import Generator
from ganruntime.input_files import InputFiles
from ganruntime.rows import Rows, given_rows
from ganruntime.spec import Label, Scalar
from ganruntime.writers import ImageWriter

T = TypeVar("T")
CHUNKS_AHEAD = 2


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Ahead(Generic[T]):
    """Iterates over `source` in a thread of its own, at most `depth` items ahead of whoever takes them.

    Made of queues in C, so that a signal that raises between two instructions leaves none of them locked.
    """

    def __init__(self, source: Iterable[T], depth: int, name: str) -> None:
        self._items: SimpleQueue[T | _End] = SimpleQueue()
        self._permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(depth):
            self._permits.put(None)
        self._closed = self._ended = False
        self._thread = Thread(target=self._work, args=(iter(source),), name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        item = self._items.get()
        if isinstance(item, _End):
            self._ended = True
            if item.error is not None:
                raise item.error
            raise StopIteration
        self._permits.put(None)
        return item

    def close(self) -> None:
        """Stops after the item that is being made, and waits for that. Calling it twice is harmless."""
        self._closed = True
        self._permits.put(None)
        self._items.put(_End(None))  # the next stage may be waiting here
        self._thread.join()

    def _work(self, source: Iterator[T]) -> None:
        end = _End(None)
        try:
            while True:
                self._permits.get()
                if self._closed:
                    break
                try:
                    item = next(source)
                except StopIteration:
                    break
                self._items.put(item)
        except BaseException as error:  # raised again by whoever takes the item
            end = _End(error)
        self._items.put(end)


@contextlib.contextmanager
def drawn(
    generator: Generator,
    chunks: Iterable[Chunk],
    *,
    seed: int,
    first: int,
    inputs: Mapping[str, Any] | None = None,
    overlapped: bool = True,
    files: InputFiles | None = None,
) -> Iterator[Iterator[Drawn]]:
    """Yields an iterator over the chunks' images, in order.

    Args:
        chunks: which images, counted from `first`; taken one after the other while there is room.
        inputs: labels and scalars for every image, as for `Generator.generate`.
        files: inputs with a row per image; chunks are cut where the size of their images changes.
        overlapped: False runs one stage after the other in the caller's thread, with the same results.

    Raises (from the iterator):
        BackendError: the backend failed.
        InputError: an input does not fit.
    """
    arguments = dict(inputs or {})
    truncation, label = arguments.pop("truncation", None), arguments.pop("label", None)
    given = given_rows(generator.spec, 1, truncation, label, arguments)
    if files is not None:
        chunks = (part for chunk in chunks for part in files.parts(first, chunk))

    def rows_of(chunk: Chunk) -> Rows:
        rows = noise.inputs(generator.spec, seed, first + chunk.start, chunk.count)
        rows |= {name: row.repeat(chunk.count, axis=0) for name, row in given.items()}
        return rows if files is None else rows | files.rows(first + chunk.start, chunk.count)

    from_files = files.names if files is not None else ()
    chosen = [
        t.name
        for t in generator.spec.inputs
        if t.name not in from_files and (isinstance(t.role, (Label, Scalar)) or t.name in given)
    ]

    def images_of(chunk: Chunk, rows: Rows) -> Drawn:
        return Drawn(chunk.start, generator.draw(rows), {name: rows[name] for name in chosen})

    if not overlapped:
        yield (images_of(chunk, rows_of(chunk)) for chunk in chunks)
        return
    noises: Ahead[tuple[Chunk, Rows]] = Ahead(((c, rows_of(c)) for c in chunks), CHUNKS_AHEAD, "noise")
    images: Ahead[Drawn] = Ahead((images_of(c, rows) for c, rows in noises), CHUNKS_AHEAD, "inference")
    try:
        yield images
    finally:
        noises.close()
        images.close()


def write_images(
    generator: Generator,
    writer: ImageWriter,
    *,
    seed: int,
    first: int,
    inputs: Mapping[str, Any] | None = None,
    overlapped: bool = True,
    files: InputFiles | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> None:
    """Draws what a writer still lacks into it, and completes it; also where that is interrupted by an exception.

    Args:
        writer: made for the same seed, first, inputs and files (`ganruntime.writers.writer_for`).
        progress: called with the images just handed over.
    """
    chunks = writer.chunks(generator.session.buckets[-1])
    with (
        writer,
        drawn(generator, chunks, seed=seed, first=first, inputs=inputs, overlapped=overlapped, files=files) as results,
    ):
        for result in results:
            writer.add(result)
            progress(len(result.images))
