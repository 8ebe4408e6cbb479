"""A session as many threads share it: pieces run one after the other, in arrays that are kept, in the process that
loaded it."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice

import numpy as np

from ganruntime import noise
from ganruntime.buckets import Piece
from ganruntime.errors import BackendError
from ganruntime.rows import Rows
from ganruntime.sessions.base import Arrays, Session
from ganruntime.sizes import Size, spec_at
from ganruntime.workspaces import Workspaces

# Another object in every process that is forked. It stands for the process's number, which is a system call away.
_process = object()


def _note_fork() -> None:
    global _process
    _process = object()


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_note_fork)


class PieceRunner:
    """Runs pieces on a session, for any thread.

    Attributes:
        lock: held while pieces run.
        workspaces: the arrays of each bucket, used under the lock.
    """

    def __init__(self, session: Session) -> None:
        self.lock = threading.Lock()
        self.workspaces = Workspaces(session)
        self._session = session
        self._process = _process
        self._pid = os.getpid()

    def run(
        self, pieces: Iterator[tuple[Piece, Rows]], size: Size | None, put: Callable[[Piece, Arrays], None]
    ) -> None:
        """Runs pieces of one size. Rows are drawn before the lock is taken, where one piece runs at a time; else those
        of the next while the session runs.

        Args:
            put: is handed what each piece gives, which holds until it returns, in order, under the lock.
        """
        if self._session.pieces_at_once == 1:
            for piece, rows in pieces:
                with self.lock:
                    put(piece, self.workspaces.of(piece.bucket, size).run(rows))
            return
        while (first := next(pieces, None)) is not None:
            group, given = chain((first,), islice(pieces, self._session.pieces_at_once - 1)), deque[Piece]()
            with self.lock, closing(self._session.run_many(self._arrays(group, size, given))) as ran:
                for outputs in ran:
                    put(given.popleft(), outputs)

    def warm_up(self) -> None:
        """Runs every bucket once; where height and width vary, at the sizes that the session names."""
        for size in self._session.warm_sizes:
            spec = spec_at(self._session.spec, size)
            for bucket in self._session.buckets:
                rows = noise.inputs(spec, 0, 0, bucket)
                for tensor in spec.inputs:
                    if tensor.name not in rows:
                        rows[tensor.name] = np.zeros((bucket, *(d or 64 for d in tensor.shape)), tensor.dtype)
                with self.lock:
                    self.workspaces.of(bucket, size).run(rows)

    @property
    def is_in_own_process(self) -> bool:
        return self._process is _process

    def require_own_process(self) -> None:
        """Raises `BackendError` after a fork: a child has the memory of a backend's thread pool and none of its
        threads, and would hang."""
        if self._process is not _process:
            raise BackendError(
                "the generator was loaded in another process",
                got=f"process {os.getpid()}",
                expected=f"process {self._pid}",
                remedy="load the bundle in each process, after the fork",
            )

    def close(self) -> None:
        """Frees what the backend holds, when nothing runs any more."""
        with self.lock:
            self._session.close()

    def _arrays(
        self, pieces: Iterable[tuple[Piece, Rows]], size: Size | None, given: deque[Piece]
    ) -> Iterator[tuple[Arrays, Arrays]]:
        """(inputs, outputs) of each piece, as `Session.run_many` takes them; the pieces that it took are in `given`."""
        for piece, rows in pieces:
            given.append(piece)
            workspace = self.workspaces.of(piece.bucket, size)
            yield workspace.padded(rows), workspace.outputs
