"""The non-saturating game: Goodfellow et al., "Generative Adversarial Nets", 2014 (arXiv:1406.2661), end of section 3.

The discriminator's loss is that of `minimax`. The generator maximises E[log D(G(z))] instead of minimising
E[log(1 - D(G(z)))]: the same fixed point, and a strong gradient where D is sure of the fakes.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from gantrain.objectives.minimax import PROBABILITY, RELATIVE, SMOOTHS, THRESHOLD, discriminator_loss

__all__ = ["PROBABILITY", "RELATIVE", "SMOOTHS", "THRESHOLD", "discriminator_loss", "generator_loss"]


def generator_loss(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """-E[log D(G(z))]."""
    return softplus(-fake).mean()
