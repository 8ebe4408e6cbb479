"""Workspaces: the arrays of one bucket, kept and filled again from batch to batch, and the call that runs them.

After a batch the caches hold the network, and all that a step between two batches touches comes from further away:
every array that is bound anew, every dictionary and every page costs several times what a tight loop would measure. So
what can be made once for a bucket is made once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ganruntime.rows import Rows, fill_padded, padded_rows
from ganruntime.sessions.base import Session, empty_outputs, fixed_shape
from ganruntime.sizes import Size, spec_at
from ganruntime.spec import GeneratorSpec

_SIZES_KEPT = 4  # of the last sizes, arrays are kept to be filled again; a service that sees every size holds no more
_COPIED_BYTES = 1 << 20  # inputs of a bucket up to here are copied into arrays that stay bound; larger ones are bound


class Workspace:
    """A session's arrays for batches of one bucket, at one size.

    Attributes:
        outputs: {name: [bucket, *shape]}, filled by `run`.
        kept: (name, [bucket, *shape]) of each input, where they are small: what `run` copies its rows into.
        run_kept: runs what is in `kept` now; None where nothing is kept.
    """

    def __init__(self, session: Session, bucket: int, size: Size | None) -> None:
        spec = spec_at(session.spec, size)
        self.outputs: Rows = empty_outputs(spec, bucket)
        self._session = session
        self._bucket = bucket
        self.kept: list[tuple[str, NDArray[np.generic]]] = []
        self.run_kept: Callable[[], None] | None = None
        if _is_small(spec, bucket):
            self.kept = [(t.name, np.empty((bucket, *fixed_shape(t)), t.dtype)) for t in spec.inputs]
            self.run_kept = session.prepared(dict(self.kept), self.outputs)

    def run(self, rows: Rows) -> Rows:
        """Runs rows {input: [n, *shape]} in the inputs' dtypes, 0 < n <= bucket, padded to the bucket.

        Returns:
            {output: [bucket, *shape]}, which hold until the next run.
        """
        if self.run_kept is None:
            self._session.run(self.padded(rows), self.outputs)
            return self.outputs
        for name, kept in self.kept:
            fill_padded(kept, rows[name])
        self.run_kept()
        return self.outputs

    def padded(self, rows: Rows) -> Rows:
        """Rows {input: [n, *shape]} as `Session.run` takes them: [bucket, *shape], contiguous."""
        return {t.name: padded_rows(rows[t.name], self._bucket, t.dtype) for t in self._session.spec.inputs}


class Workspaces:
    """The workspaces of a session, made when they are first needed. Not thread-safe, like the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._made: dict[tuple[int, Size | None], Workspace] = {}

    def of(self, bucket: int, size: Size | None) -> Workspace:
        """The workspace of a bucket, at a size of images that vary (None where they do not)."""
        made = self._made.get((bucket, size))
        if made is None:
            sizes = list(dict.fromkeys(kept for _, kept in self._made))
            if len(sizes) >= _SIZES_KEPT and size not in sizes:
                self._made = {key: value for key, value in self._made.items() if key[1] != sizes[0]}
            made = self._made[bucket, size] = Workspace(self._session, bucket, size)
        return made

    @property
    def kept(self) -> list[tuple[int, Size | None]]:
        """(bucket, size) of each that is there."""
        return list(self._made)


def _is_small(spec: GeneratorSpec, bucket: int) -> bool:
    """Whether inputs of a bucket are worth an own copy. The shapes of inputs other than images may still vary."""
    if any(None in t.shape for t in spec.inputs):
        return False
    return bucket * sum(t.size * np.dtype(t.dtype).itemsize for t in spec.inputs) <= _COPIED_BYTES
