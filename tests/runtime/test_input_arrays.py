"""Arrays as inputs: files and literals, checked against the spec; errors name the file."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from picture_bundles import SPEC, picture

from ganruntime.errors import InputError
from ganruntime.images import values_from_uint8
from ganruntime.input_arrays import array_from_bytes, is_literal, rows_from_value, value_from_text
from ganruntime.input_files import tensor_of

PHOTO, POINTS, WORDS, STRENGTH, CLASS = (
    tensor_of(SPEC, name) for name in ("photo", "points", "words", "strength", "class")
)


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def test_npy_npz_and_json_hold_the_same() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (5, 2, 2)).astype(np.float32)
    for data, suffix in (
        (npy(points), ".npy"),
        (npz(points=points, other=1), ".npz"),
        (npz(only=points), ".npz"),
        (json.dumps(points.tolist()).encode(), ".json"),
    ):
        value = array_from_bytes(data, suffix, POINTS, "p")
        rows, each = rows_from_value(SPEC, POINTS, value, "p")
        np.testing.assert_array_equal(rows, points)
        assert each
    rows, each = rows_from_value(SPEC, POINTS, points[0], "p")
    assert rows.shape == (1, 2, 2)
    assert not each


def test_uint8_are_pixels_in_the_order_of_pictures_and_floats_are_values() -> None:
    pixels = np.stack([picture(1), picture(2)])
    made = array_from_bytes(npz(images=pixels, seed=7, first=0), ".npz", PHOTO, "p")  # what generate writes
    rows, each = rows_from_value(SPEC, PHOTO, made, "p")
    assert each
    np.testing.assert_array_equal(rows, values_from_uint8(pixels, PHOTO))
    again, _ = rows_from_value(SPEC, PHOTO, rows, "p")
    np.testing.assert_array_equal(again, rows)
    with pytest.raises(InputError, match=r"holds no pixels[\s\S]*\[n, H, W, 3\]"):
        rows_from_value(SPEC, PHOTO, pixels.transpose(0, 3, 1, 2), "p")


def test_tokens_are_padded_and_labels_are_names_or_indices() -> None:
    value = array_from_bytes(b"[[1, 2], [3], []]", ".json", WORDS, "w")
    rows, each = rows_from_value(SPEC, WORDS, value, "w")
    assert rows.tolist() == [[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]]
    assert each
    rows, _ = rows_from_value(SPEC, CLASS, array_from_bytes(b'["night", 0]', ".json", CLASS, "c"), "c")
    assert rows.tolist() == [1, 0]
    with pytest.raises(InputError, match=r"more tokens[\s\S]*up to 4"):
        array_from_bytes(b"[1, 2, 3, 4, 5]", ".json", WORDS, "w")


@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        (POINTS, np.zeros((5, 3, 2), np.float32), "wrong shape"),
        (POINTS, np.zeros((0, 2, 2), np.float32), "is empty"),
        (POINTS, np.zeros(7, np.float32), r"wrong shape for input 'points'"),
        (POINTS, np.full((2, 2), 1.5), r"outside its range\s+got: +1.5 to 1.5\s+expected: -1 to 1"),
        (POINTS, np.full((2, 2), np.nan), "not finite"),
        (POINTS, [[1.0, 2.0], [3.0]], "ragged|not an array"),
        (PHOTO, np.full((3, 8, 6), 255.0), r"outside its range[\s\S]*pixels as uint8"),
        (STRENGTH, 1.2, r"outside its range[\s\S]*0 to 1"),
        (WORDS, np.array([1, 2, 3, 10]), r"out of range[\s\S]*0 to 9"),
        (WORDS, np.array([1.0, 2, 3, 4]), "wrong kind of number"),
        (CLASS, "dusk", r"'dusk' is not a class of 'class'[\s\S]*day, night"),
    ],
)
def test_what_does_not_fit_the_spec_is_refused_with_its_file(tensor: Any, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        rows_from_value(SPEC, tensor, value, "given.npy")
    assert "given.npy" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "suffix", "message"),
    [
        (b"", ".npy", "that can be read"),
        (npy(np.zeros(3))[:-1], ".npy", "that can be read"),
        (npz(points=np.zeros(3))[:-30], ".npz", "that can be read"),
        (npz(points=np.zeros(3)), ".npy", "another format under that name"),
        (npy(np.array([{"a": 1}], object)), ".npy", "allow_pickle"),
        (npz(a=1, b=2), ".npz", r"which of its arrays[\s\S]*a, b"),
        (b"{", ".json", "is not JSON"),
        (b'{"a": 1}', ".json", "something else than numbers"),
        (b"[null]", ".json", "something else than numbers"),
        (b"[" * 100_000, ".json", "is not JSON"),
    ],
)
def test_damaged_files_are_errors_that_name_them(data: bytes, suffix: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        array_from_bytes(data, suffix, POINTS, f"given{suffix}")
    assert f"given{suffix}" in str(caught.value)


def test_literals_are_told_from_paths() -> None:
    assert is_literal("0.5", STRENGTH)
    assert is_literal("night", CLASS)
    assert is_literal("[1, 2]", WORDS)
    assert not is_literal("dusk.json", CLASS)
    assert value_from_text(SPEC, STRENGTH, "0.5") == 0.5
    assert value_from_text(SPEC, CLASS, "night") == "night"
    assert value_from_text(SPEC, CLASS, "1") == 1
    assert value_from_text(SPEC, WORDS, "[1, 2]") == [1, 2, 0, 0]
    with pytest.raises(InputError, match=r"value per image[\s\S]*words=FILE\.json"):
        value_from_text(SPEC, WORDS, "[[1, 2]]")
