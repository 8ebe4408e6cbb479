"""Real and generated samples in one pass of a discriminator that judges each by itself: the gradients of two passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY_RECIPES
from torch import Tensor

from gantrain.networks.vectors import VectorDiscriminator
from gantrain.plan import new_plan
from gantrain.start import fresh_state
from gantrain.steps import Steps

NOTHING: dict[str, Any] = {"steps": None, "seed": 5, "threads": 1, "device": None}


def gradients_of(recipe: str, changes: dict[str, Any], run: Path) -> tuple[list[Tensor], int]:
    """Of both networks in the first step, with the losses; and how many passes the discriminator made."""
    data, settings = TINY_RECIPES[recipe]
    plan = new_plan(recipe, data, run, settings | {"batch": 12} | changes, **NOTHING)
    torch.manual_seed(0)
    state = fresh_state(plan)
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    state.discriminator.register_forward_hook(count)
    turn = Steps(plan, state)
    judged = turn.discriminator(0, last=True)
    loss_g = turn.generator(0)
    networks = (state.discriminator, state.generator)
    gradients = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    return [judged.loss, loss_g, judged.logits, *gradients], passes


@pytest.mark.parametrize(
    ("recipe", "changes", "fewer"),
    [
        ("painter", {}, 1),
        ("painter", {"accumulate": 2}, 2),
        ("toy", {"pack": 2}, 1),
        ("toy", {"pack": 1, "r1": 1.0, "r2": 3.0, "accumulate": 3}, 3),
        ("toy", {"r2": 0.0}, 0),  # the slope of real samples alone
        ("toy", {"r1": 0.0, "r2": 0.0, "gradient_penalty": 10.0}, 1),
    ],
)
def test_one_pass_gives_the_gradients_of_two(
    recipe: str, changes: dict[str, Any], fewer: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, passes = gradients_of(recipe, changes, tmp_path)
    monkeypatch.setattr(VectorDiscriminator, "judges_alone", False)
    apart, passes_apart = gradients_of(recipe, changes, tmp_path)
    assert passes_apart - passes == fewer
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert max(float(b.abs().max()) for b in apart) > 1e-2


def test_a_discriminator_that_says_so_judges_each_sample_by_itself() -> None:
    torch.manual_seed(1)
    discriminator = VectorDiscriminator(3, (8, 8), maxout=2, packing=2)
    assert discriminator.judges_alone
    a, b = torch.randn(2, 6, 3)
    torch.testing.assert_close(discriminator(torch.cat([a, b])), torch.cat([discriminator(a), discriminator(b)]))
