"""Labels of pictures: dataset.json as StyleGAN2-ADA writes it, in folders and zips, and what is wrong with others."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ganruntime.errors import DataError
from gantrain.data.dataset_json import Labels, labels_from_dataset_json, labels_from_folders
from gantrain.data.named import source_from_name
from gantrain.data.source import ImageSource

NAMES = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00000002.png"]


def labels_of(labels: Any, names: list[str] = NAMES) -> Labels:
    rows = None if labels is None else [[name, label] for name, label in zip(names, labels, strict=False)]
    return labels_from_dataset_json(json.dumps({"labels": rows}).encode(), "dataset.json", names)


def stored(folder: Path, form: str, labels: Any) -> ImageSource:
    """Three grey pictures of 10, 20 and 30 with a dataset.json, as a folder or as a zip."""
    root = folder / "set"
    for k, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (16, 16), 10 * (k + 1)).save(root / name)
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    if form == "folder":
        return source_from_name(str(root), 16)
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root).as_posix())
    return source_from_name(str(folder / "set.zip"), 16)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_labels_are_found_by_path_whatever_their_order(tmp_path: Path, form: str) -> None:
    source = stored(tmp_path, form, [[NAMES[2], 0], [NAMES[0], 4], [NAMES[1], 2]])
    assert source.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert source.labels["class"].tolist() == [4, 2, 0]
    assert source.classes == {"class": ("0", "1", "2", "3", "4")}
    assert source.skipped == ()


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_null_means_no_labels_and_not_those_of_the_folders(tmp_path: Path, form: str) -> None:
    assert stored(tmp_path, form, None).labels == {}


def test_a_zip_with_a_folder_a_class(tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k, name in enumerate(["dog/1.png", "cat/1.png", "dog/2.png"]):
            picture = tmp_path / f"{k}.png"
            PIL.Image.new("L", (16, 16), k).save(picture)
            archive.write(picture, name)
    source = source_from_name(str(path), 16)
    assert source.labels["class"].tolist() == [0, 1, 1]
    assert source.classes["class"] == ("cat", "dog")
    first = source_from_name(str(path), 16, images=2)
    assert first.classes["class"] == ("cat", "dog")


def test_one_hot_vectors_are_classes_and_others_attributes() -> None:
    one_hot = labels_of([[0, 1, 0], [0, 0, 1.0], [1, 0, 0]])
    assert one_hot.values["class"].tolist() == [1, 2, 0]
    assert one_hot.classes["class"] == ("0", "1", "2")
    attributes = labels_of([[0, 1], [1, 1], [0, 0]])
    assert {name: values.tolist() for name, values in attributes.values.items()} == {"0": [0, 1, 0], "1": [1, 1, 0]}
    assert attributes.classes == {"0": ("no", "yes"), "1": ("no", "yes")}


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([1, 2], "no label for 00001/img00000002.png"),
        ([1, 2, -1], "label of 00001/img00000002.png is none"),
        ([1, 2, True], "is none"),
        ([1, [0, 1], 2], "label of 00000/img00000001.png is none"),
        ([[0.5, 0.5], [1, 0], [0, 1]], "img00000000.png is none"),
        ([[0, 1], [1, 0, 0], [0, 1]], "img00000001.png is none"),
        ([[], [], []], "is none"),
        ([1, 2, 1 << 40], "is none"),
        (["a", "b", "c"], "is none"),
    ],
)
def test_labels_that_cannot_be_used(labels: list[Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as error:
        labels_of(labels)
    assert "dataset.json" in str(error.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[" * 100_000, b"7", b'{"labels": 3}', b'{"labels": [["a.png"]]}', b'{"labels": [[1, 2]]}'],
)
def test_a_file_that_is_none(data: bytes) -> None:
    with pytest.raises(DataError, match=r"dataset\.json"):
        labels_from_dataset_json(data, "dataset.json", NAMES)


def test_folders_are_classes_only_where_all_pictures_lie_in_them() -> None:
    assert labels_from_folders(["a/1.png", "b/1.png", "a/x/2.png"]).values["class"].tolist() == [0, 1, 0]
    for names in (["a/1.png", "a/2.png"], ["1.png", "a/1.png", "b/1.png"], ["1.png", "2.png"]):
        assert labels_from_folders(names) == Labels()


def test_faces_and_digits_name_their_classes() -> None:
    faces, digits = source_from_name("faces", 16, images=3), source_from_name("digits", 16, images=3)
    assert faces.classes["mouth"] == ("smile", "laugh", "neutral", "sad", "surprised")
    assert set(faces.classes) == set(faces.labels)
    assert digits.classes == {"digit": tuple("0123456789")}
    assert np.array_equal(digits.part(np.array([2, 0])).labels["digit"], [2, 0])
