"""Inputs that an image was given as files: found again for its replay, and held against their hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import InputError
from ganruntime.input_files import input_files, tensor_of
from ganruntime.runs import INPUTS_NAME, Request
from ganruntime.spec import GeneratorSpec

Line = Mapping[str, Any]


def read_lines(folder: Path) -> list[Line]:
    """The lines of a run's `inputs.jsonl`; what is missing or malformed is left out, for a replay can be told of it."""
    try:
        data = (folder / INPUTS_NAME).read_bytes()
    except OSError:
        return []
    return [line for line in map(_line, data.splitlines()) if line is not None]


def files_of_image(lines: Sequence[Line], request: Request, index: int) -> dict[str, dict[str, Any]]:
    """{input: file, SHA-256, row}, as a replay record says it, of image `index` of a run.

    Raises:
        InputError: the lines do not say it.
    """
    said = {}
    for name in request.files:
        line = _line_of(lines, name, index)
        if line is None:
            raise InputError(
                f"the run does not say which file image {index} was given for input {name!r}",
                expected=f"a line in {INPUTS_NAME}",
                remedy="ganexport generate with the run's options writes it again",
            )
        said[name] = {"file": Path(line["path"]).name, "sha256": line["sha256"]}
        if line.get("rows") is not None:
            said[name]["row"] = index
    return said


def sizes_of_images(lines: Sequence[Line], request: Request, first: int, count: int) -> list[Any]:
    """What the size of each image's inputs was, equal where they ran in one batch."""
    found = {(line["input"], line["index"]): line.get("size") for line in lines}
    return [
        [found.get((name, index), found.get((name, None))) for name in request.files]
        for index in range(first, first + count)
    ]


def inputs_again(
    spec: GeneratorSpec, files: Mapping[str, Mapping[str, Any]], lines: Sequence[Line], paths: Mapping[str, Path]
) -> dict[str, NDArray[np.generic]]:
    """{input: [1, *shape]} of an image, from the files that its record names.

    Args:
        files: of the record.
        lines: of its run, which say where the files lay.
        paths: where they lie now: a file, or the folder that holds it; by default where they lay.

    Raises:
        InputError: a file is not there, or is another one.
    """
    unknown = next((name for name in paths if name not in files), None)
    if unknown is not None:
        raise InputError(f"the image was given no file for {unknown!r}", expected=", ".join(files) or "no --input")
    rows: dict[str, NDArray[np.generic]] = {}
    for name, said in files.items():
        tensor_of(spec, name)
        path = paths.get(name) or next((Path(x["path"]) for x in lines if x["sha256"] == said["sha256"]), None)
        file = Path(said["file"]).name  # a record is anybody's: it names no folder
        remedy = f"--input {name}=FILE, whose SHA-256 is {said['sha256']}"
        if path is None:
            raise InputError(f"the record does not say where {file} for input {name!r} is", remedy=remedy)
        path = path / file if path.is_dir() else path
        if not path.is_file():
            raise InputError(f"{file} for input {name!r} is not where it was", got=str(path), remedy=remedy)
        opened = input_files(spec, {name: path})
        row = said.get("row") or 0
        opened.require_range(row, 1)
        found = opened.records(row)[name]["sha256"]
        if found != said["sha256"]:
            raise InputError(
                f"{path} is not what input {name!r} was given",
                got=f"SHA-256 {found}",
                expected=f"SHA-256 {said['sha256']}",
                remedy=remedy,
            )
        rows |= opened.rows(row, 1)
    return rows


def _line(data: bytes) -> Line | None:
    try:
        line = json.loads(data)
        sound = all(isinstance(line[key], str) for key in ("input", "path", "sha256"))
        return line if sound and isinstance(line["index"], (int, type(None))) else None
    except (ValueError, KeyError, TypeError):
        return None


def _line_of(lines: Sequence[Line], name: str, index: int) -> Line | None:
    mine = [line for line in lines if line["input"] == name]
    return next((line for line in mine if line["index"] in (index, None)), None)
