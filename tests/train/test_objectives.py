"""Losses against the papers' formulas in float64, and where a naive form would overflow."""

from __future__ import annotations

import pytest
import torch

from ganruntime.errors import InputError
from gantrain.objectives import OBJECTIVES, minimax, non_saturating, objective_from_name


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(11)
    return (
        torch.randn(64, generator=generator, dtype=torch.float64) * 3,
        torch.randn(64, generator=generator, dtype=torch.float64) * 3,
    )


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("real_label", [1.0, 0.9])
def test_discriminator_loss_is_the_binary_cross_entropy(
    objective: str, real_label: float, logits: tuple[torch.Tensor, torch.Tensor]
) -> None:
    real, fake = logits
    d_x, d_g = torch.sigmoid(real), torch.sigmoid(fake)
    expected = -(real_label * d_x.log() + (1 - real_label) * (1 - d_x).log()).mean() - (1 - d_g).log().mean()
    loss = objective_from_name(objective).discriminator_loss(real, fake, real_label)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_minimax_generator_loss_is_log_one_minus_d(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    fake = logits[1]
    expected = (1 - torch.sigmoid(fake)).log().mean()
    torch.testing.assert_close(minimax.generator_loss(fake), expected, rtol=1e-12, atol=0)


def test_non_saturating_generator_loss_is_minus_log_d(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    fake = logits[1]
    expected = -torch.sigmoid(fake).log().mean()
    torch.testing.assert_close(non_saturating.generator_loss(fake), expected, rtol=1e-12, atol=0)


def test_minimax_saturates_where_d_is_sure_and_the_other_does_not() -> None:
    fake = torch.tensor([-20.0], requires_grad=True)
    (slow,) = torch.autograd.grad(minimax.generator_loss(fake), fake)
    (fast,) = torch.autograd.grad(non_saturating.generator_loss(fake), fake)
    assert slow.item() == pytest.approx(0.0, abs=1e-8)
    assert fast.item() == pytest.approx(-1.0, abs=1e-8)


def test_minimax_generator_plays_against_the_discriminator(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    real, fake = (tensor.requires_grad_() for tensor in logits)
    (of_d,) = torch.autograd.grad(minimax.discriminator_loss(real, fake), fake)
    (of_g,) = torch.autograd.grad(minimax.generator_loss(fake), fake)
    torch.testing.assert_close(of_g, -of_d)  # one value, two players


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_no_logit_overflows(objective: str) -> None:
    extreme = torch.tensor([-1e4, 1e4], requires_grad=True)
    o = objective_from_name(objective)
    for loss in (o.discriminator_loss(extreme, extreme, 0.9), o.generator_loss(extreme)):
        (gradient,) = torch.autograd.grad(loss, extreme)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_an_unknown_objective_is_an_error_that_lists_them() -> None:
    with pytest.raises(InputError, match="no objective") as raised:
        objective_from_name("wasserstein")
    assert "minimax" in str(raised.value)
