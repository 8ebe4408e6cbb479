"""Penalties against slopes that are known in closed form; their gradients reach D and nobody else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gantrain.penalties.drift import drift_penalty
from gantrain.penalties.interpolates import factors, slope_penalty
from gantrain.penalties.path_length import DECAY, directions, follow, path_lengths, path_penalty
from gantrain.penalties.weight_clipping import clip_weights
from gantrain.penalties.zero_centred import squared_gradient


def test_the_squared_gradient_of_a_linear_function_is_that_of_its_weights() -> None:
    layer = nn.Linear(6, 1)
    samples = torch.randn(5, 2, 3, requires_grad=True)
    penalty = squared_gradient(layer(samples.flatten(1)).squeeze(1), samples)
    torch.testing.assert_close(penalty, layer.weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(layer.weight.grad, 2 * layer.weight)


def test_the_squared_gradient_is_a_mean_over_samples() -> None:
    """D(x) = |x|² has the gradient 2x."""
    samples = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    penalty = squared_gradient(samples.square().sum(1), samples)
    torch.testing.assert_close(penalty, (2 * samples).square().sum(1).mean())


def test_the_slope_penalty_is_taken_between_real_and_fake() -> None:
    """D(x) = |x|² has the slope 2·|x̂| at x̂ = u·x + (1 - u)·G(z)."""
    real, fake = torch.randn(2, 6, 3, dtype=torch.float64).unbind(0)
    u = torch.rand(6, dtype=torch.float64)
    penalty = slope_penalty(lambda x: x.square().sum(1), real, fake, u)
    between = u[:, None] * real + (1 - u[:, None]) * fake
    torch.testing.assert_close(penalty, (2 * between.norm(dim=1) - 1).square().mean())


def test_the_slope_penalty_reaches_the_critic_and_not_the_generator() -> None:
    critic, fake = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(4, 3, requires_grad=True)
    slope_penalty(lambda x: critic(x).squeeze(1), torch.randn(4, 3), fake, torch.rand(4)).backward()
    assert fake.grad is None
    assert critic[0].weight.grad is not None
    assert critic[0].weight.grad.abs().max() > 0


def test_interpolation_factors_are_functions_of_seed_and_position() -> None:
    u = factors(3, 100, 50)
    assert u.dtype == np.float32
    assert np.array_equal(u[20:], factors(3, 120, 30))
    assert not np.array_equal(u, factors(4, 100, 50))
    many = factors(0, 0, 20_000)
    assert many.min() >= 0
    assert many.max() < 1
    assert many.mean() == pytest.approx(0.5, abs=0.01)


def test_drift_pulls_the_level_of_real_logits_to_zero_and_leaves_their_differences() -> None:
    logits = torch.tensor([3.0, -1.0, 1.0], requires_grad=True)
    penalty = drift_penalty(logits)
    assert penalty.item() == pytest.approx(11 / 3)
    penalty.backward()
    torch.testing.assert_close(logits.grad, 2 / 3 * logits.detach())


def test_clipping_keeps_small_weights_and_statistics() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    network[1].running_mean.fill_(9.0)
    before = network[0].weight.detach().clone()
    clip_weights(network, 0.2)
    torch.testing.assert_close(network[0].weight.detach(), before.clamp(-0.2, 0.2))
    assert network[1].weight.max() <= 0.2
    assert network[1].running_mean.eq(9.0).all()


def test_the_path_penalty_of_a_linear_generator_is_known() -> None:
    """Images = A·(sum of the layers' styles): Jᵀy is Aᵀy in every layer, and the mean starts its way to its length."""
    a = torch.randn(2 * 3 * 3, 5, dtype=torch.float64)
    styles = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    images = (styles.sum(1) @ a.T).reshape(4, 2, 3, 3)
    y = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    mean = torch.tensor(0.5, dtype=torch.float64)
    lengths = (y.flatten(1) @ a).square().sum(1).sqrt()
    after = 0.5 + DECAY * (lengths.mean() - 0.5)
    found = path_lengths(images, styles, y)
    torch.testing.assert_close(found, lengths)
    assert not path_lengths(images, styles, y, differentiable=False).requires_grad
    follow(mean, found.mean())
    torch.testing.assert_close(mean, after)
    torch.testing.assert_close(path_penalty(found, mean), (lengths - after).square().mean())


def test_path_directions_are_functions_of_seed_and_position_of_unit_size_a_pixel() -> None:
    y = directions(1, 10, 6, (3, 8, 8))
    assert np.array_equal(y[2:], directions(1, 12, 4, (3, 8, 8)))
    assert np.square(directions(0, 0, 200, (1, 8, 8))).sum((1, 2, 3)).mean() == pytest.approx(1.0, abs=0.05)
