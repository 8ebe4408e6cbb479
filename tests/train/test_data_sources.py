"""Data sources: what they give, and that whatever cannot be used is named together with what to do about it."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from ganruntime.errors import DataError, InputError
from gantrain.data.named import grey_from_rgb, source_from_name
from gantrain.data.picture import image_from_bytes
from gantrain.data.source import ImageSource


def picture_bytes(width: int = 40, height: int = 40, colour: object = (200, 30, 90), form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    mode = "L" if isinstance(colour, int) else ("RGBA" if len(colour) == 4 else "RGB")
    PIL.Image.new(mode, (width, height), colour).save(buffer, form)
    return buffer.getvalue()


def fill(folder: Path, names: list[str], **picture: object) -> None:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture_bytes(colour=(10 * i, 20, 30), **picture))


def zip_of(path: Path, members: dict[str, bytes], **options: object) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


# --- digits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [16, 32])
def test_digits_are_the_real_ones(size: int) -> None:
    source = source_from_name("digits", size)
    assert source.images.shape == (1797, size, size, 1)
    assert source.images.dtype == np.uint8
    assert np.bincount(source.labels["digit"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert source.images.min() == 0
    assert source.images.max() == 255
    assert (source.images[:, 0] < 128).mean() > 0.99  # the margin: paper at the edge
    # Reduced to the original grid again, they are what scikit-learn has.
    from sklearn.datasets import load_digits

    cells = size / 10
    middles = ((np.arange(8) + 1.5) * cells).astype(int)
    drawn = source.images[:, middles][:, :, middles, 0].reshape(-1)
    assert np.corrcoef(drawn, load_digits().images.reshape(-1))[0, 1] > 0.9


def test_digits_in_rgb_and_the_first_few() -> None:
    source = source_from_name("digits", 16, channels=3, images=5)
    assert source.images.shape == (5, 16, 16, 3)
    assert source.labels["digit"].tolist() == [0, 1, 2, 3, 4]
    assert (source.images[..., 0] == source.images[..., 2]).all()


def test_the_fingerprint_knows_pixels_and_labels() -> None:
    digits = source_from_name("digits", 16, images=50)
    assert digits.fingerprint == source_from_name("digits", 16, images=50).fingerprint
    other = digits.images.copy()
    other[3, 4, 5] ^= 1
    assert ImageSource("digits", other, digits.labels).fingerprint != digits.fingerprint
    assert ImageSource("digits", digits.images).fingerprint != digits.fingerprint
    renamed = ImageSource("digits", digits.images, digits.labels, classes={"digit": tuple("abcdefghij")})
    assert renamed.fingerprint != digits.fingerprint
    assert renamed.fingerprint_without_classes == digits.fingerprint_without_classes != digits.fingerprint


# --- faces ----------------------------------------------------------------------------------------------------------


def test_faces_are_drawn_with_labels_and_as_many_as_asked() -> None:
    source = source_from_name("faces", 16, images=6)
    assert source.images.shape == (6, 16, 16, 3)
    assert source.labels
    assert all(values.shape == (6,) and values.dtype == np.int64 for values in source.labels.values())
    grey = source_from_name("faces", 16, channels=1, images=3)
    np.testing.assert_array_equal(grey.images, grey_from_rgb(source.images[:3]))


# --- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_is_searched_in_order_and_other_files_are_reported(tmp_path: Path) -> None:
    fill(tmp_path, ["b.png", "a.jpg", "deep/er/c.PNG", "deep/a.webp"])
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "a.png").write_bytes(b"no picture")
    source = source_from_name(str(tmp_path), 32)
    assert source.images.shape == (4, 32, 32, 3)
    red = source.images[:, 16, 16, 0].astype(int)
    assert np.abs(red - [10, 0, 30, 20]).max() <= 3  # a.jpg, b.png, deep/a.webp, deep/er/c.PNG; JPEG rounds
    assert source.skipped == (".hidden.png", "__MACOSX/a.png", "notes.txt")
    assert len(source_from_name(str(tmp_path), 32, images=2).images) == 2


def test_pictures_are_cut_to_their_middle_and_reduced(tmp_path: Path) -> None:
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = (250, 128, 0)
    buffer = io.BytesIO()
    PIL.Image.fromarray(wide).save(buffer, "PNG")
    image = image_from_bytes(buffer.getvalue(), "wide.png", 32)
    assert image.shape == (32, 32, 3)
    assert (image == (250, 128, 0)).all()


def test_grey_pictures_stay_grey_and_mixed_ones_become_rgb(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(picture_bytes(colour=77))
    assert source_from_name(str(tmp_path), 32).images.shape == (2, 32, 32, 1)
    assert source_from_name(str(tmp_path), 32, channels=3).images.shape == (2, 32, 32, 3)
    (tmp_path / "c.png").write_bytes(picture_bytes(colour=(1, 2, 3)))
    mixed = source_from_name(str(tmp_path), 32).images
    assert mixed.shape == (3, 32, 32, 3)
    assert mixed[0, 0, 0].tolist() == [77, 77, 77]


def test_transparency_lies_over_white() -> None:
    image = image_from_bytes(picture_bytes(colour=(255, 0, 0, 0)), "clear.png", 32)
    assert (image == 255).all()


def test_sixteen_bits_keep_their_upper_eight() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.full((32, 32), 0x8080, np.uint16)).save(buffer, "PNG")
    assert (image_from_bytes(buffer.getvalue(), "deep.png", 32) == 0x80).all()


def test_exif_turns_a_picture() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # white above
    picture = PIL.Image.fromarray(pixels)
    exif = PIL.Image.Exif()
    exif[0x0112] = 3  # stored upside down
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", exif=exif)
    image = image_from_bytes(buffer.getvalue(), "turned.png", 32)
    assert image[4, 4, 0] == 0
    assert image[28, 4, 0] == 255


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "b.png").write_bytes(picture_bytes(300, 300)[:-40])
    with pytest.raises(DataError, match=r"b\.png is a broken picture") as raised:
        source_from_name(str(tmp_path), 32, broken="stop")
    assert "repair or remove" in str(raised.value)
    source = source_from_name(str(tmp_path), 32)
    assert source.skipped == ("b.png",)
    assert [int(image[0, 0, 0]) for image in source.images] == [0, 20]
    with pytest.raises(InputError, match="broken pictures"):
        source_from_name(str(tmp_path), 32, broken="ignore")


def test_too_many_broken_pictures_stop_the_run_all_the_same(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png", "b.png", "c.png"])
    for name in ("b.png", "c.png"):
        (tmp_path / name).write_bytes(b"?")
    with pytest.raises(DataError, match=r"b\.png is a broken picture, and so are 1 more of 3"):
        source_from_name(str(tmp_path), 32)


def test_labels_go_with_the_pictures_that_are_left(tmp_path: Path) -> None:
    fill(tmp_path, [f"{kind}/{k}.png" for kind in ("cat", "dog") for k in range(3)])
    (tmp_path / "cat/1.png").write_bytes(b"?")
    source = source_from_name(str(tmp_path), 32)
    assert source.skipped == ("cat/1.png",)
    assert source.labels["class"].tolist() == [0, 0, 1, 1, 1]
    assert source.classes == {"class": ("cat", "dog")}


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\0" * 9, b"<svg/>", bytes(range(256)) * 8])
def test_what_is_no_picture_at_all_is_named(tmp_path: Path, data: bytes) -> None:
    fill(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").write_bytes(data)
    with pytest.raises(DataError, match=r"b\.png is a broken picture"):
        source_from_name(str(tmp_path), 32)


def test_a_small_picture_is_named_with_a_size_that_fits(tmp_path: Path) -> None:
    fill(tmp_path, ["a.png", "b.png"])
    (tmp_path / "b.png").write_bytes(picture_bytes(80, 20))
    with pytest.raises(DataError, match=r"b\.png is smaller") as raised:
        source_from_name(str(tmp_path), 32)
    assert "80×20" in str(raised.value)
    assert "size=16" in str(raised.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_with_a_giant_header_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side in (10_000, 30_000):  # beyond our limit, and beyond Pillow's own
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
        with pytest.raises(DataError, match=r"bomb\.png is too large"):
            image_from_bytes(data, "bomb.png", 32)


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures"):
        source_from_name(str(tmp_path), 32)
    (tmp_path / "readme.md").write_text("soon")
    with pytest.raises(DataError, match="holds no pictures") as raised:
        source_from_name(str(tmp_path), 32)
    assert "readme.md" in str(raised.value)
    fill(tmp_path, ["a.png"])
    with pytest.raises(DataError, match="only one"):
        source_from_name(str(tmp_path), 32)


@pytest.mark.parametrize("source", ["nowhere", "no/where", "no.zip", ""])
def test_a_source_that_is_not_there_is_an_error(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if source == "":
        pytest.skip("the empty path is the current folder")
    with pytest.raises(DataError, match="no data source") as raised:
        source_from_name(source, 32)
    assert "digits" in str(raised.value)


def test_more_images_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError, match="that many") as raised:
        source_from_name("digits", 16, images=2000)
    assert "1797" in str(raised.value)


def test_more_images_than_memory_is_an_error_before_the_first_is_read(tmp_path: Path) -> None:
    from gantrain.data.source import check_memory

    check_memory("photos", 70_000, 128)
    with pytest.raises(DataError, match="photos") as raised:
        check_memory("photos", 70_000_000, 128)
    assert "images=" in str(raised.value)


def test_wrong_arguments_are_errors() -> None:
    with pytest.raises(InputError):
        source_from_name("digits", 0)
    with pytest.raises(DataError, match="no set of images"):
        ImageSource("floats", np.zeros((4, 8, 8, 1), np.float32))  # type: ignore[arg-type]


# --- zips -----------------------------------------------------------------------------------------------------------


def test_a_zip_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    names = ["b.png", "a.png", "deep/c.png"]
    fill(folder, names)
    members = {name: (folder / name).read_bytes() for name in names} | {"readme.txt": b"hello", "deep/": b""}
    source = source_from_name(str(zip_of(tmp_path / "pictures.zip", members)), 32)
    np.testing.assert_array_equal(source.images, source_from_name(str(folder), 32).images)
    assert source.name == "pictures"
    assert source.skipped == ("readme.txt",)
    assert source.fingerprint == source_from_name(str(folder), 32).fingerprint


def test_a_zip_that_is_none_is_an_error(tmp_path: Path) -> None:
    whole = zip_of(tmp_path / "whole.zip", {"a.png": picture_bytes(), "b.png": picture_bytes()}).read_bytes()
    for i, data in enumerate((b"", b"no zip", whole[: len(whole) // 2])):
        path = tmp_path / f"{i}.zip"
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"{i}\.zip is not a zip"):
            source_from_name(str(path), 32)


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "C:\\a.png"])
def test_a_path_that_leaves_the_zip_is_refused(tmp_path: Path, name: str) -> None:
    path = zip_of(tmp_path / "t.zip", {"a.png": picture_bytes(), "b.png": picture_bytes(), name: picture_bytes()})
    with pytest.raises(DataError, match="leaves the zip"):
        source_from_name(str(path), 32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.zip"]


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "e.zip", {"a.png": picture_bytes(), "b.png": picture_bytes()})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 4)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png is encrypted") as raised:
        source_from_name(str(path), 32)
    assert "password" in str(raised.value)


def test_a_decompression_bomb_is_refused_without_unpacking_it(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "bomb.zip", {"a.png": bytes(64 << 20), "b.png": picture_bytes()}, compresslevel=9)
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match=r"a\.png unpacks to an unreasonable size"):
        source_from_name(str(path), 32)


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise).save(buffer, "PNG")
    path = zip_of(tmp_path / "d.zip", {"a.png": buffer.getvalue(), "b.png": picture_bytes()})
    data = bytearray(path.read_bytes())
    data[2000:2040] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png is damaged"):
        source_from_name(str(path), 32)


def test_a_zip_without_pictures_or_with_a_broken_or_small_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pictures") as raised:
        source_from_name(str(zip_of(tmp_path / "n.zip", {"inner.zip": b"PK"})), 32)
    assert "inner.zip" in str(raised.value)
    with pytest.raises(DataError, match=r"b\.png is a broken picture"):
        source_from_name(str(zip_of(tmp_path / "b.zip", {"a.png": picture_bytes(), "b.png": b"?"})), 32)
    with pytest.raises(DataError, match=r"b\.png is smaller"):
        source_from_name(str(zip_of(tmp_path / "s.zip", {"a.png": picture_bytes(), "b.png": picture_bytes(8, 8)})), 32)
