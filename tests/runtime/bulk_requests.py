"""What the tests of writers share: requests, drawn chunks, and what lies in a folder."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from small_bundles import small_spec

from ganruntime.chunks import Drawn
from ganruntime.encoding import Encoding
from ganruntime.image_writer import ImageWriter
from ganruntime.runs import FILES_NAME, RUN_NAME, Request, request_from
from ganruntime.spec import GeneratorSpec

GREY, COLOUR = small_spec(), small_spec(conditional=True)
DESCRIBED = {
    "variant": "fp32",
    "precision": "fp32",
    "backend": "fake",
    "device": "cpu",
    "buckets": [1, 4, 16],
    "versions": {"fake": "1", "numpy": "0"},
}


def request(
    count: int,
    seed: int = 0,
    first: int = 0,
    *,
    format: str = "files",
    spec: GeneratorSpec = GREY,
    described: dict[str, Any] | None = None,
    image_format: str = "png",
    quality: int | None = None,
    shard_images: int | None = None,
    inputs: dict[str, Any] | None = None,
) -> Request:
    if format == "tar" and shard_images is None:
        shard_images = 4
    return request_from(
        DESCRIBED | (described or {}),
        spec,
        None,
        seed=seed,
        first=first,
        count=count,
        inputs=inputs,
        format=format,
        encoding=Encoding(image_format, quality),
        shard_images=shard_images,
    )


def images(n: int, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 6, channels)).astype(np.uint8)


def add(writer: ImageWriter, *chunks: NDArray[Any], start: int = 0) -> None:
    for chunk in chunks:
        writer.add(Drawn(start, chunk, {}))
        start += len(chunk)


def write(writer: ImageWriter, *chunks: NDArray[Any], start: int = 0) -> None:
    with writer:
        add(writer, *chunks, start=start)


def write_rest(writer: ImageWriter, everything: NDArray[np.uint8], size: int = 16) -> list[tuple[int, int]]:
    """Gives a writer what it asks for, and says what that was."""
    asked = []
    with writer:
        for chunk in writer.chunks(size):
            asked.append((chunk.start, chunk.count))
            writer.add(Drawn(chunk.start, everything[chunk.start : chunk.start + chunk.count], {}))
    return asked


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def images_in(folder: Path) -> list[str]:
    """Everything but the two files of the run, hidden names too."""
    return [name for name in names_in(folder) if name not in (RUN_NAME, FILES_NAME)]


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def pixels(file: Any) -> NDArray[np.uint8]:
    array = np.asarray(PIL.Image.open(file))
    return array[..., None] if array.ndim == 2 else array


def samples_in(shard: Path) -> list[tuple[str, NDArray[np.uint8], dict[str, Any]]]:
    """(key, pixels, record) of a shard, read by Python's own tarfile."""
    found = []
    with tarfile.open(shard) as archive:
        members = archive.getmembers()
        for picture, record in zip(members[::2], members[1::2], strict=True):
            key = picture.name.partition(".")[0]
            assert record.name == f"{key}.json"
            found.append((key, pixels(archive.extractfile(picture)), json.load(archive.extractfile(record))))  # type: ignore[arg-type]
    return found
