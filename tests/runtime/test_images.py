"""Pixels: values, layouts, sheets."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganruntime.errors import InputError
from ganruntime.images import columns_for, pil_from_image, sheet_from_images, uint8_from_output
from ganruntime.spec import Image, TensorSpec, Vector


def tensor(channels: int, height: int, width: int, layout: str = "CHW", low: float = -1, high: float = 1) -> TensorSpec:
    shape = (channels, height, width) if layout == "CHW" else (height, width, channels)
    return TensorSpec("image", "float32", shape, Image(layout, (low, high)))


def slow_uint8(output: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The twin: one number at a time, in Python's floats rounded to float32 after each step."""
    low, high = spec.role.range  # type: ignore[attr-defined]
    gain, offset = np.float32(255.0 / (high - low)), np.float32(-low * 255.0 / (high - low))
    pixels = np.empty(output.shape, np.uint8)
    for index, x in np.ndenumerate(output):
        value = np.float32(np.float32(np.float32(x) * gain) + offset)
        pixels[index] = (
            0
            if np.isnan(value)
            else int(min(255.0, max(0.0, round(float(value)))) if np.isfinite(value) else (255 if value > 0 else 0))
        )
    return pixels.transpose(0, 2, 3, 1) if spec.role.layout == "CHW" else pixels  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=80)
@given(
    count=st.integers(0, 3),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    layout=st.sampled_from(["CHW", "HWC"]),
    interval=st.sampled_from([(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-0.5, 3.0)]),
    dtype=st.sampled_from([np.float32, np.float64, np.float16]),
    seed=st.integers(0, 99),
)
def test_pixels_are_the_twins(
    count: int, shape: tuple[int, int, int], layout: str, interval: tuple[float, float], dtype: Any, seed: int
) -> None:
    spec = tensor(*shape, layout, *interval)
    output = np.random.default_rng(seed).normal(0, 1.5, (count, *spec.shape)).astype(dtype)
    output.reshape(-1)[::7] = np.nan
    output.reshape(-1)[1::11] = np.inf
    output.reshape(-1)[2::13] = -np.inf
    pixels = uint8_from_output(output, spec)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, slow_uint8(output, spec))


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(0, 3),
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
    layout=st.sampled_from(["CHW", "HWC"]),
    dtype=st.sampled_from([np.float32, np.float64, np.float16]),
    contiguous=st.booleans(),
    seed=st.integers(0, 99),
)
def test_pixels_are_the_same_where_the_values_may_be_lost(
    count: int, shape: tuple[int, int, int], layout: str, dtype: Any, contiguous: bool, seed: int
) -> None:
    spec = tensor(*shape, layout)
    output = np.random.default_rng(seed).normal(0, 1.5, (2 * count, *spec.shape)).astype(dtype)
    output.reshape(-1)[::7] = np.nan
    output = output[:count] if contiguous else output[::2]
    expected = uint8_from_output(output, spec)
    target = np.full(expected.shape, 77, np.uint8)
    assert uint8_from_output(output, spec, out=target, overwrite=True) is target
    assert np.array_equal(target, expected)


def test_values_are_overwritten_only_where_they_may_be() -> None:
    spec = tensor(3, 4, 4)
    output = np.random.default_rng(0).uniform(-1, 1, (2, 3, 4, 4)).astype(np.float32)
    kept = output.copy()
    expected = uint8_from_output(output, spec)
    assert np.array_equal(output, kept)
    output.flags.writeable = False
    assert np.array_equal(uint8_from_output(output, spec, overwrite=True), expected)
    assert np.array_equal(output, kept)


def test_images_larger_than_a_piece_are_the_twins() -> None:
    spec = tensor(2, 200, 201)
    output = np.random.default_rng(0).uniform(-1.2, 1.2, (2, 2, 200, 201)).astype(np.float32)
    expected = slow_uint8(output, spec)
    assert np.array_equal(uint8_from_output(output, spec), expected)
    assert np.array_equal(uint8_from_output(output, spec, overwrite=True), expected)


def test_the_ends_and_the_halves() -> None:
    spec = tensor(1, 1, 8, "CHW", 0.0, 255.0)
    output = np.array([0.0, 0.5, 1.5, 2.5, 254.5, 255.0, 300.0, -7.0], np.float32).reshape(1, 1, 1, 8)
    assert uint8_from_output(output, spec).ravel().tolist() == [0, 0, 2, 2, 254, 255, 255, 0]
    signed = tensor(1, 1, 4)
    assert uint8_from_output(np.array([[[[-1, 1, 0, np.nan]]]], np.float32), signed).ravel().tolist() == [
        0,
        255,
        128,
        0,
    ]


