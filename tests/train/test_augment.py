"""Shifts: where pixels go, that gradients follow them, and that they are functions of (seed, position)."""

from __future__ import annotations

import numpy as np
import torch

from gantrain.augment import BACKGROUND, shifted, shifts


def test_pixels_move_by_what_is_said_and_black_comes_in() -> None:
    images = torch.rand(3, 2, 5, 6)
    moves = np.array([[0, 0], [1, -2], [-2, 1]])
    moved = shifted(images, moves)
    assert moved.shape == images.shape
    assert torch.equal(moved[0], images[0])
    assert torch.equal(moved[1, :, 1:, :4], images[1, :, :4, 2:])
    assert (moved[1, :, 0] == BACKGROUND).all()
    assert (moved[1, :, :, 4:] == BACKGROUND).all()
    assert torch.equal(moved[2, :, :3, 1:], images[2, :, 2:, :5])
    assert (moved[2, :, 3:] == BACKGROUND).all()


def test_gradients_pass_through_the_shift() -> None:
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    moved = shifted(images, np.array([[1, 0], [0, -1]]))
    weights = torch.rand(2, 1, 4, 4)
    (gradient,) = torch.autograd.grad((moved * weights).sum(), images)
    expected = torch.zeros_like(weights)
    expected[0, :, :3] = weights[0, :, 1:]
    expected[1, :, :, 1:] = weights[1, :, :, :3]
    assert torch.equal(gradient, expected)


def test_no_shift_is_the_image_itself() -> None:
    images = torch.rand(2, 1, 4, 4)
    assert shifted(images, np.zeros((2, 2), np.int64)) is images


def test_shifts_are_even_bounded_and_independent_of_the_split() -> None:
    moves = shifts(3, 0, 5000, 2, "real")
    assert moves.shape == (5000, 2)
    for axis in (0, 1):
        counts = np.bincount(moves[:, axis] + 2, minlength=5)
        assert len(counts) == 5
        assert counts.min() > 900
    np.testing.assert_array_equal(shifts(3, 1234, 56, 2, "real"), moves[1234:1290])
    assert (shifts(3, 0, 5000, 2, "fake") != moves).any()
    assert (shifts(4, 0, 5000, 2, "real") != moves).any()
