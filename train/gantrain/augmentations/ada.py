"""ADA: Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020 (arXiv:2006.06676), section 3.

The discriminator overfits where it is sure of real images: r = E[sign D(x)] near 1. Every four steps the probability of
augmentation goes up where r is above the target and down where it is below, fast enough to cross from 0 to 1 in
`images`. r and the probability are part of the training's state.
"""

from __future__ import annotations

import torch
from torch import Tensor

EVERY = 4  # discriminator steps between changes, as in the paper


class Controller:
    """Holds the probability; `state` (float64 [2]: probability, sum of signs) is saved and loaded with the training.

    Args:
        target: r that is aimed at; 0 for a probability that stays 1.
        images: in which the probability can go from 0 to 1.
    """

    def __init__(self, target: float, images: float) -> None:
        self.target, self.images = target, images
        self.state = torch.tensor([0.0 if target else 1.0, 0.0], dtype=torch.float64)

    @property
    def probability(self) -> float:
        return float(self.state[0])

    def saw(self, real_logits: Tensor, step: int) -> None:
        """Takes D's logits [N] of the real images of discriminator step `step`, counted from 0."""
        if not self.target:
            return
        self.state[1] += real_logits.detach().sign().mean().to("cpu", torch.float64)
        if step % EVERY == EVERY - 1:
            change = torch.sign(self.state[1] / EVERY - self.target) * (len(real_logits) * EVERY / self.images)
            self.state[0] = (self.state[0] + change).clamp(0.0, 1.0)
            self.state[1] = 0.0
