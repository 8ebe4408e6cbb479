"""The exponential moving average of a generator's weights: what is sampled, judged and exported.

Yazıcı et al., "The Unusual Effectiveness of Averaging in GAN Training", 2018 (arXiv:1806.04498).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def averaged_copy(network: nn.Module) -> nn.Module:
    """A copy to average into: in eval mode, without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def decay_per_step(half_life_images: float, step_images: int, images_seen: int) -> float:
    """How much of the average stays after one step: 0.5 ** (images of the step / half-life).

    The half-life grows with the training, up to what was asked, so that the random weights of the beginning are
    forgotten: at no time is it more than a twentieth of the images seen (Karras et al., StyleGAN2's `ema_rampup`).
    """
    half_life = min(half_life_images, 0.05 * images_seen)
    return 0.5 ** (step_images / half_life) if half_life > 0 else 0.0


class Averaging:
    """Brings `average`, an `averaged_copy` of `network`, up to date with it.

    The tensors of both are looked up once: walking through small networks takes longer than averaging them.
    """

    def __init__(self, average: nn.Module, network: nn.Module) -> None:
        self._weights: list[Tensor] = list(average.parameters())
        self._parameters: list[Tensor] = list(network.parameters())
        self._kept, self._buffers = list(average.buffers()), list(network.buffers())

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average = decay · average + (1 - decay) · network; buffers (BatchNorm's statistics) are copied."""
        torch._foreach_lerp_(self._weights, self._parameters, 1.0 - decay)
        if self._kept:
            torch._foreach_copy_(self._kept, self._buffers)
