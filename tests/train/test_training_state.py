"""What is kept of a training, and how it comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ganruntime.errors import CheckpointError
from ganruntime.spec import Provenance
from gantrain.checkpoint import spec_from_generator
from gantrain.ema import averaged_copy
from gantrain.networks import NetworkRecord, network_from_record
from gantrain.training_state import TrainingState, load_state, save_state

GENERATOR = NetworkRecord("dcgan_generator", {"z_size": 5, "size": 16, "channels": 3, "width": 4, "max_width": 8})
DISCRIMINATOR = NetworkRecord(
    "dcgan_discriminator", {"size": 16, "channels": 3, "width": 4, "max_width": 8, "batch_norm": True}
)


def fresh(seed: int) -> TrainingState:
    torch.manual_seed(seed)
    generator, discriminator = (
        network_from_record(record).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for record in (GENERATOR, DISCRIMINATOR)
    )
    return TrainingState(
        generator=generator,
        discriminator=discriminator,
        average=averaged_copy(generator),
        generator_optimiser=torch.optim.Adam(generator.parameters(), 1e-3),
        discriminator_optimiser=torch.optim.Adam(discriminator.parameters(), 1e-3),
    )


def stepped(state: TrainingState, steps: int) -> TrainingState:
    for _ in range(steps):
        loss = state.discriminator(state.generator(torch.randn(4, 5))).sum()
        loss.backward()
        for optimiser in (state.generator_optimiser, state.discriminator_optimiser):
            optimiser.step()
            optimiser.zero_grad()
        state.step += 1
    return state


def moments(state: TrainingState) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (parameter, optimiser.state[parameter][key])
        for _, network, optimiser in state._trained()
        for parameter in network.parameters()
        for key in ("exp_avg", "exp_avg_sq")
    ]


def test_moments_come_back_with_their_values_in_the_memory_order_of_their_parameters(tmp_path: Path) -> None:
    """In another order every later step would go through memory crosswise, and a resumed run be slower."""
    state = stepped(fresh(0), 2)
    save_state(tmp_path / "checkpoint", state, GENERATOR, spec_from_generator(state.average, "g", Provenance()))
    loaded = fresh(1)
    load_state(tmp_path / "checkpoint", loaded)
    assert loaded.step == 2
    before, after = moments(state), moments(loaded)
    assert len(before) == len(after) > 20
    for (_, was), (parameter, moment) in zip(before, after, strict=True):
        assert torch.equal(was, moment)
        assert moment.stride() == parameter.stride() == was.stride()
    assert any(not parameter.is_contiguous() for parameter, _ in after)


def test_a_loaded_state_makes_the_same_step(tmp_path: Path) -> None:
    state = stepped(fresh(0), 2)
    save_state(tmp_path / "checkpoint", state, GENERATOR, spec_from_generator(state.average, "g", Provenance()))
    loaded = fresh(1)
    load_state(tmp_path / "checkpoint", loaded)  # torch's random state among the rest
    stepped(loaded, 1)
    load_state(tmp_path / "checkpoint", fresh(2))
    stepped(state, 1)
    for (a, p), (b, q) in zip(moments(state), moments(loaded), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(p, q)


def test_a_generator_without_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no training state"):
        load_state(tmp_path, fresh(0))
