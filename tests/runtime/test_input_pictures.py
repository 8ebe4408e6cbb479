"""Pictures as inputs: every pixel is the value that the spec says, and what would lose something is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_bundles import picture

from ganruntime.errors import InputError
from ganruntime.images import uint8_from_output, values_from_uint8
from ganruntime.input_pictures import size_of_picture, values_from_picture
from ganruntime.spec import Image, TensorSpec

RGB = TensorSpec("photo", "float32", (3, None, None), Image())


def file(pixels: Any, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    image.save(buffer, format, **options)
    return buffer.getvalue()


@given(
    low=st.floats(-10, 10),
    span=st.floats(0.1, 300),
    layout=st.sampled_from(["CHW", "HWC"]),
    channels=st.sampled_from([1, 3, 4]),
)
def test_pixels_become_values_and_the_same_pixels_again(low: float, span: float, layout: str, channels: int) -> None:
    shape = (channels, 16, 16) if layout == "CHW" else (16, 16, channels)
    tensor = TensorSpec("photo", "float32", shape, Image(layout, (low, low + span)))
    pixels = np.arange(256 * channels, dtype=np.uint8).reshape(1, 16, 16, channels)
    values = values_from_uint8(pixels, tensor)
    assert values.shape == (1, *shape)
    assert values.dtype == np.float32
    np.testing.assert_allclose([values.min(), values.max()], [low, low + span], rtol=1e-6, atol=1e-6 * span)
    np.testing.assert_array_equal(uint8_from_output(values, tensor), pixels)


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_a_picture_is_read_in_the_layout_and_range_of_the_spec(layout: str) -> None:
    shape = (3, 8, 6) if layout == "CHW" else (8, 6, 3)
    tensor = TensorSpec("photo", "float32", shape, Image(layout, (0.0, 1.0)))
    pixels = picture(1)
    values = values_from_picture(file(pixels), tensor, "a.png")
    expected = pixels.astype(np.float32) / 255
    np.testing.assert_allclose(values, expected.transpose(2, 0, 1) if layout == "CHW" else expected, atol=1e-7)
    assert size_of_picture(file(pixels), tensor, "a.png") == (8, 6)


def test_a_grey_picture_fits_colours_and_an_opaque_one_transparency() -> None:
    grey = picture(1, channels=1)
    np.testing.assert_array_equal(
        values_from_picture(file(grey[..., 0]), RGB, "a.png"), values_from_uint8(grey.repeat(3, 2), RGB)
    )
    rgba = TensorSpec("photo", "uint8", (8, 6, 4), Image("HWC", (0.0, 255.0)))
    values = values_from_picture(file(picture(1)), rgba, "a.png")
    np.testing.assert_array_equal(values[..., :3], picture(1))
    assert (values[..., 3] == 255).all()
    one = TensorSpec("photo", "uint8", (8, 6, 1), Image("HWC", (0.0, 255.0)))
    np.testing.assert_array_equal(values_from_picture(file(grey.repeat(3, 2)), one, "a.png"), grey)


def test_a_picture_stands_upright_as_its_camera_said() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    data = file(picture(1, 8, 6), exif=exif)
    assert size_of_picture(data, RGB, "a.png") == (6, 8)
    turned = values_from_uint8(np.rot90(picture(1, 8, 6), -1), RGB)
    np.testing.assert_array_equal(values_from_picture(data, RGB, "a.png"), turned)


def test_what_would_lose_something_is_refused() -> None:
    half = picture(1, channels=4)
    with pytest.raises(InputError, match=r"transparent in places[\s\S]*without an alpha channel"):
        values_from_picture(file(half), RGB, "a.png")
    grey = TensorSpec("photo", "float32", (1, 8, 6), Image())
    with pytest.raises(InputError, match=r"has colours[\s\S]*save it as a grey picture"):
        values_from_picture(file(picture(1)), grey, "a.png")
    deep = PIL.Image.fromarray(np.zeros((8, 6), np.uint16))
    with pytest.raises(InputError, match=r"a\.png holds another kind of pixels[\s\S]*8 bits"):
        size_of_picture(file(deep), RGB, "a.png")
    cmyk = PIL.Image.new("CMYK", (6, 8))
    with pytest.raises(InputError, match="'CMYK'"):
        size_of_picture(file(cmyk, "JPEG"), RGB, "a.jpg")


def test_another_size_another_number_of_channels_and_no_picture_are_named(tmp_path: Path) -> None:
    fixed = TensorSpec("photo", "float32", (3, 8, 8), Image())
    with pytest.raises(
        InputError, match=r"a\.png has another size[\s\S]*width 6[\s\S]*crop or scale it to height 8, w"
    ):
        size_of_picture(file(picture(1)), fixed, "a.png")
    two = TensorSpec("photo", "float32", (2, 8, 8), Image())
    with pytest.raises(InputError, match=r"takes no pictures[\s\S]*2 channels[\s\S]*photo=FILE\.npy"):
        size_of_picture(file(picture(1)), two, "a.png")
    whole = file(picture(1, 64, 64))
    for data in (b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", whole[: len(whole) // 2], file(picture(1), "BMP")):
        for read in (size_of_picture, values_from_picture):
            with pytest.raises(InputError, match=r"a\.png is not a picture that can be read"):
                read(data, RGB, "a.png")
