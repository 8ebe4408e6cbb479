"""A batch taken in parts: the same samples, and the gradients of the whole within rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import TINY_RECIPES, interrupted_after, same
from torch import Tensor, nn

from ganruntime.errors import InputError
from gantrain.checkpoint import read_tensors
from gantrain.loop import train
from gantrain.penalties.path_length import PATH_LENGTH
from gantrain.plan import new_plan
from gantrain.recipes import RECIPES
from gantrain.start import fresh_state
from gantrain.statistics import Statistics
from gantrain.steps import Steps
from gantrain.stop_signals import TrainingStopped
from gantrain.view import View

NOTHING: dict[str, Any] = {"steps": None, "seed": 5, "threads": 1, "device": None}
# Weights stand still, so that gradients can be compared. Every lazy penalty is due in the first step.
STILL = {"generator_lr": 0.0, "discriminator_lr": 0.0, "batch": 12}
# Every recipe as it is tested elsewhere, and what those settings leave out.
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in RECIPES} | {
    "gradient penalty on packs, drift": ("toy", {"gradient_penalty": 10.0, "r1": 0.0, "r2": 0.0, "drift": 0.1}),
    "labels by concatenation": ("cgan", {"conditioning": "concatenation", "mismatched": 0.0}),
    "relativistic under ADA": ("r3gan", {"shift": 2, "colour": 1.0, "mirror": True, "ada_target": 0.6}),
    "spectral normalisation": ("sngan", {"discriminator": "own", "discriminator_steps": 2}),
}


def as_double(module: nn.Module) -> None:
    """float64 throughout: what comes in as float32 is widened."""

    def wide(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype == torch.float32:
            return value.double()
        return [wide(item) for item in value] if isinstance(value, list) else value

    module.double()
    for part in module.modules():
        part.register_forward_pre_hook(lambda _, given: tuple(wide(value) for value in given))


class WideView(View):
    """Penalties take slopes by what this gives: in float32 they would be rounded to it."""

    def __call__(self, samples: Tensor, first: int, use: str) -> Tensor:
        return super().__call__(samples, first, use).double()


def without_batch_statistics(network: nn.Module) -> None:
    """Batch normalisation by its averages, and a deviation of each sample from itself."""
    for part in network.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()
        if hasattr(part, "group"):
            part.group = 1


def steps_of(recipe: str, changes: dict[str, Any], accumulate: int, *, exact: bool = False) -> Steps:
    """The steps of a fresh training; `exact` in float64 and without batch statistics."""
    data, small = TINY_RECIPES[recipe]
    plan = new_plan(recipe, data, Path("nowhere"), small | STILL | changes | {"accumulate": accumulate}, **NOTHING)
    torch.manual_seed(5)
    state = fresh_state(plan)
    if exact:
        for network in (state.generator, state.discriminator):
            as_double(network)
            without_batch_statistics(network)
        if PATH_LENGTH in state.extras:
            state.extras[PATH_LENGTH] = state.extras[PATH_LENGTH].double()
    steps = Steps(plan, state)
    if exact:
        steps._view = WideView(plan, state)
    return steps


def traces(recipe: str, changes: dict[str, Any], accumulate: int) -> dict[str, Tensor]:
    """What two steps of both networks leave in float64: gradients, logits, losses, buffers, what the parts remember."""
    steps = steps_of(recipe, changes, accumulate, exact=True)
    state, s = steps._state, steps._settings
    found: dict[str, Tensor] = {}
    for step in range(2):
        left: dict[str, Tensor] = {}
        for k in range(s.discriminator_steps):
            judged = steps.discriminator(step * s.discriminator_steps + k, last=k == s.discriminator_steps - 1)
        left |= {"loss d": judged.loss, "logits": judged.logits}
        left |= {f"d {name}": p.grad for name, p in state.discriminator.named_parameters() if p.grad is not None}
        left["loss g"] = steps.generator(step).detach()
        left |= {f"g {name}": p.grad for name, p in state.generator.named_parameters() if p.grad is not None}
        for network in (state.generator, state.discriminator):
            left |= {f"buffer {name}": buffer.clone() for name, buffer in network.named_buffers()}
        left |= {name: extra.clone() for name, extra in state.extras.items()}
        found |= {f"step {step}: {name}": value for name, value in left.items()}
    return found


@pytest.mark.parametrize(("recipe", "changes"), CASES.values(), ids=list(CASES))
def test_parts_add_up_to_the_batch(one_thread: None, recipe: str, changes: dict[str, Any]) -> None:
    """In float64, to a billionth of the largest value of each tensor."""
    whole = traces(recipe, changes, 1)
    parts = traces(recipe, changes, 3)
    assert set(parts) == set(whole)
    for name, expected in whole.items():
        # Losses of differences alone give D's last bias no gradient: what it has is rounding.
        most = max(1e-9 * float(expected.abs().max()), 1e-15)
        assert float((parts[name] - expected).abs().max()) <= most, name


@pytest.mark.parametrize("recipe", ["r3gan", "stylegan2", "wgan-gp"])
def test_no_pass_takes_more_than_a_part(one_thread: None, recipe: str) -> None:
    """Nor is a graph kept from the discriminator's step to the generator's, which is what the memory goes for."""
    steps = steps_of(recipe, {"discriminator_steps": 1}, 3)
    seen: list[int] = []
    state = steps._state
    first_layer = next(part for part in state.generator.modules() if not list(part.children()))
    for part in (state.discriminator, first_layer):
        part.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    steps.discriminator(0, last=True)
    assert all(fake is None and not real.requires_grad for fake, real, _ in steps._last)
    steps.generator(0)
    assert set(seen) == {4}


def test_batch_normalisation_and_the_deviation_see_the_part(one_thread: None) -> None:
    """What the settings say of them: otherwise the test above would hold with them too."""
    for recipe in ("dcgan", "stylegan2"):
        whole, parts = (steps_of(recipe, {}, k).discriminator(0, last=True).logits for k in (1, 3))
        assert not torch.allclose(whole, parts)


@settings(deadline=None, max_examples=20)
@given(parts=st.integers(2, 5), passes=st.integers(1, 3), seed=st.integers(0, 999))
def test_moving_averages_take_one_step_a_batch(parts: int, passes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(passes, parts * 6, 3, generator=generator)
    together, divided = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    for x in batch:
        together(x)
    statistics = Statistics(divided, parts)
    statistics.begin()
    for part in range(parts):
        for x in batch:
            divided(x[6 * part : 6 * part + 6])
        statistics.keep()
        divided(torch.full((6, 3), 1e3))
        statistics.drop()
    statistics.settle()
    # Means of means; a variance leaves out what lies between the parts, and has a momentum of 0.1.
    torch.testing.assert_close(divided.running_mean, together.running_mean)
    assert torch.equal(divided.num_batches_tracked, together.num_batches_tracked)
    if passes == 1:
        inside = batch[0].reshape(parts, 6, 3).var(1).mean(0)
        torch.testing.assert_close(divided.running_var, 0.9 + 0.1 * inside)


def test_buffers_that_no_pass_changes_keep_their_bits() -> None:
    network = nn.Module()
    network.register_buffer("third", torch.tensor(1.0) / 3)
    statistics = Statistics(network, 3)
    statistics.begin()
    for _ in range(3):
        statistics.keep()
    statistics.settle()
    assert network.third == torch.tensor(1.0) / 3


@pytest.mark.parametrize("recipe", ["dcgan", "stylegan2"])
def test_a_run_in_parts_resumes_bit_for_bit(one_thread: None, tmp_path: Path, recipe: str) -> None:
    data, small = TINY_RECIPES[recipe]
    arguments: dict[str, Any] = {"steps": 4, "seed": 5, "settings": small | {"accumulate": 2}, "threads": 1}
    train(recipe, data, tmp_path / "whole", **arguments)
    with pytest.raises(TrainingStopped):
        train(recipe, data, tmp_path / "parts", on_step=interrupted_after(2), **arguments)
    train(recipe, None, tmp_path / "parts", resume=True)
    same(tmp_path / "whole", tmp_path / "parts")


def test_a_resumed_run_may_take_its_batch_in_other_parts(one_thread: None, tmp_path: Path) -> None:
    """Equal within rounding where nothing looks across the batch: float32, by RMSprop, which turns no small gradient
    into a whole step as Adam does."""
    data, small = TINY_RECIPES["toy"]
    # Few places in a batch of 8 leave gradients that nearly cancel, of which RMSprop makes much as well.
    small = small | {"optimiser": "rmsprop", "generator_signs": 0}
    train("toy", data, tmp_path / "whole", steps=6, settings=small, threads=1)
    train("toy", data, tmp_path / "parts", steps=3, settings=small, threads=1)
    train("toy", None, tmp_path / "parts", steps=6, resume=True, settings={"accumulate": 4})
    before, after = (
        read_tensors(tmp_path / run / "checkpoint" / "training" / "generator.safetensors") for run in ("whole", "parts")
    )
    assert any(not torch.equal(after[name], expected) for name, expected in before.items())
    for name, expected in before.items():
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [("mlp", {"accumulate": 3}), ("mlp", {"accumulate": 8}), ("toy", {"pack": 4, "accumulate": 4})],
    ids=["not equal", "one sample", "a pack cut through"],
)
def test_parts_that_cannot_be_are_refused(tmp_path: Path, recipe: str, changes: dict[str, Any]) -> None:
    data, small = TINY_RECIPES[recipe]
    with pytest.raises(InputError, match="so many parts"):
        train(recipe, data, tmp_path / "run", steps=1, settings=small | changes)
    assert not (tmp_path / "run").exists()