def test_every_level_comes_back() -> None:
    """What was an 8-bit image and was brought to [-1, 1] is that image again."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    for low, high in [(-1.0, 1.0), (0.0, 1.0), (-2.0, 5.0)]:
        spec = tensor(1, 16, 16, "CHW", low, high)
        output = (levels.astype(np.float64) / 255 * (high - low) + low).astype(np.float32).transpose(0, 3, 1, 2)
        assert np.array_equal(uint8_from_output(output, spec), levels)


def test_large_batches_are_converted_in_pieces_without_a_seam() -> None:
    spec = tensor(3, 40, 50)
    output = np.random.default_rng(0).uniform(-1.2, 1.2, (30, 3, 40, 50)).astype(np.float32)
    whole = uint8_from_output(output, spec)
    assert np.array_equal(whole, np.concatenate([uint8_from_output(row[None], spec) for row in output]))
    assert np.array_equal(whole, uint8_from_output(np.asfortranarray(output), spec))
    out = np.empty((60, 40, 50, 3), np.uint8)[::2]
    assert uint8_from_output(output, spec, out=out) is out
    assert np.array_equal(whole, out)


def test_pixels_that_are_pixels_already_are_only_laid_out() -> None:
    output = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5), np.uint8)
    spec = TensorSpec("image", "uint8", (3, 4, 5), Image("CHW", (0, 255)))
    assert np.array_equal(uint8_from_output(output, spec), output.transpose(0, 2, 3, 1))


def test_the_input_is_not_written_to() -> None:
    output = np.random.default_rng(0).normal(size=(2, 1, 4, 4)).astype(np.float32)
    before = output.copy()
    uint8_from_output(output, tensor(1, 4, 4))
    assert np.array_equal(output, before)


def test_what_is_no_image_is_an_error() -> None:
    vector = TensorSpec("code", "float32", (4,), Vector())
    with pytest.raises(InputError, match="'code' is not an image"):
        uint8_from_output(np.zeros((1, 4), np.float32), vector)
    with pytest.raises(InputError, match="no batch"):
        uint8_from_output(np.zeros((1, 4, 4), np.float32), tensor(1, 4, 4))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pictures_hold_what_they_were_given(channels: int, mode: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, (5, 7, channels), np.uint8)
    picture = pil_from_image(image)
    assert (picture.mode, picture.size) == (mode, (7, 5))
    file = io.BytesIO()
    picture.save(file, "PNG")
    again = np.asarray(PIL.Image.open(file)).reshape(image.shape)
    assert np.array_equal(again, image)
    assert np.array_equal(np.asarray(pil_from_image(image[::-1, ::-1])).reshape(image.shape), image[::-1, ::-1])


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 2), (4, 4, 5), (1, 4, 4, 3)])
def test_what_no_picture_file_holds_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="picture"):
        pil_from_image(np.zeros(shape, np.uint8))


def test_sheets_are_about_square_and_never_taller_than_wide() -> None:
    for count in range(1, 200):
        columns = columns_for(count)
        rows = -(-count // columns)
        assert rows <= columns <= rows + 1


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("count", "columns", "padding", "scale"), [(1, None, 2, 1), (5, 3, 0, 1), (7, None, 1, 3), (4, 9, 5, 2)]
)
def test_every_image_stands_in_its_place(
    channels: int, count: int, columns: int | None, padding: int, scale: int
) -> None:
    images = np.random.default_rng(2).integers(0, 256, (count, 4, 6, channels), np.uint8)
    sheet = np.asarray(sheet_from_images(images, columns, padding, scale, background=9))
    sheet = sheet.reshape(*sheet.shape[:2], channels)
    across = columns or columns_for(count)
    down = -(-count // across)
    assert sheet.shape[:2] == (down * (4 * scale + padding) + padding, across * (6 * scale + padding) + padding)
    background = np.ones(sheet.shape[:2], bool)
    for i, image in enumerate(images):
        top = padding + i // across * (4 * scale + padding)
        left = padding + i % across * (6 * scale + padding)
        place = (slice(top, top + 4 * scale), slice(left, left + 6 * scale))
        background[place] = False
        for offset in range(scale):
            assert np.array_equal(sheet[place][offset::scale, offset::scale], image)
    assert (sheet[background] == 9).all()


def test_a_sheet_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="needs images"):
        sheet_from_images(np.zeros((0, 4, 4, 1), np.uint8))
    with pytest.raises(InputError, match="needs images"):
        sheet_from_images(np.zeros((4, 4, 1), np.uint8))


@pytest.mark.parametrize("argument", [{"columns": 0}, {"columns": -1}, {"padding": -1}, {"scale": 0}])
def test_a_sheet_without_extent_is_an_error(argument: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(argument))):
        sheet_from_images(np.zeros((3, 4, 4, 1), np.uint8), **argument)
