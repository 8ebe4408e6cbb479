"""The optimisers: that the fused kernel makes the steps of torch's plain loop on the gradients that training gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY_RECIPES

from gantrain.optimisers import optimiser_of
from gantrain.plan import new_plan
from gantrain.recipes import RECIPES
from gantrain.start import fresh_state
from gantrain.steps import Steps
from gantrain.training_state import TrainingState


def in_memory_order(tensor: torch.Tensor) -> list[int]:
    return [stride for stride, side in zip(tensor.stride(), tensor.shape, strict=True) if side > 1]


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_gradients_lie_as_their_parameters_do(recipe: str, tmp_path: Path) -> None:
    """Otherwise the fused kernel would give each weight the gradient of another, and nobody would be told."""
    data, settings = TINY_RECIPES[recipe]
    whole: dict[str, Any] = {}
    for changes in (whole, {"accumulate": 2}):
        plan = new_plan(
            recipe, data, tmp_path / "run", settings | changes, steps=3, seed=1, threads=torch.get_num_threads(),
            device="cpu",
        )  # fmt: skip
        torch.manual_seed(1)
        state = fresh_state(plan)
        seen = train_a_little(state, Steps(plan, state), plan.settings.discriminator_steps)
        assert seen > 0


def train_a_little(state: TrainingState, turn: Steps, discriminator_steps: int) -> int:
    """Two steps; how many gradients were looked at."""
    seen = 0
    for step in range(2):
        for k in range(discriminator_steps):
            turn.discriminator(step * discriminator_steps + k, last=k == discriminator_steps - 1)
        turn.generator(step)
        for network in (state.generator, state.discriminator):
            for name, parameter in network.named_parameters():
                if parameter.grad is not None:
                    seen += 1
                    assert in_memory_order(parameter.grad) == in_memory_order(parameter), name
    return seen


@pytest.mark.parametrize("optimiser", ["adam", "rmsprop"])
def test_steps_are_those_of_torch_s_plain_loop(optimiser: str, tmp_path: Path) -> None:
    data, settings = TINY_RECIPES["wgan-gp"]
    plan = new_plan(
        "wgan-gp", data, tmp_path / "run", settings | {"optimiser": optimiser}, steps=3, seed=1, threads=1, device="cpu"
    )
    s = plan.settings
    torch.manual_seed(2)
    ours = fresh_state(plan).discriminator
    torch.manual_seed(2)
    theirs = fresh_state(plan).discriminator
    options = {"foreach": False} if optimiser == "rmsprop" else {"betas": (s.beta1, s.beta2), "fused": False}
    plain = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[optimiser](theirs.parameters(), 0.01, **options)
    kept = optimiser_of(ours, s, 0.01)
    for _ in range(3):
        images = torch.randn(4, plan.data.channels, s.size, s.size)
        for network, steps in ((ours, kept), (theirs, plain)):
            steps.zero_grad()
            network(images).square().mean().backward()
            steps.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)  # 0.03 have they gone
