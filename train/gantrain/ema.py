"""The exponential moving average of a generator's weights: what is sampled, judged and exported.

Yazıcı et al., "The Unusual Effectiveness of Averaging in GAN Training", 2018 (arXiv:1806.04498).
"""

from __future__ import annotations

import copy

import torch
from torch import nn


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


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average = decay · average + (1 - decay) · network for parameters; buffers (BatchNorm's statistics) are copied."""
    for weight, parameter in zip(average.parameters(), network.parameters(), strict=True):
        weight.lerp_(parameter, 1.0 - decay)
    for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
