"""Arrays for an input: .npy, .npz and .json files, or JSON on the command line, checked against the spec."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import InputError
from ganruntime.images import values_from_uint8
from ganruntime.rows import given_rows
from ganruntime.spec import GeneratorSpec, Image, Keypoints, Label, Scalar, TensorSpec, Tokens

SUFFIXES = (".npy", ".npz", ".json")
_IMAGES = "images"  # what `ganexport generate -o NAME.npz` calls its own
_SLACK = 1e-6  # of a range: what rounding to float32 may have added to its ends


def array_from_bytes(data: bytes, suffix: str, tensor: TensorSpec, where: str) -> Any:
    """What a file holds, not checked against the spec yet.

    An .npz file holds one array, or one that is called as the input is; `images` will do for an image.

    Raises:
        InputError: the file is damaged, holds objects, or its suffix is none of `SUFFIXES`.
    """
    if suffix == ".json":
        return value_from_json(data.decode(errors="replace"), tensor, where)
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if suffix == ".npy" and isinstance(loaded, np.ndarray):
            return loaded
        if suffix == ".npz" and not isinstance(loaded, np.ndarray):
            with loaded:
                return loaded[_member(list(loaded.files), tensor, where)]
    except InputError:
        raise
    # What zipfile, zlib and NumPy's header parser raise on damaged files shares no base.
    except (OSError, ValueError, EOFError, RuntimeError, LookupError, SyntaxError, zlib.error, zipfile.BadZipFile) as e:
        raise InputError(f"{where} is not an {suffix} file that can be read", got=str(e)[:200]) from e
    raise InputError(f"{where} is not an {suffix} file", got="another format under that name")


def value_from_json(text: str, tensor: TensorSpec, where: str) -> Any:
    """Numbers, class names, or lists of them; lists of tokens are padded to the input's length.

    Raises:
        InputError: it is not JSON, or holds something else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON", got=str(error)[:200]) from error
    leaves, depth = [value], 0
    while any(isinstance(leaf, list) for leaf in leaves):
        leaves = [inner for leaf in leaves for inner in (leaf if isinstance(leaf, list) else [leaf])]
        depth += 1
    if not all(isinstance(leaf, (int, float, str)) for leaf in leaves):
        raise InputError(f"{where} holds something else than numbers and names", expected="numbers in lists")
    if isinstance(tensor.role, Tokens) and len(tensor.shape) == 1 and depth in (1, 2):
        return [_padded(row, tensor, where) for row in value] if depth == 2 else _padded(value, tensor, where)
    return value


def rows_from_value(
    spec: GeneratorSpec, tensor: TensorSpec, value: Any, where: str
) -> tuple[NDArray[np.generic], bool]:
    """([rows, *shape] in the input's dtype, whether there is a row per image).

    An array has the input's shape, and is for every image then, or one dimension more, for a row per image. uint8 for
    an image of another dtype are pixels, [H, W, C] or [n, H, W, C]; all else are values in the spec's range and layout.

    Raises:
        InputError: shape, kind of number, or a value do not fit the spec.
    """
    pixels = isinstance(tensor.role, Image) and getattr(value, "dtype", None) == np.uint8 and tensor.dtype != "uint8"
    if pixels:
        if value.ndim not in (3, 4) or value.shape[-1] != tensor.channels:
            raise InputError(
                f"{where} holds no pixels for input {tensor.name!r}",
                got=f"uint8 {list(value.shape)}",
                expected=f"uint8 [H, W, {tensor.channels}] or [n, H, W, {tensor.channels}]",
                remedy=f"values in the spec's range as {tensor.dtype}, or pixels in this order",
            )
        value = values_from_uint8(value, tensor)
    try:
        dimensions = np.ndim(value)
    except ValueError as error:
        raise InputError(f"{where} is ragged", got="lists of different lengths", expected="equal ones") from error
    rank = len(tensor.shape)
    if dimensions not in (rank, rank + 1):
        raise InputError(
            f"{where} has the wrong shape for input {tensor.name!r}",
            got=list(np.shape(value)),
            expected=f"{list(tensor.shape)} for all images, or {['n', *tensor.shape]}",
        )
    each = dimensions == rank + 1
    if each and not len(value):
        raise InputError(f"{where} is empty", expected=f"a row of {tensor.name!r} per image")
    try:
        rows = given_rows(spec, len(value) if each else 1, None, None, {tensor.name: value})[tensor.name]
        _require_range(rows, tensor)
    except InputError as error:
        raise InputError(
            f"{where}: {error.problem}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
    return rows, each


def _require_range(rows: NDArray[np.generic], tensor: TensorSpec) -> None:
    if not isinstance(tensor.role, (Image, Keypoints, Scalar)) or not rows.size:
        return
    low, high = tensor.role.range
    least, most = float(rows.min()), float(rows.max())
    slack = _SLACK * (high - low)
    if least < low - slack or most > high + slack:
        raise InputError(
            f"input {tensor.name!r} has values outside its range",
            got=f"{least:g} to {most:g}",
            expected=f"{low:g} to {high:g}",
            remedy="give pixels as uint8, or scale the values" if isinstance(tensor.role, Image) else None,
        )


def _member(names: list[str], tensor: TensorSpec, where: str) -> str:
    if tensor.name in names:
        return tensor.name
    if isinstance(tensor.role, Image) and _IMAGES in names:
        return _IMAGES
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"{where} does not say which of its arrays is input {tensor.name!r}",
        got=", ".join(names)[:200] or "none",
        expected=f"one called {tensor.name!r}",
    )


def _padded(row: Any, tensor: TensorSpec, where: str) -> Any:
    assert isinstance(tensor.role, Tokens)
    length = tensor.shape[0]
    if length is None or not isinstance(row, list):
        return row
    if len(row) > length:
        raise InputError(
            f"{where} has more tokens than input {tensor.name!r}", got=len(row), expected=f"up to {length}"
        )
    return row + [tensor.role.padding] * (length - len(row))


def is_literal(text: str, tensor: TensorSpec) -> bool:
    """Whether a text on the command line is the value itself and no path: a number, class name, or JSON in brackets."""
    return text.startswith("[") or (isinstance(tensor.role, Label) and text in tensor.role.classes) or _is_number(text)


def value_from_text(spec: GeneratorSpec, tensor: TensorSpec, text: str) -> Any:
    """The value that a literal stands for, one for every image, as plain data that JSON holds.

    Raises:
        InputError: it does not fit the spec.
    """
    where = f"--input {tensor.name}={text}"[:80]
    named = isinstance(tensor.role, Label) and text in tensor.role.classes
    value = text if named else value_from_json(text, tensor, where)
    _, each = rows_from_value(spec, tensor, value, where)
    if each:
        raise InputError(
            f"{where} has a value per image",
            expected="one for all of them",
            remedy=f"write them into a file: --input {tensor.name}=FILE.json",
        )
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
