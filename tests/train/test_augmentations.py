"""Augmentations: where pixels go, that gradients follow them, and that they are functions of (seed, position)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gantrain.augmentations import Augmentation
from gantrain.augmentations.ada import Controller
from gantrain.augmentations.colour import recoloured
from gantrain.augmentations.cutout import cut_out
from gantrain.augmentations.translation import BACKGROUND, shifted, shifts


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


# --- colour, cutout, and when ----------------------------------------------------------------------------------------


def test_no_change_of_colour_leaves_an_image_as_it_is() -> None:
    images = torch.rand(3, 3, 4, 4) * 2 - 1
    torch.testing.assert_close(recoloured(images, torch.zeros(3, 3)), images)


def test_brightness_saturation_and_contrast_do_what_they_are_called() -> None:
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    brighter = recoloured(images, torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(brighter, images + 0.5)
    grey = recoloured(images, torch.tensor([[0.0, -1.0, 0.0]]))
    torch.testing.assert_close(grey, images.mean(1, keepdim=True).expand_as(images))
    flatter = recoloured(images, torch.tensor([[0.0, 0.0, -1.0]]))
    torch.testing.assert_close(flatter.std() / images.std(), torch.tensor(0.5))
    torch.testing.assert_close(flatter.mean(), images.mean())
    one_plane = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(recoloured(one_plane, torch.tensor([[0.0, 1.0, 0.0]])), one_plane)


def test_cutout_greys_a_square_of_its_size_about_its_place() -> None:
    images = torch.ones(3, 2, 8, 8)
    places = np.array([[0.0, 0.0], [-1.0, -1.0], [0.0, 0.0]])
    cut = cut_out(images, places, 0.5, np.array([True, True, False]))
    expected = torch.ones(8, 8)
    expected[2:6, 2:6] = 0
    assert torch.equal(cut[0, 0], expected)
    assert torch.equal(cut[0, 1], expected)
    assert (cut[1, 0] == 0).sum() == 4  # three quarters of it hang over the corner
    assert torch.equal(cut[2], images[2])


def test_what_is_shown_is_a_function_of_seed_position_and_use() -> None:
    views = Augmentation(shift=2, colour=1.0, cutout=0.4)
    images = torch.rand(8, 3, 8, 8)
    shown = views.shown(images, 5, 40, "real")
    torch.testing.assert_close(views.shown(images[3:], 5, 43, "real"), shown[3:])
    assert not torch.equal(views.shown(images, 5, 40, "fake"), shown)
    assert not torch.equal(views.shown(images, 6, 40, "real"), shown)
    assert not torch.equal(views.shown(images, 5, 48, "real"), shown)


def test_an_augmentation_happens_as_often_as_its_probability_says() -> None:
    views = Augmentation(cutout=0.5)
    images = torch.ones(400, 1, 4, 4)
    share = (views.shown(images, 0, 0, "real", 0.3).flatten(1).min(1).values == 0).float().mean()
    assert 0.2 < share < 0.4
    assert torch.equal(views.shown(images, 0, 0, "real", 0.0), images)


def test_ada_raises_its_probability_while_d_is_too_sure_and_lowers_it_otherwise() -> None:
    controller = Controller(0.6, images=1000)
    sure, unsure = torch.full((50,), 3.0), torch.tensor([1.0, -1.0] * 25)
    for step in range(4):
        assert controller.probability == 0.0
        controller.saw(sure, step)
    assert controller.probability == pytest.approx(50 * 4 / 1000)
    for step in range(4, 8):
        controller.saw(unsure, step)
    assert controller.probability == 0.0
    for step in range(8, 8 + 4 * 10):
        controller.saw(sure, step)
    assert controller.probability == 1.0  # and no more


def test_without_a_target_every_image_is_augmented() -> None:
    controller = Controller(0.0, images=1000)
    controller.saw(torch.full((50,), -3.0), 3)
    assert controller.probability == 1.0
