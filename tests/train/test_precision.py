"""16-bit passes: what they round and what they leave alone, and fp16's scales, kept and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import TINY_RECIPES, interrupted_after, same
from torch import nn

from ganruntime.errors import CheckpointError, DeviceError
from gantrain.checkpoint import read_tensors
from gantrain.loop import train
from gantrain.plan import new_plan
from gantrain.precision import LEAST_SCALE, check_precision
from gantrain.recipes import RECIPES
from gantrain.start import fresh_state
from gantrain.steps import Steps
from gantrain.stop_signals import TrainingStopped

pytestmark = pytest.mark.usefixtures("one_thread")
NOTHING: dict[str, Any] = {"steps": None, "seed": 5, "threads": 1, "device": None}


def steps_of(recipe: str, changes: dict[str, Any]) -> Steps:
    data, small = TINY_RECIPES[recipe]
    plan = new_plan(recipe, data, Path("nowhere"), small | changes, **NOTHING)
    torch.manual_seed(5)
    return Steps(plan, fresh_state(plan))


def turned(steps: Steps, step: int = 0) -> torch.Tensor:
    """Both networks' steps; the logits [2, N] of the last of the discriminator's."""
    k = steps._settings.discriminator_steps
    for i in range(k):
        judged = steps.discriminator(step * k + i, last=i == k - 1)
    steps.generator(step)
    return judged.logits


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_passes_in_bf16_and_keeps_float32(recipe: str) -> None:
    exact, rounded = steps_of(recipe, {}), steps_of(recipe, {"precision": "bf16"})
    for step in range(2):
        expected, found = turned(exact, step), turned(rounded, step)
        assert found.dtype == torch.float32
        # bf16 keeps eight bits: a few of them are lost on the way through a network, which differs after its step.
        assert torch.allclose(found, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
        assert not torch.equal(found, expected) or recipe == "r3gan"  # whose D pays R1 and R2 in every step
    state = rounded._state
    for network in (state.generator, state.discriminator, state.average):
        assert {t.dtype for t in network.state_dict().values() if t.is_floating_point()} == {torch.float32}
        assert {p.grad.dtype for p in network.parameters() if p.grad is not None} <= {torch.float32}
    for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
        assert {t.dtype for kept in optimiser.state.values() for t in kept.values()} == {torch.float32}


def autocast_at(module: nn.Module, seen: list[bool]) -> None:
    module.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))


@pytest.mark.parametrize(
    ("recipe", "changes", "expected"),
    [
        # D of real, D of generated, then D of generated for G; r3gan's loss for G wants D of real as well.
        ("lsgan", {}, [[True, True, True]] * 2),
        ("r3gan", {}, [[False, False, True, True]] * 2),
        ("r3gan", {"r2": 0.0, "penalty_every": 2}, [[False, True, True, True], [True, True, True, True]]),
        ("wgan-gp", {"discriminator_steps": 1}, [[True, True, False, True]] * 2),
    ],
    ids=["no penalty", "R1 and R2", "lazy R1", "gradient penalty"],
)
def test_what_a_penalty_is_taken_of_is_float32(
    recipe: str, changes: dict[str, Any], expected: list[list[bool]]
) -> None:
    steps = steps_of(recipe, {"precision": "bf16"} | changes)
    seen: list[bool] = []
    autocast_at(steps._state.discriminator, seen)
    for step, passes in enumerate(expected):
        seen.clear()
        turned(steps, step)
        assert seen == passes


def test_path_lengths_and_the_mapping_are_float32() -> None:
    steps = steps_of("stylegan2", {"precision": "bf16", "path_every": 2})
    synthesis: list[bool] = []
    mapping: list[bool] = []
    autocast_at(steps._state.generator.get_submodule("convolutions.0"), synthesis)
    autocast_at(steps._state.generator.get_submodule("mapping"), mapping)
    turned(steps, 0)
    turned(steps, 1)
    assert synthesis == [True, False, True]  # drawn, drawn for path lengths, drawn
    assert mapping == [False] * 6  # two latents each, for style mixing


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("dcgan", {"precision": "bf16"}),
        ("stylegan2", {"precision": "bf16", "accumulate": 2}),
        ("dcgan", {"precision": "fp16"}),
    ],
    ids=["bf16", "bf16 in parts", "fp16"],
)
def test_a_16_bit_run_resumes_bit_for_bit(tmp_path: Path, recipe: str, changes: dict[str, Any]) -> None:
    data, small = TINY_RECIPES[recipe]
    arguments: dict[str, Any] = {"steps": 5, "seed": 5, "settings": small | changes, "threads": 1}
    train(recipe, data, tmp_path / "whole", **arguments)
    with pytest.raises(TrainingStopped):
        train(recipe, data, tmp_path / "parts", on_step=interrupted_after(2), **arguments)
    train(recipe, None, tmp_path / "parts", resume=True)
    same(tmp_path / "whole", tmp_path / "parts")
    tensors = read_tensors(tmp_path / "whole" / "checkpoint" / "generator.safetensors")
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float32}


def test_a_step_that_overflows_is_left_out_with_half_the_scale_after_it() -> None:
    steps = steps_of("mlp", {"precision": "fp16"})
    state = steps._state
    for scaler in state.scalers.values():
        scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**40})
    before = {name: weight.clone() for name, weight in state.generator.named_parameters()}
    turned(steps)
    assert all(torch.equal(weight, before[name]) for name, weight in state.generator.named_parameters())
    assert {scaler.get_scale() for scaler in state.scalers.values()} == {2.0**39}
    assert steps.gradient_norm("generator") is None  # no figure, and no divergence either
    for scaler in state.scalers.values():
        scaler.load_state_dict(scaler.state_dict() | {"scale": 2.0**10})
    turned(steps, 1)
    assert any(not torch.equal(weight, before[name]) for name, weight in state.generator.named_parameters())
    norm = steps.gradient_norm("generator")
    assert norm is not None
    # The gradients are those of the losses, without the scale.
    plain = steps_of("mlp", {})
    turned(plain)
    expected = plain.gradient_norm("generator")
    assert expected is not None
    assert norm == pytest.approx(expected, rel=0.5)


def test_an_overflow_that_no_scale_mends_is_a_divergence() -> None:
    steps = steps_of("mlp", {"precision": "fp16"})
    for scaler in steps._state.scalers.values():
        scaler.load_state_dict(scaler.state_dict() | {"scale": LEAST_SCALE / 2})
    with torch.no_grad():
        next(steps._state.discriminator.parameters()).fill_(float("inf"))
    turned(steps)
    norm = steps.gradient_norm("generator")
    assert norm is not None
    assert not norm < float("inf")


def test_bf16_is_refused_where_a_gpu_imitates_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(DeviceError, match="Tesla T4 has no bf16"):
        check_precision("bf16", torch.device("cuda"))
    check_precision("fp16", torch.device("cuda"))
    check_precision("bf16", torch.device("cpu"))


def run_of(tmp_path: Path, changes: dict[str, Any], steps: int, *, resume: bool = False) -> dict[str, Any]:
    """Trains, and gives the state.json of the checkpoint."""
    data, small = TINY_RECIPES["lsgan"]  # its first steps overflow at fp16's first scale
    source, changes = (None, changes) if resume else (data, small | changes)
    train("lsgan", source, tmp_path / "run", steps=steps, settings=changes, resume=resume, threads=1)
    state: dict[str, Any] = json.loads((tmp_path / "run" / "checkpoint" / "training" / "state.json").read_text())
    return state


def test_precision_may_change_from_one_part_of_a_run_to_the_next(tmp_path: Path) -> None:
    scales = run_of(tmp_path, {"precision": "fp16"}, 1)["scales"]
    assert scales["generator"] == {"scale": 32768.0, "steps": 0}  # not one step was made
    assert "scales" not in run_of(tmp_path, {"precision": "fp32"}, 2, resume=True)
    assert set(run_of(tmp_path, {"precision": "fp16"}, 3, resume=True)["scales"]) == {"generator", "discriminator"}
    assert "scales" not in run_of(tmp_path, {"precision": "bf16"}, 4, resume=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_every_recipe_trains_in_16_bits_on_cuda(tmp_path: Path, recipe: str, precision: str) -> None:
    data, small = TINY_RECIPES[recipe]
    settings = small | {"precision": precision, "metrics_every": 0}
    train(recipe, data, tmp_path / "run", steps=4, settings=settings, device="cuda")
    train(recipe, None, tmp_path / "run", steps=6, resume=True)
    tensors = read_tensors(tmp_path / "run" / "checkpoint" / "generator.safetensors")
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    "scales",
    [{}, [], {"generator": {"scale": -1.0, "steps": 0}}, {"generator": {"scale": 1.0, "steps": "no"}}],
    ids=["none", "a list", "negative", "a word"],
)
def test_damaged_scales_are_refused(tmp_path: Path, scales: object) -> None:
    state = run_of(tmp_path, {"precision": "fp16"}, 1)
    path = tmp_path / "run" / "checkpoint" / "training" / "state.json"
    path.write_text(json.dumps(state | {"scales": scales}))
    with pytest.raises(CheckpointError, match="how losses are scaled"):
        run_of(tmp_path, {}, 2, resume=True)
