"""Input files: what a caller gives for the inputs of a run, read row by row, and known again by their hashes.

A single picture, or an array of the input's own shape, is for every image of a run. A folder of pictures, or an array
with a dimension more, has a row per image: row i belongs to image i of the seed, whatever the first index of a run is,
so that image i is the same one in every run that holds it. Each file is hashed when it is opened, and again when a row
of it is read: a file that was changed in between is an error, never another image.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime import input_arrays
from ganruntime.chunks import Chunk
from ganruntime.errors import InputError
from ganruntime.input_sources import FileRow, Source, expected_of, source_from_path
from ganruntime.rows import Rows
from ganruntime.sizes import Size, require_sizes, size_text
from ganruntime.spec import GeneratorSpec, Image, Label, Latent, Noise, Scalar, TensorSpec


class InputFiles:
    """The files of a run, by the input that they are for."""

    def __init__(self, spec: GeneratorSpec, inputs: Mapping[str, Source]) -> None:
        self._spec = spec
        self._inputs = dict(inputs)
        counts = {name: given.count for name, given in self._inputs.items() if given.count is not None}
        if len(set(counts.values())) > 1:
            raise InputError(
                "inputs have different numbers of rows",
                got=", ".join(f"{count:,} of {name!r}" for name, count in counts.items()),
                expected="as many of one as of the other, or one for all",
            )
        self.count: int | None = next(iter(counts.values()), None)
        self._require_sizes()

    def require_all(self, others: Collection[str]) -> None:
        """Raises `InputError` where an input is not among the files, not among `others`, and drawn from no seed."""
        seedless = [t for t in self._spec.inputs if not isinstance(t.role, (Latent, Noise, Label, Scalar))]
        missing = [t for t in seedless if t.name not in self._inputs and t.name not in others]
        if missing:
            raise InputError(
                f"{self._spec.name} needs inputs that no seed gives",
                got=", ".join([*self._inputs, *others]) or "none",
                expected="; ".join(f"{t.name}: {expected_of(t)}" for t in missing),
                remedy=" ".join(f"--input {t.name}=FILE" for t in missing),
            )

    def default_count(self, first: int, others: Collection[str]) -> int:
        """How many images there are to draw where nobody says: one per row; else 64, or 1 where all would be equal."""
        if self.count is not None:
            return max(1, self.count - first)
        drawn = [t.name for t in self._spec.inputs if isinstance(t.role, (Latent, Noise, Label))]
        return 64 if any(name not in self._inputs and name not in others for name in drawn) else 1

    def __bool__(self) -> bool:
        return bool(self._inputs)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    @property
    def digests(self) -> dict[str, str]:
        """{input: SHA-256}: two runs with equal ones are given the same rows in the same order, wherever they lie."""
        return {name: given.sha256 for name, given in self._inputs.items()}

    def require_range(self, first: int, count: int) -> None:
        """Raises `InputError` where an image of the run has no row."""
        if self.count is not None and first + count > self.count:
            names = ", ".join(repr(n) for n, given in self._inputs.items() if given.count is not None)
            left = self.count - first
            raise InputError(
                f"input {names} has {self.count:,} rows: image i takes row i",
                got=f"images {first} to {first + count - 1}",
                expected=f"0 to {self.count - 1}",
                remedy=f"-n {left}" if left > 0 else "a smaller --first",
            )

    def require_one_size(self, first: int, count: int, what: str) -> None:
        """Raises `InputError` where images of the run have different sizes, which `what` cannot hold."""
        sizes = self.sizes(first, count)
        other = next((i for i, size in enumerate(sizes) if size != sizes[0]), None)
        if other is not None:
            at = [self._varying(first + i) for i in (0, other)]
            raise InputError(
                f"{what} holds images of one size, and the inputs have several",
                got="; ".join(f"{file.path.name}: {size_text(file.size)}" for file in at if file and file.size),
                remedy="-o FOLDER/, or scale them to one size",
            )

    def sizes(self, first: int, count: int) -> list[Size | None]:
        """The size of each image of the run; None where the spec leaves none open."""
        files = [self._varying(first + i) for i in range(count)]
        return [None if file is None else file.size for file in files]

    def parts(self, first: int, chunk: Chunk) -> Iterator[Chunk]:
        """A chunk of the run cut where the size of the images changes: a batch has one size."""
        yield from parts_of(chunk, self.sizes(first + chunk.start, chunk.count))

    def rows(self, first: int, count: int) -> Rows:
        """{input: [count, *shape]} of images `first` … of the seed, which have one size.

        Raises:
            InputError: a file was changed, is gone, or holds no picture behind its header.
        """
        rows: Rows = {}
        for name, given in self._inputs.items():
            if given.count is None or count == 0:
                row = given.row(first if given.count is None else min(first, given.count - 1))
                rows[name] = np.broadcast_to(row, (count, *row.shape))
            else:
                rows[name] = np.stack([given.row(first + i) for i in range(count)])
        return rows

    def records(self, index: int) -> dict[str, dict[str, Any]]:
        """{input: what a replay record says of it} for image `index` of the seed."""
        return {name: given.at(index).to_json() for name, given in self._inputs.items()}

    def lines(self) -> bytes:
        """What `inputs.jsonl` of a run holds: a line for each file, with the path, hash and size that it had."""
        lines = ({"input": name} | line for name, given in self._inputs.items() for line in given.lines())
        return "".join(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n" for line in lines).encode()

    def _varying(self, index: int) -> FileRow | None:
        for tensor in self._spec.inputs:
            if tensor.name in self._inputs and isinstance(tensor.role, Image) and None in tensor.shape:
                return self._inputs[tensor.name].at(index)
        return None

    def _require_sizes(self) -> None:
        """Raises `InputError`, which names the image, where sizes do not fit the spec or each other."""
        varying = [t for t in self._spec.inputs if isinstance(t.role, Image) and None in t.shape]
        varying = [t for t in varying if t.name in self._inputs]
        seen = set()
        for index in range(self.count or 1):
            files = [self._inputs[t.name].at(index) for t in varying]
            sizes = tuple(file.size for file in files)
            if sizes in seen:
                continue
            seen.add(sizes)
            shaped = {t.name: _shaped(t, size) for t, size in zip(varying, sizes, strict=True)}
            try:
                require_sizes(self._spec, shaped)
            except InputError as error:
                names = " and ".join(str(file.path) for file in files)
                raise InputError(
                    f"{names}: {error.problem}", got=error.got, expected=error.expected, remedy=error.remedy
                ) from error


def parts_of(chunk: Chunk, sizes: Sequence[object]) -> Iterator[Chunk]:
    """A chunk cut where the size changes; `sizes` has one for each of its images."""
    start = 0
    for i in range(1, chunk.count + 1):
        if i == chunk.count or sizes[i] != sizes[start]:
            yield Chunk(chunk.start + start, i - start)
            start = i


def input_files(spec: GeneratorSpec, paths: Mapping[str, Path]) -> InputFiles:
    """Opens the files of inputs.

    Args:
        paths: {input: a picture, a folder of pictures, or an array (.npy, .npz, .json)}.

    Raises:
        InputError: there is no such input or file, or what the file holds does not fit the spec.
    """
    return InputFiles(spec, {name: source_from_path(spec, tensor_of(spec, name), path) for name, path in paths.items()})


def named_texts(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=TEXT` as {name: text}. Raises `InputError` for anything else, and for a name that comes twice."""
    named: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise InputError("an input is told as NAME=FILE or NAME=VALUE", got=text)
        if name in named:
            raise InputError(f"input {name!r} was given twice", got=f"{named[name]} and {value}", expected="one")
        named[name] = value
    return named


