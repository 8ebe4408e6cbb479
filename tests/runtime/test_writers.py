"""Writers: what lies on the disk afterwards, whatever happens in between."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from bulk_requests import COLOUR, GREY, add, images, images_in, names_in, pixels, request, write
from small_disk import small_disk

from ganruntime import shards, single_files
from ganruntime.errors import InputError, OutputError
from ganruntime.image_writer import ImageWriter
from ganruntime.images import sheet_from_images
from ganruntime.spec import GeneratorSpec, Image, TensorSpec, Vector
from ganruntime.writers import (
    SHEET_LIMIT_IMAGES,
    ImageFolder,
    NpyFile,
    NpzFile,
    SheetFile,
    TarShards,
    destination_from_path,
    writer_for,
)

CURVES = GeneratorSpec("curves", GREY.inputs, (TensorSpec("curve", "float32", (5,), Vector()),))
TWO_CHANNELS = GeneratorSpec("flow", GREY.inputs, (TensorSpec("image", "float32", (2, 8, 8), Image()),))


def open_writer(
    path: Path | str,
    spec: GeneratorSpec = GREY,
    count: int = 4,
    seed: int = 0,
    first: int = 0,
    *,
    format: str | None = None,
    columns: int | None = None,
    image_format: str = "png",
    workers: int = 2,
) -> ImageWriter:
    destination = destination_from_path(path, format)
    asked = request(count, seed, first, spec=spec, format=destination.format, image_format=image_format)
    return writer_for(destination, spec, asked, columns=columns, workers=workers)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB. Mounting needs root."""
    with small_disk(tmp_path / "disk", "256k") as disk:
        yield disk


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_folder_holds_each_image_under_its_seed_and_index(tmp_path: Path, channels: int) -> None:
    drawn = images(5, channels)
    writer = open_writer(tmp_path / "new" / "folder", count=5, seed=7, first=99)
    write(writer, drawn[:2], drawn[2:])
    assert writer.written == 5
    names = [f"seed7-{i:08d}.png" for i in range(99, 104)]
    assert images_in(writer.path) == names
    for name, image in zip(names, drawn, strict=True):
        np.testing.assert_array_equal(pixels(writer.path / name), image)


def test_a_folder_keeps_what_else_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "seed7-00000000.png").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    write(open_writer(tmp_path, count=1, seed=7), images(1))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    np.testing.assert_array_equal(pixels(tmp_path / "seed7-00000000.png"), images(1)[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_file_holds_images_seed_and_first(tmp_path: Path, channels: int) -> None:
    drawn = images(70, channels)
    writer = NpzFile(tmp_path / "out.npz", 70, seed=2**64 - 1, first=2**63)
    write(writer, drawn[:64], drawn[64:])
    assert writer.written == 70
    with np.load(tmp_path / "out.npz") as arrays:
        assert sorted(arrays.files) == ["first", "images", "seed"]
        np.testing.assert_array_equal(arrays["images"], drawn)
        assert arrays["images"].dtype == np.uint8
        assert (int(arrays["seed"]), int(arrays["first"])) == (2**64 - 1, 2**63)
    assert names_in(tmp_path) == ["out.npz"]


def test_an_array_file_holds_floats_of_a_generator_that_draws_no_image(tmp_path: Path) -> None:
    curves = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    write(open_writer(tmp_path / "out.npz", CURVES, 9), curves[:4], curves[4:])
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], curves)
        assert arrays["images"].dtype == np.float32


def test_a_npy_file_is_the_images_and_nothing_else(tmp_path: Path) -> None:
    drawn = images(70, 3)
    writer = open_writer(tmp_path / "out.npy", count=70)
    assert type(writer) is NpyFile
    write(writer, drawn[:64], drawn[64:])
    assert writer.written == 70
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy", mmap_mode="r"), drawn)


