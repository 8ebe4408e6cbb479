"""CIFAR archives: both versions give the same images, and no pickle gets to run anything."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganruntime.errors import DataError
from gantrain.data.cifar import CIFAR10
from gantrain.data.cifar_pickle import table_from_pickle
from gantrain.data.named import source_from_name

PIXELS = np.random.default_rng(5).integers(0, 256, (2, 6, 3072), dtype=np.uint8)  # two batches of six
TEN = np.array([[3, 8, 8, 0, 6, 6], [1, 2, 9, 4, 5, 7]])
FINE, COARSE = TEN * 11, TEN * 2


def archive_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def records(k: int, *labels: np.ndarray) -> bytes:
    return np.concatenate([*(x[k][:, None].astype(np.uint8) for x in labels), PIXELS[k]], axis=1).tobytes()


def old_pickle(pixels: np.ndarray, lists: dict[bytes, list[int]]) -> bytes:
    """A batch as Python 2's cPickle wrote it with NumPy 1, which today's pickle no longer writes: protocol 2, byte
    strings, and `numpy.core.multiarray`."""
    out = bytearray(b"\x80\x02}q\x01(")

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    out += text(b"data") + b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03" + number(0) + b"\x85"
    out += text(b"b") + b"\x87R("
    out += number(1) + number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    out += b"cnumpy\ndtype\nq\x04" + text(b"u1") + number(0) + number(1) + b"\x87R("
    out += number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    out += b"\x89T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
    for name, values in lists.items():
        out += text(name) + b"](" + b"".join(number(v) for v in values) + b"e"
    return bytes(out + b"u.")


def cifar10(folder: Path, version: str) -> Path:
    if version == "binary":
        members = {f"cifar-10-batches-bin/data_batch_{k + 1}.bin": records(k, TEN) for k in (1, 0)}
        members["cifar-10-batches-bin/test_batch.bin"] = b"never read"
    else:
        members = {
            f"cifar-10-batches-py/data_batch_{k + 1}": old_pickle(PIXELS[k], {b"labels": TEN[k].tolist()})
            for k in (0, 1)
        }
        members["cifar-10-batches-py/test_batch"] = b"never read"
    return archive_of(folder / f"cifar-10-{version}.tar.gz", members)


def images() -> np.ndarray:
    return PIXELS.reshape(12, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar10(tmp_path: Path, version: str) -> None:
    path = cifar10(tmp_path, version)
    source = source_from_name(str(path), 32)
    np.testing.assert_array_equal(source.images, images())
    assert source.labels["class"].tolist() == TEN.ravel().tolist()
    assert source.classes["class"] == CIFAR10
    assert source.name == "cifar10"
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
    assert source_from_name(str(folder), 32).fingerprint == source.fingerprint
    assert source_from_name(str(path), 16, images=7).images.shape == (7, 16, 16, 3)
    if version == "binary":
        one = source_from_name(str(folder / "data_batch_2.bin"), 32)
        np.testing.assert_array_equal(one.images, images()[6:])


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100_has_coarse_and_fine_classes(tmp_path: Path, version: str) -> None:
    fine, coarse = ([f"{kind}{k}".encode() for k in range(n)] for kind, n in (("fine", 100), ("coarse", 20)))
    if version == "binary":
        members = {
            "cifar-100-binary/train.bin": records(0, COARSE, FINE),
            "cifar-100-binary/fine_label_names.txt": b"\n".join(fine),
            "cifar-100-binary/coarse_label_names.txt": b"\n".join(coarse),
        }
    else:
        lists = {b"fine_labels": FINE[0].tolist(), b"coarse_labels": COARSE[0].tolist()}
        names = {b"fine_label_names": fine, b"coarse_label_names": coarse}
        members = {"cifar-100-python/train": old_pickle(PIXELS[0], lists), "cifar-100-python/meta": pickle.dumps(names)}
    source = source_from_name(str(archive_of(tmp_path / "c.tar.gz", members)), 32)
    assert source.labels["fine"].tolist() == FINE[0].tolist()
    assert source.labels["coarse"].tolist() == COARSE[0].tolist()
    assert source.classes["fine"][99] == "fine99"
    assert source.classes["coarse"][0] == "coarse0"
    assert source.name == "cifar100"


def test_the_array_as_todays_numpy_pickles_it_is_read_too() -> None:
    data = pickle.dumps({b"data": PIXELS[0], b"labels": [1, 2]}, protocol=2)
    # Protocol 2 has no bytes of its own, and asks `_codecs.encode` for them: that is not on the list.
    with pytest.raises(DataError, match=r"_codecs\.encode"):
        table_from_pickle(data, "x")
    table = table_from_pickle(pickle.dumps({b"data": PIXELS[0], b"labels": [1, 2]}, protocol=4), "x")
    np.testing.assert_array_equal(table["data"], PIXELS[0])


class _Runs:
    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


@pytest.mark.parametrize(
    "hostile",
    [
        _Runs(os.system, "touch {}"),
        _Runs(eval, "open('{}', 'w')"),
        _Runs(getattr, "", "format"),
        _Runs(np.frombuffer, b"abc"),
        np.dtype("O"),
        np.array([object()], dtype=object),
        np.zeros(3, np.float32),
    ],
)
def test_a_pickle_that_asks_for_anything_else_runs_nothing(tmp_path: Path, hostile: Any) -> None:
    mark = tmp_path / "ran"
    if isinstance(hostile, _Runs):
        arguments = [a.format(mark) if isinstance(a, str) else a for a in hostile.arguments]
        hostile = _Runs(hostile.call, *arguments)
    data = pickle.dumps({"data": hostile, "labels": [1]}, protocol=4)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(data)
    with pytest.raises(DataError, match="data_batch_1"):
        source_from_name(str(folder), 32)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ([1, 2], "no batch of CIFAR"),
        ({"labels": [1]}, "holds no images"),
        ({"data": PIXELS[0][:, :-1], "labels": [1] * 6}, "holds no images"),
        ({"data": PIXELS[0], "labels": [1] * 5}, "holds no labels"),
        ({"data": PIXELS[0], "labels": [1] * 5 + [10]}, "holds no labels"),
        ({"data": PIXELS[0], "labels": "abcdef"}, "holds no labels"),
        ({"data": PIXELS[0], "coarse_labels": [1] * 6}, "holds no labels"),
        ({"data": PIXELS[0]}, "holds no labels"),
    ],
)
def test_a_batch_that_is_not_whole(tmp_path: Path, table: Any, problem: str) -> None:
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(table, protocol=4))
    with pytest.raises(DataError, match=problem):
        source_from_name(str(tmp_path), 32)


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04", b"\x80\x02(" * 10_000, b"\x80\x04\x8e" + b"\xff" * 8, b"garbage", b"."]
)
def test_a_pickle_that_is_none(data: bytes) -> None:
    with pytest.raises(DataError, match="no batch of CIFAR"):
        table_from_pickle(data, "data_batch_1")


def test_archives_that_are_not_cifar(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no CIFAR"):
        source_from_name(str(archive_of(tmp_path / "other.tar.gz", {"a.txt": b"hello"})), 32)
    whole = cifar10(tmp_path, "binary").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.tar\.gz"):
        source_from_name(str(tmp_path / "cut.tar.gz"), 32)
    (tmp_path / "odd.bin").write_bytes(bytes(3074 * 2 + 1))
    with pytest.raises(DataError, match=r"odd\.bin is no binary batch"):
        source_from_name(str(tmp_path / "odd.bin"), 32)
    (tmp_path / "high.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(DataError, match=r"high\.bin is no binary batch"):
        source_from_name(str(tmp_path / "high.bin"), 32)
    with pytest.raises(DataError, match="smaller"):
        source_from_name(str(cifar10(tmp_path, "binary")), 64)
    mixed = {"x/data_batch_1.bin": records(0, TEN), "x/train.bin": records(0, COARSE, FINE)}
    path = archive_of(tmp_path / "mixed.tar.gz", mixed)
    with pytest.raises(DataError, match="of CIFAR-10 and of CIFAR-100"):
        source_from_name(str(path), 32)


def test_a_link_in_the_archive_is_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "link.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="holds no CIFAR"):
        source_from_name(str(tmp_path / "link.tar.gz"), 32)