def inputs_from_texts(spec: GeneratorSpec, texts: Mapping[str, str]) -> tuple[dict[str, Any], InputFiles]:
    """({input: value for every image}, the files of the others), as a command line tells them.

    Args:
        texts: {input: a number, a class name, JSON in brackets, or a path}.

    Raises:
        InputError: there is no such input or file, or what is given does not fit the spec.
    """
    values: dict[str, Any] = {}
    paths: dict[str, Path] = {}
    for name, text in texts.items():
        tensor = tensor_of(spec, name)
        if not isinstance(tensor.role, Image) and input_arrays.is_literal(text, tensor):
            values[name] = input_arrays.value_from_text(spec, tensor, text)
        else:
            paths[name] = Path(text)
    return values, input_files(spec, paths)


def tensor_of(spec: GeneratorSpec, name: str) -> TensorSpec:
    tensor = next((t for t in spec.inputs if t.name == name), None)
    if tensor is None:
        raise InputError(f"{spec.name} has no input {name!r}", expected=", ".join(t.name for t in spec.inputs))
    return tensor


def _shaped(tensor: TensorSpec, size: Size | None) -> NDArray[np.generic]:
    """An array [1, *shape] of the size, without its bytes."""
    assert isinstance(tensor.role, Image)
    assert size is not None
    sides: Iterator[int] = iter(size)
    axes = tensor.role.height_and_width
    shape = [next(sides) if axis in axes else d for axis, d in enumerate(tensor.shape)]
    return np.broadcast_to(np.zeros((), np.uint8), (1, *(d or 0 for d in shape)))
