"""The gradient penalty: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017 (arXiv:1704.00028),
algorithm 1.

    λ · E[(|∇D(x̂)| - 1)²]   with x̂ = u·x + (1 - u)·G(z), u ~ U(0, 1), one for each pair

A critic's slope should be 1 on the lines between real and generated images. Batch normalisation in the critic would
mix the slopes of a batch's images, so it is refused (`gantrain.plan`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ganruntime.noise import stream_of, uniform

_STREAM = stream_of("gantrain.penalties.interpolates")


def factors(seed: int, first: int, count: int) -> np.ndarray:
    """u of the pairs `first` … `first + count - 1`: float32 [count] in [0, 1), a function of its arguments alone."""
    return ((uniform(seed, first, count, 1, stream=_STREAM)[:, 0] + 1.0) / 2.0).astype(np.float32)


def slope_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, u: Tensor) -> Tensor:
    """E[(|∇D(x̂)| - 1)²], a scalar with a gradient of its own.

    Args:
        critic: samples [N, …] -> logits [N].
        real, fake: [N, …]; what they were made by gets no gradient from here.
        u: [N] in [0, 1].
    """
    weights = u.reshape(-1, *(1 for _ in real.shape[1:]))
    between = (weights * real.detach() + (1.0 - weights) * fake.detach()).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1.0).square().mean()
    return penalty
