"""Arrays out of an .npz file that may be anything: no pickle, no compression, no length that is believed.

NumPy's own reader inflates whatever it is given and raises whatever zipfile raises. The bundle's arrays are written by
`numpy.savez`, which stores without compressing: so the arrays cannot be larger than the file, and need no other limit.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import BundleIntegrityError

_MEMBERS_LIMIT = 4096
_HEADER = re.compile(
    rb"\{'descr': '(?P<descr>[<|][fiub][1248])', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,18}, )*(?:\d{1,18},?)?)\), \} *\n\Z"
)
# What a spec can hold, and float64 for figures of the reference.
_DTYPES = (b"<f8", b"<f4", b"<f2", b"<i8", b"<i4", b"|u1", b"|b1")


def arrays_from_npz(data: bytes, name: str) -> dict[str, NDArray[np.generic]]:
    """Reads the arrays of an .npz file.

    Args:
        data: the whole file.
        name: how the file is called, for the error.

    Returns:
        {array name: array}, each a copy in C order.

    Raises:
        BundleIntegrityError: the file is no zip archive, or a member of it is compressed, encrypted, repeated,
            damaged, not an .npy file, or holds objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_members(members, len(data), name)
            return {
                m.filename.removesuffix(".npy"): _array(archive.read(m), f"{name}: {m.filename!r}") for m in members
            }
    except BundleIntegrityError:
        raise
    # What zipfile raises on damaged archives shares no base; RuntimeError and its NotImplementedError are its words
    # for encryption and for features that it lacks.
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError, LookupError, struct.error) as error:
        raise _error(name, "is not an .npz file", str(error)[:200]) from error


def _check_members(members: list[zipfile.ZipInfo], size_bytes: int, name: str) -> None:
    names = [m.filename for m in members]
    if len(members) > _MEMBERS_LIMIT:
        raise _error(name, f"has more than {_MEMBERS_LIMIT} members", len(members))
    if len(set(names)) < len(names):
        raise _error(name, "has a member twice")
    for member in members:
        if not member.filename.endswith(".npy"):
            raise _error(name, "has a member that is not an array", repr(member.filename)[:200])
        if member.compress_type != zipfile.ZIP_STORED:
            raise _error(name, "has a compressed member", repr(member.filename)[:200])
    # Members may overlap, so that a small archive holds a large one many times over.
    if sum(m.file_size for m in members) > size_bytes:
        raise _error(name, "claims to hold more than it does")


def _array(data: bytes, name: str) -> NDArray[np.generic]:
    """One .npy file, format versions 1 to 3 (numpy.lib.format): magic, version, length of the header, header, bytes."""
    if data[:6] != b"\x93NUMPY" or data[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise _error(name, "is not an .npy file")
    width = 2 if data[6] == 1 else 4
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    match = _HEADER.fullmatch(data[8 + width : min(start, 4096)])
    if match is None or match["descr"] not in _DTYPES:
        raise _error(name, "has a header that this format does not use", repr(data[8 + width : min(start, 200)]))
    shape = tuple(int(d) for d in match["shape"].replace(b",", b" ").split())
    dtype = np.dtype(match["descr"].decode())
    if math.prod(shape) * dtype.itemsize != len(data) - start:
        raise _error(name, "is of another size than its header says", f"{len(data) - start:,} bytes for {list(shape)}")
    flat = np.frombuffer(data, dtype, offset=start)
    return np.array(flat.reshape(shape, order="F" if match["fortran"] == b"True" else "C"), order="C")


def _error(name: str, problem: str, got: object = None) -> BundleIntegrityError:
    return BundleIntegrityError(
        f"{name} {problem}",
        got=got,
        expected="arrays of numbers, stored uncompressed as numpy.savez does",
        remedy="export the bundle again",
    )
