"""The Wasserstein distance: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017 (arXiv:1701.07875), algorithm 1.

D is a critic of bounded slope, and no probability: something must bound the slope, weight clipping (`clip`) or the
gradient penalty of Gulrajani et al. (`gradient_penalty`).
"""

from __future__ import annotations

from torch import Tensor

PROBABILITY, THRESHOLD, SMOOTHS, RELATIVE = False, None, False, False


def discriminator_loss(real: Tensor, fake: Tensor, real_label: float = 1.0) -> Tensor:
    """E[D(G(z))] - E[D(x)]: minus the critic's estimate of the distance."""
    return fake.mean() - real.mean()


def generator_loss(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """-E[D(G(z))]."""
    return -fake.mean()
