"""The pipeline: the noise of the next chunk is drawn while this one runs and the last one is encoded.

Three stages, each in a thread of its own with a bounded number of chunks before it: noise, inference, and whatever the
caller does with the images (`ganruntime.writers` encodes them in a pool of threads). NumPy, the backends and the
encoders let go of the interpreter while they work, so that the stages overlap. An error of a stage is raised where its
chunk would have come; closing stops the stages and waits for what runs at that moment.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from ganruntime import noise
from ganruntime.chunks import Chunk, Drawn
from ganruntime.generator import Generator
from ganruntime.input_files import InputFiles
from ganruntime.requests import Request, request_from_rows
from ganruntime.rows import Rows, given_rows
from ganruntime.spec import Label, Scalar
from ganruntime.writers import ImageWriter

T = TypeVar("T")
DrawnFrom = Callable[[Chunk, Rows, NDArray[Any]], Drawn]
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
            self._fill(source)
        except BaseException as error:  # raised again by whoever takes the item
            end = _End(error)
        self._items.put(end)

    def _fill(self, source: Iterator[T]) -> None:
        while self._has_room():
            try:
                item = next(source)
            except StopIteration:
                return
            self._items.put(item)

    def _has_room(self, *, waits: bool = True) -> bool:
        """Whether there is room for an item more, which is taken by that; False too where this was closed."""
        try:
            self._permits.get(waits)
        except Empty:
            return False
        return not self._closed


class InLanes(Ahead[Drawn]):
    """The images of chunks, drawn in a thread of its own, with as many chunks under way as the session has lanes.

    The session is held while chunks overlap, and so a chunk is begun only if there is room for its images: nobody who
    holds the session ever waits for the caller, who may want to draw as well.
    """

    def __init__(
        self, generator: Generator, inputs: Iterable[tuple[Chunk, Rows]], drawn_from: DrawnFrom, name: str
    ) -> None:
        self._generator = generator
        self._inputs = iter(inputs)
        self._drawn_from = drawn_from
        self._under_way: deque[tuple[Chunk, Rows]] = deque()
        self._is_over = False
        self._error: BaseException | None = None
        super().__init__((), CHUNKS_AHEAD + generator.session.lanes - 1, name)

    def _fill(self, source: Iterator[Drawn]) -> None:
        while not self._is_over:
            self._generator.draw_each(self._requests(), self._put)
        if self._error is not None:
            raise self._error

    def _requests(self) -> Iterator[Request]:
        """Those of chunks for which there is room; waits for the first, when nobody holds the session yet."""
        waits = True
        while self._has_room(waits=waits):
            try:
                chunk, rows = next(self._inputs)
                request = request_from_rows(self._generator.spec, rows)
            except StopIteration:
                self._is_over = True
                return
            except BaseException as error:  # in its place: what is under way comes out before it
                self._is_over, self._error = True, error
                return
            self._under_way.append((chunk, rows))
            yield request
            waits = False
        self._is_over = self._closed

    def _put(self, images: NDArray[Any]) -> None:
        self._items.put(self._drawn_from(*self._under_way.popleft(), images))


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

    def drawn_from(chunk: Chunk, rows: Rows, images: NDArray[Any]) -> Drawn:
        return Drawn(chunk.start, images, {name: rows[name] for name in chosen})

    inputs_of_chunks = ((chunk, rows_of(chunk)) for chunk in chunks)
    if not overlapped:
        yield (drawn_from(chunk, rows, generator.draw(rows)) for chunk, rows in inputs_of_chunks)
        return
    noises: Ahead[tuple[Chunk, Rows]] = Ahead(inputs_of_chunks, CHUNKS_AHEAD, "noise")
    images = InLanes(generator, noises, drawn_from, "inference")
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
