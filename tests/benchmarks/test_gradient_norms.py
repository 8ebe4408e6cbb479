"""The gradient that a discriminator leaves: its norm in closed form, and what is left of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gradient_norms
from gradient_norms import LINES, gradient_norm, kept_norms_of_seed, left, measured_steps

from ganruntime.errors import InputError

CASES: dict[str, Callable[[float], float]] = {  # the slope of each loss of G in the logit t
    "minimax": lambda t: -1.0 / (1.0 + math.exp(-t)),
    "non_saturating": lambda t: -1.0 / (1.0 + math.exp(t)),
    "least_squares": lambda t: t - 1.0,
    "wasserstein": lambda t: -1.0,
}


def linear(weight: float) -> nn.Module:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(weight)
    return layer


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("g", [-3.0, 0.5, 4.0])
def test_the_norm_is_that_of_the_loss_by_name(line: str, g: float) -> None:
    generator, d, z = linear(g), linear(2.0), torch.tensor([[1.5]])
    discriminator = nn.Sequential(d, nn.Flatten(0))  # logits [N]
    expected = abs(CASES[line](2.0 * g * 1.5) * 2.0 * 1.5)
    assert gradient_norm(generator, discriminator, z, line) == pytest.approx(expected, rel=1e-4)


def test_what_is_left_is_a_geometric_mean_over_the_seeds() -> None:
    runs = [{"norms": {"minimax": [1.0, 4.0, 1.0]}}, {"norms": {"minimax": [2.0, 1.0, 2.0]}}]
    assert left(runs, "minimax") == pytest.approx(0.5)


def test_steps_are_measured_from_the_first_to_the_last_ten_a_decade() -> None:
    steps = measured_steps(1000)
    assert (steps[0], steps[1], steps[-1]) == (0, 1, 1000)
    assert steps == sorted(set(steps))
    assert sum(100 <= step <= 1000 for step in steps) == 11


def test_a_seed_is_run_once_and_others_numbers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_norms, "RUNS", tmp_path)
    monkeypatch.setattr(gradient_norms, "norms_of_seed", lambda seed, of_generator, steps: {"seed": seed, "n": steps})
    assert kept_norms_of_seed(3, 20, 100) == {"seed": 3, "n": 100}
    monkeypatch.setattr(gradient_norms, "norms_of_seed", None)
    assert kept_norms_of_seed(3, 20, 100) == {"seed": 3, "n": 100}
    with pytest.raises(InputError, match=r"seed-3.json was made with other settings\n.*rm "):
        kept_norms_of_seed(3, 20, 200)
