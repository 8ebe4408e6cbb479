"""Rows: the inputs of a request, one row per image, checked against the spec before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime.errors import InputError
from ganruntime.noise import is_drawn
from ganruntime.sizes import require_sizes
from ganruntime.spec import GeneratorSpec, Label, TensorSpec, Tokens

Rows = dict[str, NDArray[np.generic]]


def given_rows(
    spec: GeneratorSpec, n: int, truncation: ArrayLike | None, label: object, inputs: Mapping[str, ArrayLike]
) -> Rows:
    """The caller's inputs as {name: [n, *shape]}, checked against the spec."""
    given: Rows = {}
    arguments: dict[str, Any] = {**inputs}
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
        if tensor.name in arguments:
            raise InputError(f"input {tensor.name!r} was given twice", got=f"label= and {tensor.name}=", expected="one")
        arguments[tensor.name] = label
    for name, value in arguments.items():
        tensor = next((t for t in spec.inputs if t.name == name), None)
        if tensor is None:
            raise InputError(f"{spec.name} has no input {name!r}", expected=", ".join(t.name for t in spec.inputs))
        given[name] = _rows_from_argument(tensor, value, n)
    require_sizes(spec, given)
    return given


def require_all(spec: GeneratorSpec, rows: Rows, *, drawn: bool = False) -> None:
    """Raises `InputError` unless there are rows of every input, or, with `drawn`, of those that noise does not draw."""
    if len(rows) < len(spec.inputs):  # each of them is an input's
        missing = [t.name for t in spec.inputs if t.name not in rows and not (drawn and is_drawn(t))]
        if missing:
            given = [t.name for t in spec.inputs if t.name not in missing]
            raise InputError(
                f"{spec.name} needs inputs that were not given",
                got=", ".join(given) or "none",
                expected=", ".join(missing),
            )


def padded_rows(rows: NDArray[np.generic], bucket: int, dtype: str) -> NDArray[np.generic]:
    """[bucket, *shape], contiguous: the rows themselves where they are that already."""
    if len(rows) == bucket:
        return np.ascontiguousarray(rows, dtype)
    full: NDArray[np.generic] = np.empty((bucket, *rows.shape[1:]), dtype)
    fill_padded(full, rows)
    return full


def fill_padded(full: NDArray[np.generic], rows: NDArray[np.generic]) -> None:
    """Fills [bucket, *shape] with at least one row, at most as many as there is room for."""
    full[: len(rows)] = rows
    # A real row, not zeros: a network may divide by a latent's length.
    full[len(rows) :] = rows[:1]


def _rows_from_argument(tensor: TensorSpec, value: Any, n: int) -> NDArray[np.generic]:
    """[n, *shape] in the input's dtype, from one value for all or one per image."""
    if type(value) is np.ndarray and _fits_as_it_is(tensor, value, n):
        return value
    if isinstance(tensor.role, Label):
        value = _label_indices(tensor, value)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"input {tensor.name!r} is not an array", got=str(error)[:200]) from error
    if array.dtype.kind not in _kinds_that_fit(tensor.dtype):
        raise InputError(
            f"input {tensor.name!r} has the wrong kind of number", got=str(array.dtype), expected=tensor.dtype
        )
    rank = len(tensor.shape)
    if array.ndim == rank:
        array = np.broadcast_to(array, (n, *array.shape))
    fits = array.shape == (n, *tensor.shape) or (
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
    if isinstance(tensor.role, Tokens):
        _require_within(array, 0, tensor.role.vocabulary_size - 1, tensor.name)
    elif np.dtype(tensor.dtype).kind in "iu":
        limits = np.iinfo(tensor.dtype)
        _require_within(array, int(limits.min), int(limits.max), tensor.name)
    rows = array
    if array.dtype != tensor.dtype:
        with np.errstate(over="ignore"):
            rows = array.astype(tensor.dtype)
    # After the conversion: what float64 can hold may be infinite in the input's dtype.
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise InputError(f"input {tensor.name!r} has values that are not finite in {tensor.dtype}")
    return rows


def _fits_as_it_is(tensor: TensorSpec, value: NDArray[np.generic], n: int) -> bool:
    """Whether these are rows of numbers already: what most calls give, told without the questions below."""
    return (
        tensor.dtype == "float32"
        and value.dtype == np.float32
        and value.shape == (n, *tensor.shape)
        and bool(np.logical_and.reduce(np.isfinite(value), axis=None))
    )


def _kinds_that_fit(dtype: str) -> str:
    """NumPy's letters of the kinds that an input takes: no float for an integer, and no number for a truth value."""
    kind = np.dtype(dtype).kind
    return {"f": "iuf", "b": "b"}.get(kind, "iu")


def _require_within(array: NDArray[np.generic], low: int, high: int, name: str) -> None:
    if array.size:
        least, most = int(array.min()), int(array.max())
        if least < low or most > high:
            raise InputError(
                f"input {name!r} has a value out of range",
                got=least if least < low else most,
                expected=f"{low} to {high}",
            )


def _label_indices(tensor: TensorSpec, value: Any) -> NDArray[np.int64]:
    assert isinstance(tensor.role, Label)
    classes = tensor.role.classes
    try:
        # As objects: NumPy would turn a list of names and indices into names.
        values = np.asarray(value, object if isinstance(value, (list, tuple)) else None)
    except ValueError as error:
        raise InputError(f"input {tensor.name!r} is not an array", got=str(error)) from error
    if values.dtype.kind not in "iu":
        indices = [_class_index(v, tensor.name, classes) for v in values.ravel().tolist()]
        values = np.array(indices, np.int64).reshape(values.shape)
    _require_within(values, 0, len(classes) - 1, tensor.name)
    return values.astype(np.int64)


def _class_index(value: object, name: str, classes: tuple[str, ...]) -> int:
    if isinstance(value, str):
        if value not in classes:
            raise InputError(f"{value!r} is not a class of {name!r}", expected=", ".join(classes))
        return classes.index(value)
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise InputError(
            f"input {name!r} is neither a class name nor an index", got=repr(value)[:80], expected=", ".join(classes)
        )
    if not 0 <= value < len(classes):
        raise InputError(f"input {name!r} has a value out of range", got=value, expected=f"0 to {len(classes) - 1}")
    return int(value)
