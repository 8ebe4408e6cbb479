"""Requests: images asked for by seed and index, or by latents, checked against the spec before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ganruntime import noise
from ganruntime.buckets import Piece
from ganruntime.errors import InputError
from ganruntime.rows import Rows, given_rows, require_all
from ganruntime.sessions.base import fixed_shape
from ganruntime.spec import GeneratorSpec, Scalar

_AHEAD_BYTES = 1 << 20
Labels = str | int | Sequence[str | int] | None


@dataclass(frozen=True)
class Request:
    """n images of a spec.

    given: {input: [n, *shape]} of what the caller gave; without a seed, of every input.
    seed, first: where the other inputs are drawn from when they are needed; None where everything was given.
    """

    spec: GeneratorSpec
    n: int
    given: Rows
    seed: int | None = None
    first: int = 0

    def rows(self, start: int, count: int) -> Rows:
        """{input: [count, *shape]} of images `start` … `start + count - 1` of the request."""
        given = {name: array[start : start + count] for name, array in self.given.items()}
        return given if self.seed is None else noise.inputs(self.spec, self.seed, self.first + start, count) | given

    def drawn(self) -> Request:
        """The same request with all of its inputs drawn."""
        return self if self.seed is None else Request(self.spec, self.n, self.rows(0, self.n))

    @property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of one row of what was given. Rows of requests that differ here cannot share a batch."""
        return tuple(self.given[t.name].shape[1:] for t in self.spec.inputs if t.name in self.given)


def request_from_seed(
    spec: GeneratorSpec,
    n: int,
    seed: int,
    first: int,
    truncation: ArrayLike | None,
    label: Labels,
    inputs: Mapping[str, ArrayLike],
) -> Request:
    """Images `first` … `first + n - 1` of a seed. Arguments and errors are those of `Generator.generate`."""
    require_count(n, "n")
    noise.require_range(seed, first, n)
    given = given_rows(spec, n, truncation, label, inputs)
    require_all(spec, given, drawn=True)
    return Request(spec, int(n), given, int(seed), int(first))


def request_from_latents(
    spec: GeneratorSpec,
    latents: ArrayLike,
    truncation: ArrayLike | None,
    label: Labels,
    inputs: Mapping[str, ArrayLike],
) -> Request:
    """Images of latents. Arguments and errors are those of `Generator.__call__`."""
    tensor = spec.latent
    if tensor is None:
        raise InputError(f"{spec.name} takes no latent", got=", ".join(t.name for t in spec.inputs))
    try:
        z = np.asarray(latents)
    except (ValueError, TypeError) as error:
        raise InputError(f"input {tensor.name!r} is not an array", got=str(error)[:200]) from error
    if z.shape == tensor.shape:  # a latent's is fixed
        z = z[None]
    n = len(z) if z.ndim else 0
    rows = given_rows(spec, n, truncation, label, {**inputs, tensor.name: z})
    if len(rows) < len(spec.inputs):
        # Only what has a default: drawing noise here, to keep none of it, would cost as much as a small batch.
        defaults: Rows = {
            t.name: np.full((n, *fixed_shape(t)), t.role.default, t.dtype)
            for t in spec.inputs
            if isinstance(t.role, Scalar)
        }
        rows = defaults | rows
        require_all(spec, rows)
    return Request(spec, n, rows)


def request_from_rows(spec: GeneratorSpec, rows: Rows) -> Request:
    """Images of inputs that are all there, {name: [n, *shape]}. Raises `InputError` for what does not fit the spec."""
    rows = given_rows(spec, len(next(iter(rows.values()), ())), None, None, rows)
    require_all(spec, rows)
    return Request(spec, len(rows[spec.inputs[0].name]), rows)


def rows_of_pieces(
    spec: GeneratorSpec, rows_of: Callable[[int, int], Rows], pieces: Sequence[Piece]
) -> Iterator[tuple[Piece, Rows]]:
    """The rows of each piece, drawn for several pieces at once where they are small: a draw has a cost of its own.

    Args:
        rows_of: (start, count) -> {input: [count, *shape]}.
        pieces: consecutive.
    """
    if len(pieces) == 1:
        yield pieces[0], rows_of(pieces[0].start, pieces[0].rows)
        return
    row_bytes = sum(4 * t.size for t in spec.inputs if None not in t.shape)
    most_rows = _AHEAD_BYTES // max(1, row_bytes)
    i = 0
    while i < len(pieces):
        start, end = pieces[i].start, i + 1
        while end < len(pieces) and pieces[end].start + pieces[end].rows - start <= most_rows:
            end += 1
        rows = rows_of(start, pieces[end - 1].start + pieces[end - 1].rows - start)
        for piece in pieces[i:end]:
            first = piece.start - start
            yield piece, {name: array[first : first + piece.rows] for name, array in rows.items()}
        i = end


def require_count(n: int, name: str, least: int = 0) -> None:
    """Raises `InputError` for anything but an integer of at least `least`."""
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < least:
        raise InputError(f"{name} is not a count", got=repr(n), expected=f"an integer >= {least}")
