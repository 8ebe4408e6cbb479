"""Losses against the papers' formulas in float64, and where a naive form would overflow."""

from __future__ import annotations

import math

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


@pytest.mark.parametrize("objective", ["non_saturating", "minimax"])
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
    for loss in (o.discriminator_loss(extreme, extreme, 0.9), o.generator_loss(extreme, extreme.flip(0))):
        (gradient,) = torch.autograd.grad(loss, extreme)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def test_an_unknown_objective_is_an_error_that_lists_them() -> None:
    with pytest.raises(InputError, match="no objective") as raised:
        objective_from_name("divergence")
    assert "minimax" in str(raised.value)


def test_the_other_losses_are_the_papers_formulas(logits: tuple[torch.Tensor, torch.Tensor]) -> None:
    real, fake = logits
    n = len(real)
    expected = {
        "least_squares": (
            sum(0.5 * (float(r) - 0.9) ** 2 for r in real) / n + sum(0.5 * float(f) ** 2 for f in fake) / n,
            sum(0.5 * (float(f) - 1.0) ** 2 for f in fake) / n,
        ),
        "wasserstein": (sum(map(float, fake)) / n - sum(map(float, real)) / n, -sum(map(float, fake)) / n),
        "hinge": (
            sum(max(0.0, 1.0 - float(r)) for r in real) / n + sum(max(0.0, 1.0 + float(f)) for f in fake) / n,
            -sum(map(float, fake)) / n,
        ),
        "relativistic": (
            sum(-math.log(1 / (1 + math.exp(float(f) - float(r)))) for r, f in zip(real, fake, strict=True)) / n,
            sum(-math.log(1 / (1 + math.exp(float(r) - float(f)))) for r, f in zip(real, fake, strict=True)) / n,
        ),
    }
    for name, (of_d, of_g) in expected.items():
        o = objective_from_name(name)
        assert o.discriminator_loss(real, fake, 0.9).item() == pytest.approx(of_d, rel=1e-12), name
        assert o.generator_loss(fake, real).item() == pytest.approx(of_g, rel=1e-12), name


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_both_losses_pull_logits_where_they_should(name: str) -> None:
    """D raises real and lowers generated logits, G raises those of its own, and only `relative` ones look at real."""
    o = objective_from_name(name)
    real, fake = (torch.tensor([0.1, 0.4], dtype=torch.float64, requires_grad=True) for _ in range(2))
    on_real, on_fake = torch.autograd.grad(o.discriminator_loss(real, fake, 1.0), (real, fake))
    assert (on_real < 0).all()
    assert (on_fake > 0).all()
    on_fake, on_real = torch.autograd.grad(o.generator_loss(fake, real), (fake, real), allow_unused=True)
    assert (on_fake < 0).all()
    assert (on_real is not None) == o.relative


def test_accuracy_and_opinion_are_in_the_objectives_own_terms() -> None:
    real, fake = torch.tensor([0.7, 0.2, -1.0, 3.0]), torch.tensor([0.4, 0.6, -2.0, 1.0])
    assert objective_from_name("non_saturating").accuracy(real, fake) == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert objective_from_name("least_squares").accuracy(real, fake) == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert objective_from_name("relativistic").accuracy(real, fake) == pytest.approx(3 / 4)
    assert torch.equal(objective_from_name("minimax").opinion(real), torch.sigmoid(real))
    assert torch.equal(objective_from_name("wasserstein").opinion(real), real)


def test_a_relativistic_generator_without_rivals_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="real"):
        objective_from_name("relativistic").generator_loss(torch.zeros(2), None)
