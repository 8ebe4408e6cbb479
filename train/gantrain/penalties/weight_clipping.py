"""Weight clipping: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017 (arXiv:1701.07875), algorithm 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def clip_weights(network: nn.Module, most: float) -> None:
    """Brings every parameter into [-most, most], after the optimiser's step. Buffers stay as they are."""
    parameters: list[Tensor] = list(network.parameters())
    torch._foreach_clamp_min_(parameters, -most)
    torch._foreach_clamp_max_(parameters, most)
