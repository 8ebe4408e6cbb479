"""IDX files: images and labels as written, gzipped or not; and every lie that a header can tell is named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from ganruntime.errors import DataError
from gantrain.data.named import source_from_name

IMAGES = np.random.default_rng(3).integers(0, 256, (40, 28, 28), dtype=np.uint8)
LABELS = (np.arange(40) % 7).astype(np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def written(folder: Path, name: str = "train", packed: bool = True) -> Path:
    """Both files; the path of the images."""
    for kind, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
        data = idx_bytes(array)
        path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)
    return folder / f"{name}-images-idx3-ubyte{'.gz' if packed else ''}"


@pytest.mark.parametrize("packed", [True, False])
def test_images_get_a_margin_and_their_labels(tmp_path: Path, packed: bool) -> None:
    source = source_from_name(str(written(tmp_path, packed=packed)), 32)
    np.testing.assert_array_equal(source.images[:, 2:30, 2:30, 0], IMAGES)
    assert source.images[:, :2].max() == 0
    assert source.labels["class"].tolist() == LABELS.tolist()
    assert source.classes["class"] == tuple("0123456")
    np.testing.assert_array_equal(source_from_name(str(tmp_path), 28).images[..., 0], IMAGES)
    assert source_from_name(str(tmp_path), 28, images=5).labels["class"].tolist() == [0, 1, 2, 3, 4]
    assert source_from_name(str(tmp_path), 16).images.shape == (40, 16, 16, 1)


def test_pieces_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(written(tmp_path))
    whole = source_from_name(path, 16)
    monkeypatch.setattr("gantrain.data.idx._PIECE_BYTES", 3 * 28 * 28 + 5)
    assert source_from_name(path, 16).fingerprint == whole.fingerprint


def test_the_train_set_of_a_folder_is_taken_and_another_by_name(tmp_path: Path) -> None:
    train, test = written(tmp_path), written(tmp_path, "t10k", packed=False)
    assert source_from_name(str(tmp_path), 28).name == f"{tmp_path.name}-train"
    assert source_from_name(str(test), 28).name == f"{tmp_path.name}-t10k"
    train.rename(tmp_path / "emnist-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match="several sets"):
        source_from_name(str(tmp_path), 28)


def test_without_a_labels_file_there_are_no_labels(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert source_from_name(str(path), 28).labels == {}


def test_a_size_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="smaller") as error:
        source_from_name(str(written(tmp_path)), 64)
    assert "size=32" in str(error.value)


GOOD = idx_bytes(IMAGES)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (GOOD[:-1], "ends too early|not as long"),
        (GOOD + b"\0", "goes on|not as long"),
        (GOOD[:12], "ends too early|not as long"),
        (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "too many to hold|ends too early|not as long"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 40, 1 << 31, 1 << 31), "no square images"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 1 << 31, 28, 28), "too many to hold|not as long"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 1, 28, 28) + bytes(784), "no square images"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 4, 28, 27) + bytes(4 * 28 * 27), "no square images"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 4, 0, 0), "no square images"),
        (idx_bytes(LABELS), "no IDX file of images"),
        (idx_bytes(IMAGES[None]), "no IDX file of images"),
        (b"\0\0\x08", "ends too early"),
    ],
)
def test_hostile_headers_are_named(tmp_path: Path, data: bytes, problem: str, packed: bool) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataError, match=problem) as error:
        source_from_name(str(path), 28)
    assert "train-images-idx3-ubyte" in str(error.value)


def test_labels_that_are_not_of_these_images(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(LABELS[:-1])))
    with pytest.raises(DataError, match=r"labels-idx1-ubyte\.gz is not of train-images"):
        source_from_name(str(path), 28)


def test_a_damaged_gzip_is_named(tmp_path: Path) -> None:
    path = written(tmp_path)
    data = bytearray(path.read_bytes())
    data[5000:5040] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        source_from_name(str(path), 28)
