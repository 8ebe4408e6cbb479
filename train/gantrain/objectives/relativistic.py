"""The relativistic pairing loss: Jolicoeur-Martineau, "The relativistic discriminator", 2018 (arXiv:1807.00734), RpGAN
with f(t) = -log(1 + e^-t); with R1 and R2 the objective of Huang et al., "The GAN is dead; long live the GAN!", 2025
(arXiv:2501.05441).

D is asked whether a real image looks more real than a generated one of the same batch. A generator that drops modes
leaves real images without a rival, so its landscape has no bad local minima (Sun, Fang and Schwing 2020).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

PROBABILITY, THRESHOLD, SMOOTHS, RELATIVE = False, None, False, True


def discriminator_loss(real: Tensor, fake: Tensor, real_label: float = 1.0) -> Tensor:
    """E[log(1 + exp(D(G(z)) - D(x)))] over the pairs of the batch; log 2 where D cannot tell."""
    return softplus(fake - real).mean()


def generator_loss(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """E[log(1 + exp(D(x) - D(G(z))))]."""
    if real is None:
        raise ValueError("the relativistic generator loss needs the logits of real images")
    return softplus(real - fake).mean()
