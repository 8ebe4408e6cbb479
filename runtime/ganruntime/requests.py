"""Requests: images asked for by seed and index, or by latents, checked against the spec before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ganruntime import noise
from ganruntime.errors import InputError
from ganruntime.rows import Rows, given_rows, require_all
from ganruntime.sessions.base import fixed_shape
from ganruntime.spec import GeneratorSpec, Scalar

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
    request = Request(spec, int(n), given_rows(spec, n, truncation, label, inputs), int(seed), int(first))
    require_all(spec, request.rows(0, 0))
    return request


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
    if z.shape == fixed_shape(tensor):
        z = z[None]
    n = len(z) if z.ndim else 0
    given = given_rows(spec, n, truncation, label, {**inputs, tensor.name: z})
    # Only what has a default: drawing noise here, to keep none of it, would cost as much as a small batch.
    defaults: Rows = {
        t.name: np.full((n, *fixed_shape(t)), t.role.default, t.dtype)
        for t in spec.inputs
        if isinstance(t.role, Scalar)
    }
    rows = defaults | given
    require_all(spec, rows)
    return Request(spec, n, rows)


def require_count(n: int, name: str, least: int = 0) -> None:
    """Raises `InputError` for anything but an integer of at least `least`."""
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < least:
        raise InputError(f"{name} is not a count", got=repr(n), expected=f"an integer >= {least}")
