"""Writers: what lies on the disk afterwards, whatever happens in between."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from small_bundles import small_spec

from ganruntime import writers
from ganruntime.errors import InputError, OutputError
from ganruntime.images import sheet_from_images
from ganruntime.spec import GeneratorSpec, Image, TensorSpec, Vector
from ganruntime.writers import SHEET_LIMIT_IMAGES, ImageWriter, NpzFile, PngFolder, SheetFile, writer_for

GREY, COLOUR = small_spec(), small_spec(conditional=True)
CURVES = GeneratorSpec("curves", GREY.inputs, (TensorSpec("curve", "float32", (5,), Vector()),))
TWO_CHANNELS = GeneratorSpec("flow", GREY.inputs, (TensorSpec("image", "float32", (2, 8, 8), Image()),))


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def images(n: int, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 6, channels)).astype(np.uint8)


def write(writer: ImageWriter, *chunks: NDArray[Any]) -> None:
    with writer:
        for chunk in chunks:
            writer.add(chunk)


def pixels(path: Path) -> NDArray[np.uint8]:
    array = np.asarray(PIL.Image.open(path))
    return array[..., None] if array.ndim == 2 else array


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB. Mounting needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if mounted is None or mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip() if mounted else 'no mount command'}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_folder_holds_each_image_under_its_seed_and_index(tmp_path: Path, channels: int) -> None:
    drawn = images(5, channels)
    writer = PngFolder(tmp_path / "new" / "folder", seed=7, first=99)
    write(writer, drawn[:2], drawn[2:])
    assert writer.written == 5
    names = [f"seed7-{i:08d}.png" for i in range(99, 104)]
    assert names_in(writer.path) == names
    for name, image in zip(names, drawn, strict=True):
        np.testing.assert_array_equal(pixels(writer.path / name), image)


def test_a_folder_keeps_what_else_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "seed7-00000000.png").write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    write(PngFolder(tmp_path, 7, 0), images(1))
    assert (tmp_path / "notes.txt").read_text() == "mine"
    np.testing.assert_array_equal(pixels(tmp_path / "seed7-00000000.png"), images(1)[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_file_holds_images_seed_and_first(tmp_path: Path, channels: int) -> None:
    drawn = images(70, channels)
    writer = NpzFile(tmp_path / "out.npz", seed=2**64 - 1, first=2**63)
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
    write(writer_for(tmp_path / "out.npz", CURVES, 9, 0, 0), curves[:4], curves[4:])
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], curves)
        assert arrays["images"].dtype == np.float32


def test_the_same_images_are_the_same_file_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(NpzFile(tmp_path / "a.npz", 1, 2), images(3))
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    write(NpzFile(tmp_path / "b.npz", 1, 2), images(3))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_sheet_is_the_sheet_of_all_images(tmp_path: Path) -> None:
    drawn = images(10, 3)
    for columns in (None, 3):
        writer = SheetFile(tmp_path / "sheet.png", 0, 0, columns)
        write(writer, drawn[:4], drawn[4:])
        assert writer.written == 10
        np.testing.assert_array_equal(PIL.Image.open(tmp_path / "sheet.png"), sheet_from_images(drawn, columns))
    assert names_in(tmp_path) == ["sheet.png"]


def test_a_sheet_is_no_wider_than_what_is_on_it(tmp_path: Path) -> None:
    """A million columns asked for would be a picture of gigabytes."""
    write(SheetFile(tmp_path / "sheet.png", 0, 0, 1_000_000), images(3))
    assert PIL.Image.open(tmp_path / "sheet.png").size == (3 * (6 + 2) + 2, 8 + 2 + 2)


@pytest.mark.parametrize("name", ["out.npz", "sheet.png"])
def test_a_file_is_replaced_whole_and_left_alone_where_nothing_was_drawn(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    write(writer_for(path, GREY, 10, 0, 0))
    assert path.read_bytes() == b"old"
    write(writer_for(path, GREY, 10, 0, 0), images(2))
    assert path.read_bytes() != b"old"
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("name", ["out.npz", "sheet.png", "folder"])
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_keeps_what_was_drawn(tmp_path: Path, name: str, interruption: type[BaseException]) -> None:
    writer = writer_for(tmp_path / name, GREY, 100, 3, 10)

    def interrupted() -> None:
        with writer:
            writer.add(images(4))
            writer.add(images(3, seed=1))
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert writer.written == 7
    drawn = np.concatenate([images(4), images(3, seed=1)])
    if name == "folder":
        assert len(names_in(tmp_path / name)) == 7
        np.testing.assert_array_equal(pixels(tmp_path / name / "seed3-00000016.png"), drawn[6])
    elif name == "sheet.png":
        np.testing.assert_array_equal(PIL.Image.open(tmp_path / name), sheet_from_images(drawn))
    else:
        np.testing.assert_array_equal(np.load(tmp_path / name)["images"], drawn)
    assert names_in(tmp_path) == [name]


def test_an_interruption_within_a_chunk_keeps_the_chunks_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = NpzFile(tmp_path / "out.npz", 0, 0)

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
            writer.add(images(4))
            monkeypatch.setattr(writer, "_spool", Cut(writer._spool))
            writer.add(images(4, seed=1))

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["images"], images(4))
    assert writer.written == 4


def test_an_interruption_within_an_image_leaves_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PIL.Image.Image.save
    saved: list[object] = []

    def save(self: PIL.Image.Image, file: Any, *arguments: Any) -> None:
        if len(saved) == 2:
            file.write(b"\x89PNG")
            raise KeyboardInterrupt
        saved.append(file)
        real(self, file, *arguments)

    monkeypatch.setattr(PIL.Image.Image, "save", save)
    writer = PngFolder(tmp_path, 0, 0)
    with pytest.raises(KeyboardInterrupt), writer:
        writer.add(images(5))
    assert writer.written == 2
    assert names_in(tmp_path) == ["seed0-00000000.png", "seed0-00000001.png"]


def test_a_full_disk_leaves_whole_images(full_disk: Path) -> None:
    writer = PngFolder(full_disk / "images", 0, 0)
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)  # 12 KiB each
    with pytest.raises(OutputError, match="cannot write") as caught, writer:
        writer.add(noise)
    assert caught.value.got == "No space left on device"
    assert "free some space" in (caught.value.remedy or "")
    names = names_in(full_disk / "images")
    assert names == [f"seed0-{i:08d}.png" for i in range(writer.written)]
    assert 10 <= writer.written < 40
    for name, image in zip(names, noise, strict=False):
        np.testing.assert_array_equal(pixels(full_disk / "images" / name), image)


@pytest.mark.parametrize("name", ["out.npz", "sheet.png"])
def test_a_full_disk_leaves_the_old_file(full_disk: Path, name: str) -> None:
    (full_disk / name).write_bytes(b"old")
    writer = writer_for(full_disk / name, COLOUR, 40, 0, 0)
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)
    with pytest.raises(OutputError, match=rf"cannot write .*{name}") as caught, writer:
        writer.add(noise)
    assert caught.value.got == "No space left on device"
    assert writer.written == 0
    assert names_in(full_disk) == [name]
    assert (full_disk / name).read_bytes() == b"old"


def test_a_disk_that_is_full_at_the_very_end_leaves_the_old_file(full_disk: Path) -> None:
    """The pixels fit on the disk once, and not twice."""
    (full_disk / "out.npz").write_bytes(b"old")
    writer = NpzFile(full_disk / "out.npz", 0, 0)
    with pytest.raises(OutputError, match=r"cannot write .*out\.npz"), writer:
        writer.add(np.zeros((12, 64, 64, 3), np.uint8))
    assert (full_disk / "out.npz").read_bytes() == b"old"
    assert names_in(full_disk) == ["out.npz"]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = tmp_path / f".seed0-00000003.png.partial-{gone.pid}"
    left.write_bytes(b"\x89PNG")
    other = tmp_path / f".seed0-00000004.png.partial-{os.getppid()}"  # of a run that is under way
    other.write_bytes(b"\x89PNG")
    write(PngFolder(tmp_path, 0, 0), images(1))
    assert names_in(tmp_path) == sorted([other.name, "seed0-00000000.png"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("out.npz", NpzFile),
        ("OUT.NPZ", NpzFile),
        ("sheet.png", SheetFile),
        ("sheet.PNG", SheetFile),
        ("folder", PngFolder),
        ("v1.2", PngFolder),
        ("existing", PngFolder),
    ],
)
def test_a_path_means_a_writer(tmp_path: Path, name: str, kind: type[ImageWriter]) -> None:
    (tmp_path / "existing").mkdir()
    writer = writer_for(tmp_path / name, GREY, 4, 0, 0)
    assert type(writer) is kind
    write(writer, images(1))


@pytest.mark.parametrize("name", ["a.npy", "a.jpg", "a.JPEG", "a.webp", "a.gif", "a.zip", "a.tar", "a.mp4"])
def test_a_suffix_that_is_not_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="images are not written as") as caught:
        writer_for(tmp_path / name, GREY, 4, 0, 0)
    assert "NAME.npz" in str(caught.value.expected)
    assert names_in(tmp_path) == []


def test_paths_that_are_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for name in ("folder.npz", "folder.png", "bundle.gan"):
        (tmp_path / name).mkdir()
    (tmp_path / "bundle.gan" / "manifest.json").write_text("{}")
    for name, problem in (
        ("file", "is a file"),
        ("folder.npz", "is a folder"),
        ("folder.png", "is a folder"),
        ("bundle.gan", "is a bundle"),
    ):
        with pytest.raises(InputError, match=f"{name} {problem}"):
            writer_for(tmp_path / name, GREY, 4, 0, 0)
    assert names_in(tmp_path / "bundle.gan") == ["manifest.json"]


@pytest.mark.parametrize("name", ["out.npz", "sheet.png"])
def test_a_missing_parent_is_named_with_the_command_that_makes_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="cannot write") as caught:
        writer_for(tmp_path / "my pictures" / name, GREY, 4, 0, 0)
    assert caught.value.remedy == f"mkdir -p '{tmp_path / 'my pictures'}'"


@pytest.mark.parametrize("name", ["folder", "sheet.png"])
@pytest.mark.parametrize("spec", [CURVES, TWO_CHANNELS], ids=["curves", "two channels"])
def test_outputs_that_no_png_holds_are_sent_to_an_array(tmp_path: Path, name: str, spec: GeneratorSpec) -> None:
    with pytest.raises(InputError, match="draws nothing that a PNG can hold") as caught:
        writer_for(tmp_path / name, spec, 4, 0, 0)
    assert caught.value.remedy == "-o NAME.npz"
    assert type(writer_for(tmp_path / "out.npz", spec, 4, 0, 0)) is NpzFile


def test_a_sheet_over_the_limit_is_refused(tmp_path: Path) -> None:
    assert type(writer_for(tmp_path / "s.png", GREY, SHEET_LIMIT_IMAGES, 0, 0)) is SheetFile
    with pytest.raises(InputError, match="too many images for one sheet") as caught:
        writer_for(tmp_path / "s.png", GREY, SHEET_LIMIT_IMAGES + 1, 0, 0)
    assert caught.value.got == SHEET_LIMIT_IMAGES + 1


@pytest.mark.parametrize("name", ["folder", "out.npz"])
def test_columns_without_a_sheet_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="only a sheet has columns"):
        writer_for(tmp_path / name, GREY, 4, 0, 0, columns=3)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["folder", "out.npz", "sheet.png"])
def test_a_disk_error_names_the_path_and_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    writer = writer_for(tmp_path / name, GREY, 4, 0, 0)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=f"cannot write .*{name}") as caught, writer:
        writer.add(images(2))
    assert caught.value.got == "Read-only file system"
    assert writer.written == 0
    monkeypatch.undo()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_spool_that_ends_early_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the spool ended early"):
        writers._copy((tmp_path / "empty").open("xb+"), (tmp_path / "target").open("wb"), 10)
