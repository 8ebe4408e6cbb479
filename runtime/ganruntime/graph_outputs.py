"""Every output of a graph, in its own range: the general way, and the straight way of a request that fills a bucket.

Of a small network one image takes no longer than a few hundred steps of Python, so the straight way asks what a request
needs in as few steps as there are, and leaves whatever is not plain to the general way, which also says what is wrong.
Both give the same bits, and fail alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy import vdot
from numpy.typing import NDArray

from ganruntime.buckets import Piece, pieces_of
from ganruntime.piece_runner import PieceRunner
from ganruntime.rows import Rows, given_rows, require_all
from ganruntime.sessions.base import Arrays, Session, empty_outputs
from ganruntime.sizes import size_of, spec_at

Inputs = Mapping[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]

_FLOAT32 = np.dtype(np.float32)
_SUMMED_VALUES = 8192  # of an input at most: from 10,000 on NumPy's BLAS sums with threads, in the way of the backend's


@dataclass(frozen=True, slots=True)
class _Bucket:
    """What the straight way needs of a bucket's workspace: (name, array) of each input, the call that runs them, and
    (name, array) of each output, which the next run fills again."""

    inputs: tuple[tuple[str, NDArray[np.generic]], ...]
    run: Callable[[], None]
    outputs: tuple[tuple[str, NDArray[np.generic]], ...]


class GraphOutputs:
    """Runs requests on a session that threads share, to outputs as `Generator.outputs` gives them."""

    def __init__(self, session: Session, runner: PieceRunner) -> None:
        self._session = session
        self._runner = runner
        self._lock, self._require_own_process = runner.lock, runner.require_own_process
        self._first = session.spec.inputs[0].name
        # By the shape of the first input; a bucket is in it when it has run in the general way.
        self._buckets: dict[tuple[int, ...], _Bucket] = {}

    def of(self, inputs: Inputs) -> Outputs:
        """{name: [n, *shape]} for every output, of {name: [n, *shape]} for every input.

        Raises:
            InputError: the inputs do not fit the spec.
            BackendError: the backend failed, or another process loaded the generator.
        """
        first = inputs.get(self._first)
        bucket = self._buckets.get(first.shape) if type(first) is np.ndarray else None
        if bucket is None or len(inputs) != len(bucket.inputs):
            return self.in_general(inputs)
        for name, kept in bucket.inputs:
            rows = inputs.get(name)
            if type(rows) is not np.ndarray or rows.dtype != _FLOAT32 or rows.shape != kept.shape:
                return self.in_general(inputs)
            # A sum of squares that is finite has no infinity and no NaN in it, and is one call. It may overflow without
            # either: the general way asks every value.
            if not isfinite(vdot(rows, rows)):
                return self.in_general(inputs)
        self._require_own_process()
        outputs = {}
        with self._lock:
            for name, kept in bucket.inputs:
                kept[...] = inputs[name]
            bucket.run()
            for name, array in bucket.outputs:
                outputs[name] = array.copy()
        return outputs

    def in_general(self, inputs: Inputs) -> Outputs:
        """The same of any request, checked by the spec and cut into pieces."""
        spec = self._session.spec
        counts = {name: np.shape(array)[0] if np.ndim(array) else 0 for name, array in inputs.items()}
        n = next(iter(counts.values()), 0)
        rows = given_rows(spec, n, None, None, inputs)
        require_all(spec, rows)
        size = size_of(spec, rows)
        results: Outputs = empty_outputs(spec_at(spec, size), n)
        self._runner.require_own_process()
        pieces = pieces_of(n, self._session.buckets)

        def put(piece: Piece, outputs: Arrays) -> None:
            for name, array in outputs.items():
                results[name][piece.start : piece.start + piece.rows] = array[: piece.rows]

        self._runner.run(((piece, _cut(rows, piece)) for piece in pieces), size, put)
        if n in self._session.buckets:
            self._note(n)
        return results

    def _note(self, n: int) -> None:
        """Notes a bucket that the straight way can run: one piece at a time, of a few values, in arrays of its own."""
        session, runner = self._session, self._runner
        if session.pieces_at_once > 1 or any(None in t.shape or t.dtype != "float32" for t in session.spec.inputs):
            return
        with runner.lock:
            workspace = runner.workspaces.of(n, None)
        if workspace.run_kept is not None and all(kept.size <= _SUMMED_VALUES for _, kept in workspace.kept):
            bucket = _Bucket(tuple(workspace.kept), workspace.run_kept, tuple(workspace.outputs.items()))
            self._buckets[workspace.kept[0][1].shape] = bucket


def _cut(rows: Rows, piece: Piece) -> Rows:
    return {name: array[piece.start : piece.start + piece.rows] for name, array in rows.items()}
