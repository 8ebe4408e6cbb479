"""Rows: the inputs of a request, one row per image, checked against the spec before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime.errors import InputError
from ganruntime.spec import GeneratorSpec, Label, TensorSpec

Rows = dict[str, NDArray[np.generic]]


def given_rows(
    spec: GeneratorSpec, n: int, truncation: ArrayLike | None, label: object, inputs: Mapping[str, ArrayLike]
) -> Rows:
    """The caller's inputs as {name: [n, *shape]}, checked against the spec."""
    given: Rows = {}
    arguments: dict[str, Any] = dict(inputs)
    if truncation is not None:
        arguments["truncation"] = truncation
    if label is not None:
        tensor = next((t for t in spec.inputs if isinstance(t.role, Label)), None)
        if tensor is None:
            raise InputError(
                f"{spec.name} takes no label",
                got=repr(label),
                expected=", ".join(t.name for t in spec.inputs),
            )
        arguments[tensor.name] = label
    for name, value in arguments.items():
        tensor = next((t for t in spec.inputs if t.name == name), None)
        if tensor is None:
            raise InputError(f"{spec.name} has no input {name!r}", expected=", ".join(t.name for t in spec.inputs))
        given[name] = _rows_from_argument(tensor, value, n)
    return given


def require_all(spec: GeneratorSpec, rows: Rows) -> None:
    missing = [t.name for t in spec.inputs if t.name not in rows]
    if missing:
        raise InputError(
            f"{spec.name} needs inputs that were not given",
            got=", ".join(rows) or "none",
            expected=", ".join(missing),
        )


def padded_rows(rows: NDArray[np.generic], bucket: int, dtype: str) -> NDArray[np.generic]:
    if len(rows) == bucket:
        return np.ascontiguousarray(rows, dtype)
    full: NDArray[np.generic] = np.empty((bucket, *rows.shape[1:]), dtype)
    full[: len(rows)] = rows
    # A real row, not zeros: a network may divide by a latent's length.
    full[len(rows) :] = rows[:1]
    return full


def _rows_from_argument(tensor: TensorSpec, value: Any, n: int) -> NDArray[np.generic]:
    """[n, *shape] in the input's dtype, from one value for all or one per image."""
    if isinstance(tensor.role, Label):
        value = _label_indices(tensor, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"input {tensor.name!r} is not an array", got=str(error)) from error
    integral = np.issubdtype(np.dtype(tensor.dtype), np.integer)
    if array.dtype.kind not in ("iub" if integral else "iuf"):
        raise InputError(
            f"input {tensor.name!r} has the wrong kind of number", got=str(array.dtype), expected=tensor.dtype
        )
    rank = len(tensor.shape)
    if array.ndim == rank:
        array = np.broadcast_to(array, (n, *array.shape))
    fits = (
        array.ndim == rank + 1
        and len(array) == n
        and all(d in (None, s) for d, s in zip(tensor.shape, array.shape[1:], strict=False))
    )
    if not fits:
        shape = list(tensor.shape)
        raise InputError(
            f"input {tensor.name!r} has the wrong shape",
            got=list(array.shape),
            expected=f"{[n, *shape]} or {shape} for all",
        )
    if not integral and not np.isfinite(array).all():
        raise InputError(f"input {tensor.name!r} has values that are not finite")
    return array.astype(tensor.dtype, copy=False)


def _label_indices(tensor: TensorSpec, value: Any) -> NDArray[np.int64]:
    assert isinstance(tensor.role, Label)
    classes = tensor.role.classes
    values = np.asarray(value)
    if values.dtype.kind in "US":
        unknown = [str(v) for v in np.atleast_1d(values) if str(v) not in classes]
        if unknown:
            raise InputError(f"{unknown[0]!r} is not a class of {tensor.name!r}", expected=", ".join(classes))
        values = np.vectorize(lambda v: classes.index(str(v)), otypes=[np.int64])(values)
    if values.dtype.kind not in "iu":
        raise InputError(f"label {value!r} is neither a class name nor an index", expected=", ".join(classes))
    outside = [int(v) for v in np.ravel(values) if not 0 <= v < len(classes)]
    if outside:
        raise InputError(
            f"a label of {tensor.name!r} is out of range", got=outside[0], expected=f"0 to {len(classes) - 1}"
        )
    return values.astype(np.int64)
