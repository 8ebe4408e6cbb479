"""The image writer: what takes images in the order of their indices and leaves whole files only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from ganruntime.chunks import Chunk, Drawn, chunks_of


class ImageWriter(ABC):
    """Used as a context manager; what was added when it ends is kept, unless the writing itself failed.

    Attributes:
        path: what is written.
        count: images of the whole run.
        written: images that lie in whole files by now, those of an earlier start included.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self.written = 0

    def chunks(self, size: int) -> Iterator[Chunk]:
        """What is still to be drawn, in order, at most `size` images at a time."""
        return chunks_of(0, self.count, size)

    @abstractmethod
    def add(self, drawn: Drawn) -> None:
        """Takes the images of the next chunk. Raises `OutputError` where the disk is full or may not be written."""

    @abstractmethod
    def finish(self) -> None:
        """Completes the file of what was added; called once, also after an interruption."""

    def discard(self) -> None:  # noqa: B027  most hold nothing
        """Gives up what is not in whole files."""

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failed write the disk holds no more, and finishing would only hide the cause.
        if kind is None or not issubclass(kind, OSError):
            self.finish()
        else:
            self.discard()
