"""The pickles of CIFAR's Python version, read by an unpickler that builds nothing but plain values.

A pickle is a program, and `pickle.load` runs whatever it asks for. CIFAR's ask for three names of NumPy's, and get
stand-ins of ours, which only keep what they are given; asking for any other name is an error. So no code of the file's
choice runs, and the bytes of an array are bytes until they have been measured.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import DataError

MOST_BYTES = 512 << 20


class _Dtype:
    """Stands in for `numpy.dtype`; its state (byte order and the like) says nothing about a uint8."""

    def __init__(self, code: object = None, *rest: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for `numpy.ndarray`: keeps what its state says."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _reconstruct(*arguments: object) -> _Array:
    return _Array()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it asks for an object that is not in it")


def table_from_pickle(data: bytes, where: str) -> dict[str, Any]:
    """A pickled dictionary, its names as text, its arrays as uint8 NumPy arrays, texts as bytes.

    Raises:
        DataError: it is no pickle of a dictionary, or asks for what CIFAR's do not ask for.
    """
    if len(data) > MOST_BYTES:
        raise DataError(f"{where} is too large", got=f"{len(data):,} bytes", expected=f"at most {MOST_BYTES:,}")
    try:
        table = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a hostile pickle makes the unpickler raise whatever it likes
        raise DataError(
            f"{where} is no batch of CIFAR's Python version",
            got=str(error)[:200] or type(error).__name__,
            expected="a pickled dictionary of plain values and uint8 arrays",
            remedy="do not trust this file; the binary version of CIFAR holds the same images and is no pickle",
        ) from error
    if not isinstance(table, dict):
        raise DataError(f"{where} is no batch of CIFAR's Python version", got=type(table).__name__)
    return {
        key.decode("latin-1") if isinstance(key, bytes) else str(key): _array(value, where)
        if isinstance(value, _Array)
        else value
        for key, value in table.items()
    }


def _array(stood_in: _Array, where: str) -> NDArray[np.uint8]:
    state = stood_in.state
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, dtype, fortran, data = state
        code = dtype.code if isinstance(dtype, _Dtype) else None
        whole = isinstance(shape, tuple) and all(type(n) is int and 0 <= n <= 1 << 31 for n in shape)
        if whole and code in (b"u1", "u1") and not fortran and isinstance(data, bytes):
            size = 1
            for n in shape:
                size *= n
            if size == len(data):
                return np.frombuffer(data, np.uint8).reshape(shape)
    raise DataError(
        f"{where} holds an array that is not one of CIFAR's", expected="uint8 in C order, with all its bytes"
    )
