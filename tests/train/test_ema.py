"""The average of weights: its half-life, its beginning, and what it does with BatchNorm's statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gantrain.ema import Averaging, averaged_copy, decay_per_step


def test_half_the_old_weights_are_gone_after_a_half_life() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    average = averaged_copy(network)
    nn.init.ones_(network.weight)
    for step in range(1000, 1010):
        Averaging(average, network).update(decay_per_step(640.0, 64, step * 64))
    assert average.weight.item() == pytest.approx(0.5, abs=1e-6)


def test_the_half_life_grows_with_the_training() -> None:
    decays = [decay_per_step(10_000.0, 64, 64 * step) for step in (1, 10, 100, 1000, 100_000)]
    assert decays == sorted(decays)
    assert decays[0] < 1e-5
    assert decays[-1] == pytest.approx(0.5 ** (64 / 10_000))


def test_no_half_life_copies() -> None:
    network = nn.Linear(3, 3)
    average = averaged_copy(network)
    nn.init.normal_(network.weight)
    Averaging(average, network).update(decay_per_step(0.0, 64, 6400))
    assert torch.equal(average.weight, network.weight)


def test_buffers_are_copied_and_the_average_is_for_evaluation() -> None:
    network = nn.BatchNorm1d(4)
    average = averaged_copy(network)
    network(torch.randn(16, 4) * 5 + 2)
    Averaging(average, network).update(0.999)
    assert torch.equal(average.running_mean, network.running_mean)
    assert torch.equal(average.running_var, network.running_var)
    assert average.num_batches_tracked == 1
    assert not average.training
    assert not any(p.requires_grad for p in average.parameters())
    assert network.training
