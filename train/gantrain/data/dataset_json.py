"""Labels of pictures as StyleGAN2-ADA keeps them: a `dataset.json` beside the pictures, in a folder or a zip.

    {"labels": [["00000/img00000000.png", 6], ["00000/img00000001.png", 2], …]}

(NVlabs/stylegan2-ada-pytorch, `training/dataset.py`: the labels are all integers, or all vectors of numbers, or null.)
An integer is a class. A vector that is 1 in one place and 0 elsewhere is the class of that place; vectors of zeros and
ones that are not all of that kind are attributes, one a column, each `no` or `yes`. Anything else is refused: a network
here is conditioned on classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import DataError

FILE = "dataset.json"
MOST_BYTES = 256 << 20
MOST_CLASSES = 65_536
_REMEDY = 'correct the file, or write {"labels": null} into it to train without labels'


@dataclass(frozen=True)
class Labels:
    """values: attribute -> int64 [N]. classes: attribute -> class names in label order."""

    values: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, kept: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The values of some of the pictures."""
        return {attribute: values[kept] for attribute, values in self.values.items()}


def labels_from_dataset_json(data: bytes, where: str, names: Sequence[str]) -> Labels:
    """The labels of pictures.

    Args:
        data: the file's bytes.
        where: what it is called in errors.
        names: the pictures, by their paths from where the file is, with `/`.

    Returns:
        No labels where the file says `null` or does not mention any.

    Raises:
        DataError: it is no such file, a picture has no label, or the labels are of no kind that can be used.
    """
    table = _table(data, where)
    if table is None:
        return Labels()
    missing = [name for name in names if name not in table]
    if missing:
        raise DataError(
            f"{where} has no label for {missing[0]}",
            got=f"{len(missing)} of {len(names)} pictures without a label",
            expected="one for every picture, under its path from the folder that the file is in",
            remedy=_REMEDY,
        )
    labels = [table[name] for name in names]
    if all(_is_class(label) for label in labels):
        return _of_classes(np.array(labels, np.int64))
    if all(isinstance(label, list) for label in labels):
        return _of_vectors(labels, where, names)
    odd = next(k for k, label in enumerate(labels) if not _is_class(label))
    raise _unusable(where, names[odd], labels[odd], f"an integer from 0 to {MOST_CLASSES - 1}, or a vector of 0 and 1")


def _table(data: bytes, where: str) -> dict[str, Any] | None:
    if len(data) >= MOST_BYTES:
        raise DataError(f"{where} is too large", got=f"{len(data):,} bytes", expected=f"below {MOST_BYTES:,}")
    try:
        whole = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON file", got=str(error)[:200], remedy=_REMEDY) from error
    rows = whole.get("labels") if isinstance(whole, dict) else whole
    if isinstance(whole, dict) and rows is None:
        return None
    if not isinstance(rows, list):
        raise DataError(
            f"{where} holds no list of labels", got=repr(whole)[:80], expected='{"labels": [[path, label], …]}'
        )
    for row in rows:
        if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str):
            raise DataError(f"{where} has a row that is no label", got=repr(row)[:80], expected="[path, label]")
    return {path.replace("\\", "/"): label for path, label in rows}


def _is_class(label: object) -> bool:
    return isinstance(label, int) and not isinstance(label, bool) and 0 <= label < MOST_CLASSES


def _of_classes(values: NDArray[np.int64]) -> Labels:
    return Labels({"class": values}, {"class": tuple(str(k) for k in range(int(values.max()) + 1))})


def _of_vectors(labels: Sequence[list[Any]], where: str, names: Sequence[str]) -> Labels:
    width = len(labels[0])
    for name, label in zip(names, labels, strict=True):
        whole = all(isinstance(x, (int, float)) and not isinstance(x, bool) and x in (0, 1) for x in label)
        if len(label) != width or not 1 <= width <= MOST_CLASSES or not whole:
            raise _unusable(where, name, label, f"{width} numbers, each 0 or 1, as the first has")
    table = np.array(labels, np.int64)  # [N, width]
    if (table.sum(axis=1) == 1).all():
        return Labels({"class": table.argmax(axis=1)}, {"class": tuple(str(k) for k in range(width))})
    columns = [str(k) for k in range(width)]
    return Labels(
        {name: np.ascontiguousarray(table[:, k]) for k, name in enumerate(columns)},
        dict.fromkeys(columns, ("no", "yes")),
    )


def _unusable(where: str, name: str, label: object, expected: str) -> DataError:
    return DataError(f"{where}: the label of {name} is none", got=repr(label)[:80], expected=expected, remedy=_REMEDY)


def labels_from_folders(names: Sequence[str]) -> Labels:
    """Where every picture lies in a subfolder, and there are two subfolders or more, these are the classes, by name.

    Args:
        names: paths of the pictures, with `/`.
    """
    folders = [name.split("/")[0] if "/" in name else "" for name in names]
    classes = tuple(sorted(set(folders)))
    if len(classes) < 2 or "" in classes or len(classes) > MOST_CLASSES:
        return Labels()
    numbers = {name: k for k, name in enumerate(classes)}
    return Labels({"class": np.array([numbers[folder] for folder in folders], np.int64)}, {"class": classes})
