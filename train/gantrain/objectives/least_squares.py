"""Least squares: Mao et al., "Least Squares Generative Adversarial Networks", 2016 (arXiv:1611.04076), equation 9.

D regresses 1 for real and 0 for generated images, without a sigmoid; the generator wants 1. The gradient grows with the
distance from the target, so images that D takes for real but far from the data still learn.
"""

from __future__ import annotations

from torch import Tensor

PROBABILITY, THRESHOLD, SMOOTHS, RELATIVE = False, 0.5, True, False


def discriminator_loss(real: Tensor, fake: Tensor, real_label: float = 1.0) -> Tensor:
    """½ E[(D(x) - b)²] + ½ E[D(G(z))²], with b = `real_label`, 1 in the paper."""
    return 0.5 * (real - real_label).square().mean() + 0.5 * fake.square().mean()


def generator_loss(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """½ E[(D(G(z)) - 1)²]."""
    return 0.5 * (fake - 1.0).square().mean()
