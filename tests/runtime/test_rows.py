"""Rows: what a caller may give, and an error that names the input for everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ganruntime.errors import InputError
from ganruntime.rows import given_rows, padded_rows, require_all
from ganruntime.spec import GeneratorSpec, Image, Keypoints, Label, Latent, Scalar, TensorSpec, Tokens, Vector

# The digits stand in another order than their indices, so that a name taken for an index is found.
SPEC = GeneratorSpec(
    "many",
    (
        TensorSpec("z", "float32", (4,), Latent()),
        TensorSpec("label", "int64", (), Label(("2", "1", "0", "katze"))),
        TensorSpec("truncation", "float32", (), Scalar(1.0)),
        TensorSpec("half", "float16", (2,), Vector()),
        TensorSpec("text", "int32", (3,), Tokens(100)),
        TensorSpec("source", "uint8", (None, None, 3), Image("HWC", (0, 255))),
        TensorSpec("flag", "bool", (), Scalar(0.0)),
        TensorSpec("points", "float32", (2, 2), Keypoints()),
    ),
    (TensorSpec("image", "float32", (1, 4, 4), Image()),),
)


def rows(n: int, **inputs: Any) -> dict[str, np.ndarray]:
    return given_rows(SPEC, n, inputs.pop("truncation", None), inputs.pop("label", None), inputs)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("z", [1, 2, 3, 4], [[1, 2, 3, 4]] * 3),
        ("z", np.ones((3, 4), np.float64), [[1, 1, 1, 1]] * 3),
        ("z", np.ones((3, 4), np.float16)[:, ::-1], [[1, 1, 1, 1]] * 3),
        ("label", "katze", [3, 3, 3]),
        ("label", 2, [2, 2, 2]),
        ("label", np.int8(1), [1, 1, 1]),
        ("label", ["0", "1", "2"], [2, 1, 0]),
        ("label", ("0", 0, np.int64(3)), [2, 0, 3]),
        ("label", np.array(["1", "katze", "2"]), [1, 3, 0]),
        ("label", np.array([0, 1, 3], np.uint8), [0, 1, 3]),
        ("label", np.array(["0", 1, "2"], object), [2, 1, 0]),
        ("truncation", 0.5, [0.5, 0.5, 0.5]),
        ("truncation", 1, [1, 1, 1]),
        ("truncation", [0.1, 0.2, 0.3], np.array([0.1, 0.2, 0.3], np.float32)),
        ("text", [1, 2, 99], [[1, 2, 99]] * 3),
        ("flag", True, [True] * 3),
        ("flag", [True, False, True], [True, False, True]),
        ("half", np.array([65504.0, -1.0]), [[65504.0, -1.0]] * 3),
    ],
)
def test_what_fits_is_one_row_an_image_in_the_dtype(name: str, value: Any, expected: Any) -> None:
    array = rows(3, **{name: value})[name]
    assert array.dtype == SPEC.input(name).dtype
    assert array.tolist() == np.asarray(expected).tolist()


def test_dimensions_that_vary_take_any_extent() -> None:
    for shape in [(2, 5, 7, 3), (5, 7, 3)]:
        assert rows(2, source=np.zeros(shape, np.uint8))["source"].shape == (2, 5, 7, 3)
    with pytest.raises(InputError, match="'source' has the wrong shape"):
        rows(2, source=np.zeros((2, 5, 7, 4), np.uint8))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("z", [1, 2, 3], "wrong shape"),
        ("z", np.zeros((2, 4)), "wrong shape"),
        ("z", np.zeros((3, 5)), "wrong shape"),
        ("z", np.zeros((3, 4, 1)), "wrong shape"),
        ("z", 1.0, "wrong shape"),
        ("z", [[1, 2], [3]], "not an array"),
        ("z", "text", "wrong kind"),
        ("z", None, "wrong kind"),
        ("z", [True] * 4, "wrong kind"),
        ("z", np.zeros(4, complex), "wrong kind"),
        ("z", [np.nan, 0, 0, 0], "not finite"),
        ("z", [0, np.inf, 0, 0], "not finite"),
        ("z", [1e300, 0, 0, 0], "not finite"),
        ("half", [1e5, 0], "not finite"),
        ("truncation", float("nan"), "not finite"),
        ("truncation", "0.5", "wrong kind"),
        ("truncation", [0.5, 0.5], "wrong shape"),
        ("label", "dog", "'dog' is not a class"),
        ("label", "", "not a class"),
        ("label", 4, "out of range"),
        ("label", -1, "out of range"),
        ("label", 10**30, "out of range"),
        ("label", [0, 1, 10**30], "out of range"),
        ("label", np.array([0, 1, 4]), "out of range"),
        ("label", np.array([2**64 - 1] * 3, np.uint64), "out of range"),
        ("label", 1.0, "neither a class name nor an index"),
        ("label", True, "neither a class name nor an index"),
        ("label", b"katze", "neither a class name nor an index"),
        ("label", [None, 1, 1], "neither a class name nor an index"),
        ("label", [[0], [1, 2], [3]], "neither a class name nor an index"),
        ("label", [np.zeros((2, 2)), np.zeros((2, 3)), 0], "label"),
        ("label", ["1", "2"], "wrong shape"),
        ("text", [1, 2, 100], "out of range"),
        ("text", [1, 2, -1], "out of range"),
        ("text", [1, 2, 2**32 + 1], "out of range"),
        ("text", [1.0, 2.0, 3.0], "wrong kind"),
        ("source", np.full((2, 2, 3), 256), "out of range"),
        ("source", np.full((2, 2, 3), -1), "out of range"),
        ("source", np.zeros((2, 2, 3), np.float32), "wrong kind"),
        ("flag", 1, "wrong kind"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_the_input(name: str, value: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as error:
        rows(3, **{name: value})
    assert repr(name) in str(error.value)


def test_inputs_that_are_not_there_are_errors_that_list_those_that_are() -> None:
    with pytest.raises(InputError, match="no input 'colour'") as error:
        rows(1, colour=1)
    assert "z, label, truncation" in str(error.value)
    plain = GeneratorSpec("plain", SPEC.inputs[:1], SPEC.outputs)
    with pytest.raises(InputError, match="plain takes no label"):
        given_rows(plain, 1, None, "katze", {})
    with pytest.raises(InputError, match="plain has no input 'truncation'"):
        given_rows(plain, 1, 0.5, None, {})


def test_a_label_given_twice_is_an_error() -> None:
    renamed = GeneratorSpec("r", (SPEC.inputs[0], TensorSpec("y", "int64", (), Label(("a", "b")))), SPEC.outputs)
    assert given_rows(renamed, 2, None, "b", {})["y"].tolist() == [1, 1]
    assert given_rows(renamed, 2, None, None, {"y": "b"})["y"].tolist() == [1, 1]
    with pytest.raises(InputError, match="'y' was given twice"):
        given_rows(renamed, 2, None, "a", {"y": "b"})


def test_no_images_take_no_rows() -> None:
    for value in ([], np.zeros(0, np.int64), "katze", 0):
        assert rows(0, label=value)["label"].shape == (0,)
    assert rows(0, z=np.zeros((0, 4)))["z"].shape == (0, 4)
    assert rows(0, z=[1, 2, 3, 4])["z"].shape == (0, 4)


def test_missing_inputs_are_named() -> None:
    with pytest.raises(InputError, match="not given") as error:
        require_all(SPEC, rows(1, z=[0, 0, 0, 0]))
    assert "points" in str(error.value)
    require_all(GeneratorSpec("plain", SPEC.inputs[:1], SPEC.outputs), rows(1, z=[0, 0, 0, 0]))


def test_padding_repeats_a_real_row_and_copies_only_where_it_must() -> None:
    given = np.arange(6, dtype=np.float32).reshape(3, 2)
    padded = padded_rows(given, 5, "float32")
    assert padded.tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [0, 1]]
    assert padded.flags.c_contiguous
    assert padded_rows(given, 3, "float32") is given
    assert padded_rows(np.broadcast_to(np.float32(2), (3,)), 3, "float32").flags.c_contiguous
    assert padded_rows(given, 3, "float16").dtype == np.float16