def test_the_same_images_are_the_same_file_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(NpzFile(tmp_path / "a.npz", 3, 1, 2), images(3))
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    write(NpzFile(tmp_path / "b.npz", 3, 1, 2), images(3))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_sheet_is_the_sheet_of_all_images(tmp_path: Path) -> None:
    drawn = images(10, 3)
    for columns in (None, 3):
        writer = SheetFile(tmp_path / "sheet.png", 10, columns)
        write(writer, drawn[:4], drawn[4:])
        assert writer.written == 10
        np.testing.assert_array_equal(PIL.Image.open(tmp_path / "sheet.png"), sheet_from_images(drawn, columns))
    assert names_in(tmp_path) == ["sheet.png"]


def test_a_sheet_is_no_wider_than_what_is_on_it(tmp_path: Path) -> None:
    """A million columns asked for would be a picture of gigabytes."""
    write(SheetFile(tmp_path / "sheet.png", 3, 1_000_000), images(3))
    assert PIL.Image.open(tmp_path / "sheet.png").size == (3 * (6 + 2) + 2, 8 + 2 + 2)


@pytest.mark.parametrize("name", ["out.npz", "out.npy", "sheet.png"])
def test_a_file_is_replaced_whole_and_left_alone_where_nothing_was_drawn(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    write(open_writer(path, count=10))
    assert path.read_bytes() == b"old"
    write(open_writer(path, count=10), images(2))
    assert path.read_bytes() != b"old"
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("name", ["out.npz", "sheet.png", "folder"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_keeps_what_was_drawn(tmp_path: Path, name: str, interruption: type[BaseException]) -> None:
    writer = open_writer(tmp_path / name, count=100, seed=3, first=10)

    def interrupted() -> None:
        with writer:
            add(writer, images(4), images(3, seed=1))
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert writer.written == 7
    drawn = np.concatenate([images(4), images(3, seed=1)])
    if name == "folder":
        assert len(images_in(tmp_path / name)) == 7
        np.testing.assert_array_equal(pixels(tmp_path / name / "seed3-00000016.png"), drawn[6])
    elif name == "sheet.png":
        np.testing.assert_array_equal(PIL.Image.open(tmp_path / name), sheet_from_images(drawn))
    else:
        np.testing.assert_array_equal(np.load(tmp_path / name)["images"], drawn)
    assert names_in(tmp_path) == [name]


def test_an_interruption_within_a_chunk_keeps_the_chunks_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = NpzFile(tmp_path / "out.npz", 8, 0, 0)

    class Cut:
        """A spool that is interrupted when half of a chunk is written."""

        def __init__(self, spool: Any) -> None:
            self.spool = spool

        def write(self, data: bytes) -> int:
            self.spool.write(data[: len(data) // 2])
            raise KeyboardInterrupt

        def __getattr__(self, name: str) -> Any:
            return getattr(self.spool, name)

        def __enter__(self) -> Any:
            return self.spool.__enter__()

        def __exit__(self, *problem: object) -> None:
            self.spool.__exit__(*problem)

    def interrupted() -> None:
        with writer:
            add(writer, images(4))
            monkeypatch.setattr(writer, "_spool", Cut(writer._spool))
            add(writer, images(4, seed=1), start=4)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["images"], images(4))
    assert writer.written == 4


@pytest.mark.parametrize("format", ["files", "tar"])
def test_an_interruption_within_the_encoding_leaves_no_part_of_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    real = PIL.Image.Image.save
    saved: list[object] = []

    def save(self: PIL.Image.Image, file: Any, *arguments: Any, **options: Any) -> None:
        saved.append(file)
        if len(saved) == 21:
            file.write(b"\x89PNG")
            raise KeyboardInterrupt
        real(self, file, *arguments, **options)

    monkeypatch.setattr(PIL.Image.Image, "save", save)
    writer = open_writer(tmp_path, count=40, format=format, workers=1)
    with pytest.raises(KeyboardInterrupt), writer:
        add(writer, images(16), images(16, seed=1), images(8, seed=2))
    assert writer.written == 16
    assert len(images_in(tmp_path)) == {"files": 16, "tar": 4}[format]


def test_an_interruption_within_a_shard_is_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an exception out of its middle, a shard that were completed with the next images would lack a part."""
    writer = open_writer(tmp_path, count=40, format="tar")
    written = []

    def write_part(stream: Any, data: bytes) -> None:
        written.append(len(data))
        if len(written) == 50:
            raise KeyboardInterrupt
        real(stream, data)

    real = shards.TarStream._write
    monkeypatch.setattr(shards.TarStream, "_write", write_part)
    with pytest.raises(KeyboardInterrupt), writer:
        add(writer, *(images(16, seed=i) for i in range(2)), images(8, seed=2))
    whole = images_in(tmp_path)
    assert whole == [f"shard-{i:06d}.tar" for i in range(writer.written // 4)]
    assert len(whole) == 1


def test_a_full_disk_leaves_whole_images(full_disk: Path) -> None:
    writer = open_writer(full_disk / "images", count=40)
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)  # 12 KiB each
    with pytest.raises(OutputError, match="cannot write") as caught, writer:
        add(writer, noise)
    assert caught.value.got == "No space left on device"
    assert "free some space" in (caught.value.remedy or "")
    names = images_in(full_disk / "images")
    assert names == [f"seed0-{i:08d}.png" for i in range(writer.written)]
    assert 10 <= writer.written < 40
    for name, image in zip(names, noise, strict=False):
        np.testing.assert_array_equal(pixels(full_disk / "images" / name), image)


@pytest.mark.parametrize("name", ["out.npz", "sheet.png"])
def test_a_full_disk_leaves_the_old_file(full_disk: Path, name: str) -> None:
    (full_disk / name).write_bytes(b"old")
    writer = open_writer(full_disk / name, COLOUR, 40)
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)
    with pytest.raises(OutputError, match=rf"cannot write .*{name}") as caught, writer:
        add(writer, noise)
    assert caught.value.got == "No space left on device"
    assert writer.written == 0
    assert names_in(full_disk) == [name]
    assert (full_disk / name).read_bytes() == b"old"


def test_a_disk_that_is_full_at_the_very_end_leaves_the_old_file(full_disk: Path) -> None:
    """The pixels fit on the disk once, and not twice."""
    (full_disk / "out.npz").write_bytes(b"old")
    writer = NpzFile(full_disk / "out.npz", 12, 0, 0)
    with pytest.raises(OutputError, match=r"cannot write .*out\.npz"), writer:
        add(writer, np.zeros((12, 64, 64, 3), np.uint8))
    assert (full_disk / "out.npz").read_bytes() == b"old"
    assert names_in(full_disk) == ["out.npz"]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    for name in (".seed0-00000003.png.partial", ".shard-000002.tar.partial", ".run.json.partial"):
        (tmp_path / name).write_bytes(b"part")
    mine = tmp_path / ".notes.txt.partial"
    mine.write_bytes(b"mine")
    write(open_writer(tmp_path, count=1), images(1))
    assert images_in(tmp_path) == [mine.name, "seed0-00000000.png"]


@pytest.mark.parametrize(
    ("name", "format", "kind"),
    [
        ("out.npz", None, NpzFile),
        ("OUT.NPZ", None, NpzFile),
        ("out.npz", "npz", NpzFile),
        ("out.npy", None, NpyFile),
        ("sheet.png", None, SheetFile),
        ("sheet.PNG", "sheet", SheetFile),
        ("folder", None, ImageFolder),
        ("folder/", None, ImageFolder),
        ("v1.2/", None, ImageFolder),
        ("sheet.png/", None, ImageFolder),
        (".hidden", None, ImageFolder),
        ("existing", None, ImageFolder),
        ("existing.v2", None, ImageFolder),
        ("folder", "tar", TarShards),
        ("v1.2/", "tar", TarShards),
        ("existing.v2", "tar", TarShards),
        ("existing.v2", "files", ImageFolder),
    ],
)
def test_a_path_means_a_writer(tmp_path: Path, name: str, format: str | None, kind: type[ImageWriter]) -> None:
    (tmp_path / "existing").mkdir()
    (tmp_path / "existing.v2").mkdir()
    writer = open_writer(f"{tmp_path}/{name}", count=1, format=format)
    assert type(writer) is kind
    write(writer, images(1))
    assert writer.written == 1


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("sheet.pgn", "sheet.pgn/ means a folder of that name"),
        ("v1.2", "v1.2/ means a folder of that name"),
        ("a.gif", "a.gif/ means"),
        ("a.zip", "a.zip/ means"),
        ("a.jpg", "a/ --image-format jpeg"),
        ("a.JPEG", "a/ --image-format jpeg"),
        ("a.webp", "a/ --image-format webp"),
        ("a.tar", "a/ --format tar"),
    ],
)
def test_a_suffix_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(InputError, match="images are not written as") as caught:
        open_writer(tmp_path / name)
    for known in ("NAME.npz", "NAME.npy", "NAME.png", "FOLDER/"):
        assert known in str(caught.value.expected)
    assert remedy in str(caught.value.remedy)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "format", "problem"),
    [
        ("a.npz", "tar", "is not a path for --format tar"),
        ("a.npz", "npy", "is not a path for --format npy"),
        ("a.png", "files", "is not a path for --format files"),
        ("folder", "npz", "is a folder"),
        ("folder/", "sheet", "is a folder"),
    ],
)
def test_a_format_that_is_not_the_path_s_is_refused(tmp_path: Path, name: str, format: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        destination_from_path(f"{tmp_path}/{name}", format)
    assert caught.value.expected is not None
    assert names_in(tmp_path) == []


def test_paths_that_are_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name in ("folder.npz", "folder.png", "bundle.gan"):
        (tmp_path / name).mkdir()
    (tmp_path / "bundle.gan" / "manifest.json").write_text("{}")
    for name, problem in (
        ("file", "is a file"),
        ("file/", "is a file"),
        ("folder.npz", "is a folder"),
        ("folder.png", "is a folder"),
        ("bundle.gan", "is a bundle"),
        ("bundle.gan/", "is a bundle"),
    ):
        with pytest.raises(InputError, match=f"{name.rstrip('/')} {problem}"):
            destination_from_path(f"{tmp_path}/{name}")
    assert names_in(tmp_path / "bundle.gan") == ["manifest.json"]


@pytest.mark.parametrize("name", ["out.npz", "sheet.png"])
def test_a_missing_parent_is_named_with_the_command_that_makes_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot write") as caught:
        destination_from_path(tmp_path / "my pictures" / name)
    assert caught.value.remedy == f"mkdir -p '{tmp_path / 'my pictures'}'"


@pytest.mark.parametrize(("name", "format"), [("folder", "files"), ("folder", "tar"), ("sheet.png", None)])
@pytest.mark.parametrize("spec", [CURVES, TWO_CHANNELS], ids=["curves", "two channels"])
def test_outputs_that_no_png_holds_are_sent_to_an_array(
    tmp_path: Path, name: str, format: str | None, spec: GeneratorSpec
) -> None:
    with pytest.raises(InputError, match="draws nothing that a PNG can hold") as caught:
        open_writer(tmp_path / name, spec, format=format)
    assert caught.value.remedy == "-o NAME.npz"
    assert names_in(tmp_path) == []
    assert type(open_writer(tmp_path / "out.npz", spec)) is NpzFile


def test_a_sheet_over_the_limit_is_refused(tmp_path: Path) -> None:
    assert type(open_writer(tmp_path / "s.png", count=SHEET_LIMIT_IMAGES)) is SheetFile
    with pytest.raises(InputError, match="too many images for one sheet") as caught:
        open_writer(tmp_path / "s.png", count=SHEET_LIMIT_IMAGES + 1)
    assert caught.value.got == SHEET_LIMIT_IMAGES + 1


@pytest.mark.parametrize("name", ["folder", "out.npz"])
def test_columns_without_a_sheet_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="only a sheet has columns"):
        open_writer(tmp_path / name, columns=3)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["folder", "out.npz", "out.npy", "sheet.png"])
def test_a_disk_error_names_the_path_and_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    writer = open_writer(tmp_path / name)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=f"cannot write .*{name}") as caught, writer:
        add(writer, images(2))
    assert caught.value.got == "Read-only file system"
    assert writer.written == 0
    monkeypatch.undo()
    left = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert sorted(left) == (["files.jsonl", "run.json"] if name == "folder" else [])


def test_a_spool_that_ends_early_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the spool ended early"):
        single_files.copy_bytes((tmp_path / "empty").open("xb+"), (tmp_path / "target").open("wb"), 10)
