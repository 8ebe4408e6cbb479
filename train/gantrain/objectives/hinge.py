"""The hinge loss: Lim and Ye, "Geometric GAN", 2017 (arXiv:1705.02894); as in Miyato et al., "Spectral Normalization
for Generative Adversarial Networks", 2018 (arXiv:1802.05957), equations 17 and 18.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

PROBABILITY, THRESHOLD, SMOOTHS, RELATIVE = False, 0.0, False, False


def discriminator_loss(real: Tensor, fake: Tensor, real_label: float = 1.0) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]: what is told apart by a margin of 1 no longer counts."""
    return relu(1.0 - real).mean() + relu(1.0 + fake).mean()


def generator_loss(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """-E[D(G(z))]."""
    return -fake.mean()
