"""Arrays out of .npz files that may be anything."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bundles import npz_bytes

from ganruntime.bundle.npz import arrays_from_npz
from ganruntime.errors import BundleIntegrityError


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, data in members:
            target.writestr(name, data)
    return file.getvalue()


def npy_bytes(array: Any, **arguments: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **arguments)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool"])
def test_what_numpy_saved_comes_back(dtype: str) -> None:
    random = np.random.default_rng(0)
    arrays = {
        f"of.{len(shape)}": random.integers(0, 2, shape).astype(dtype)
        for shape in [(), (5,), (0, 3), (2, 3), (2, 3, 4, 5)]
    }
    arrays |= {"fortran": np.asfortranarray(random.integers(0, 2, (4, 5)).astype(dtype)), "input.é": np.zeros(1, dtype)}
    found = arrays_from_npz(npz_bytes(**arrays), "golden.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable
        assert np.array_equal(found[name], array)


def test_every_version_of_the_format_is_read() -> None:
    for version in [(1, 0), (2, 0), (3, 0)]:
        data = archive(("a.npy", npy_bytes(np.arange(6, dtype=np.int64).reshape(2, 3), version=version)))
        assert arrays_from_npz(data, "g")["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_an_empty_archive_has_no_arrays() -> None:
    assert arrays_from_npz(archive(), "g") == {}


GOOD = npy_bytes(np.arange(4, dtype=np.float32))
HEADER = b"\x93NUMPY\x01\x00v\x00"


def headed(text: bytes, data: bytes = b"") -> bytes:
    return archive(("a.npy", HEADER + text.ljust(117) + b"\n" + data))


class Exploding:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not an .npz"),
        (b"PK", "not an .npz"),
        (b"PK\x05\x06" + b"\xff" * 18, "not an .npz|claims|members"),
        (GOOD, "not an .npz"),
        (b"\x80\x04K\x01.", "not an .npz"),
        (npz_bytes(a=np.arange(3))[:-1], "not an .npz|"),
        (npz_bytes(a=np.arange(1000))[:600], "not an .npz"),
        (npz_bytes(np.savez_compressed, a=np.zeros(1000)), "compressed"),
        (archive(("a.npy", GOOD), compression=zipfile.ZIP_BZIP2), "compressed"),
        (archive(("a.npy", GOOD), compression=zipfile.ZIP_LZMA), "compressed"),
        (archive(("a.npy", b"\0" * (64 << 20)), compression=zipfile.ZIP_DEFLATED), "compressed"),
        (npz_bytes(a=np.array([Exploding()], object)), "header"),
        (npz_bytes(a=np.array([{"a": 1}], object)), "header"),
        (npz_bytes(a=np.zeros(2, [("x", "<f4"), ("y", "<i4")])), "header"),
        (npz_bytes(a=np.array(["text"])), "header"),
        (npz_bytes(a=np.array([1 + 2j])), "header"),
        (npz_bytes(a=np.array([1.0], ">f4")), "header"),
        (npz_bytes(a=np.array(["2020"], "datetime64[D]")), "header"),
        (archive(("a.txt", GOOD)), "not an array"),
        (archive(("a.npy/", b"")), "not an array"),
        (archive(("a.npy", b"")), "not an .npy"),
        (archive(("a.npy", b"\x93NUMPY")), "not an .npy"),
        (archive(("a.npy", b"\x93NUMPY\x04\x00v\x00" + b" " * 200)), "not an .npy"),
        (archive(("a.npy", GOOD[:-1])), "another size"),
        (archive(("a.npy", GOOD + b"x")), "another size"),
        (archive(("a.npy", GOOD[:40])), "header"),
        (headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000, 100000000000), }"), "another size"),
        (headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }", b"\0" * 16), "header"),
        (headed(b"{'descr': '<f4', 'fortran_order': False, 'shape': 4, }", b"\0" * 16), "header"),
        (headed(b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", b"\0" * 16), "header"),
        (headed(b"{'descr': '<f4', 'fortran_order': __import__('os').abort(), 'shape': (4,), }", b"\0" * 16), "header"),
        (archive(("a.npy", HEADER[:8] + b"\xff\xff" + b"{" * 70_000)), "header"),
    ],
)  # fmt: skip
def test_what_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(BundleIntegrityError, match=problem) as error:
        arrays_from_npz(data, "x.gan: golden.npz")
    assert str(error.value).startswith("x.gan: golden.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice_is_refused() -> None:
    with pytest.raises(BundleIntegrityError, match="twice"):
        arrays_from_npz(archive(("a.npy", GOOD), ("a.npy", GOOD)), "g")


def test_members_that_overlap_are_refused() -> None:
    """A bomb without compression: many entries of the directory name the same bytes."""
    data = bytearray(archive(*[(f"{i:03}.npy", npy_bytes(np.zeros(4000))) for i in range(3)]))
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as target:
        (first, *_, last), end = target.infolist(), target.start_dir
    assert last.header_offset > first.header_offset
    directory = bytes(data[end:-22])
    entry = directory[: len(directory) // 3]
    assert entry.count(b"PK\x01\x02") == 1
    count = 200
    body = bytes(data[: last.header_offset])
    many = b"".join(entry.replace(b"000.npy", b"%03d.npy" % i) for i in range(count))
    tail = (
        b"PK\x05\x06"
        + bytes(4)
        + count.to_bytes(2, "little") * 2
        + len(many).to_bytes(4, "little")
        + len(body).to_bytes(4, "little")
        + bytes(2)
    )
    with pytest.raises(BundleIntegrityError, match="claims to hold more"):
        arrays_from_npz(body + many + tail, "g")


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(archive(("a.npy", GOOD)))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    with pytest.raises(BundleIntegrityError, match="npz"):
        arrays_from_npz(bytes(data), "g")


def test_too_many_members_are_refused() -> None:
    with pytest.raises(BundleIntegrityError, match="4096 members"):
        arrays_from_npz(archive(*[(f"{i}.npy", GOOD) for i in range(4097)]), "g")


SAMPLE = npz_bytes(**{"input.z": np.arange(12, dtype=np.float32).reshape(3, 4), "positions.image": np.arange(5)})


@settings(deadline=None, max_examples=400)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), max_size=6),
    start=st.sampled_from([0, 0, 0, 1, 30]),
    end=st.integers(0, len(SAMPLE)) | st.just(len(SAMPLE)),
)
def test_no_edit_gives_any_other_error(edits: list[tuple[int, int]], start: int, end: int) -> None:
    data = bytearray(SAMPLE)
    for position, value in edits:
        data[position] = value
    check_any(bytes(data[start:end]))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400))
def test_no_bytes_give_any_other_error(data: bytes) -> None:
    check_any(data)
    check_any(SAMPLE[:-22] + data + SAMPLE[-22:])
    check_any(archive(("a.npy", data)))
    check_any(archive(("a.npy", GOOD[:10] + data)))


def check_any(data: bytes) -> None:
    try:
        arrays = arrays_from_npz(data, "g")
    except BundleIntegrityError as error:
        message = str(error)
    else:
        assert all(a.dtype != object for a in arrays.values())
        return
    assert message.startswith("g")
