"""Held-out images: the same ones everywhere, none lost, none on both sides, and labels that went with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganruntime.errors import DataError, InputError
from gantrain.data.source import ImageSource
from gantrain.data.split import split


def numbered(count: int) -> ImageSource:
    """Image i has the number i in its pixels and labels."""
    images = np.zeros((count, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.arange(count) // 256, np.arange(count) % 256
    return ImageSource("numbered", images, {"number": np.arange(count)})


@settings(max_examples=40, deadline=None)
@given(count=st.integers(8, 700), share=st.floats(0.25, 0.5))
def test_every_image_is_on_one_side(count: int, share: float) -> None:
    source = numbered(count)
    found = split(source, share)
    assert found.held_out is not None
    assert len(found.held_out.images) == round(share * count)
    for side in (found.train, found.held_out):
        numbers = side.labels["number"]
        assert (np.diff(numbers) > 0).all()
        np.testing.assert_array_equal(side.images[:, 0, 0, 0].astype(int) * 256 + side.images[:, 0, 1, 0], numbers)
        assert side.classes == source.classes
    both = np.concatenate([found.train.labels["number"], found.held_out.labels["number"]])
    np.testing.assert_array_equal(np.sort(both), np.arange(count))


def test_which_ones_is_pinned() -> None:
    held_out = split(numbered(100), 0.1).held_out
    assert held_out is not None
    assert held_out.labels["number"].tolist() == [6, 11, 21, 24, 26, 28, 33, 43, 46, 98]


def test_nothing_is_held_out_unless_asked() -> None:
    source = numbered(10)
    assert split(source, 0.0).train is source
    assert split(source, 0.0).held_out is None


@pytest.mark.parametrize("share", [-0.1, 0.51, float("nan")])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(InputError, match="share"):
        split(numbered(10), share)


def test_too_few_images_to_split() -> None:
    with pytest.raises(InputError, match="too small"):
        split(numbered(5), 0.2)


def test_labels_that_do_not_fit_the_images() -> None:
    images = np.zeros((3, 2, 2, 1), np.uint8)
    with pytest.raises(DataError, match="not one an image"):
        ImageSource("x", images, {"kind": np.zeros(2, np.int64)})
    with pytest.raises(DataError, match="without a class"):
        ImageSource("x", images, {"kind": np.array([0, 1, 2])}, classes={"kind": ("a", "b")})
    with pytest.raises(DataError, match="without a class"):
        ImageSource("x", images, {"kind": np.array([0, -1, 2])})
    assert ImageSource("x", images, {"kind": np.array([0, 2, 2])}).classes == {"kind": ("0", "1", "2")}
