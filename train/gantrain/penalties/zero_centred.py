"""R1 and R2: Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", 2018
(arXiv:1801.04406), equations 9 and 10.

    R1 = γ/2 · E over real x of |∇D(x)|²          R2 = γ/2 · E over generated x of |∇D(x)|²

Taken in every n-th step, n times as heavy, it is lazy regularisation: Karras et al., StyleGAN2 (arXiv:1912.04958).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def squared_gradient(logits: Tensor, samples: Tensor) -> Tensor:
    """E[|∇D(x)|²], a scalar with a gradient of its own.

    Args:
        logits: D(samples), [N].
        samples: [N, …], a leaf that requires its gradient.
    """
    return squared_gradients([(logits, samples)])[0]


def squared_gradients(judged: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """`squared_gradient` of each pair of logits and samples, in one backward pass, which they may share a graph for."""
    if not judged:
        return []
    sums, samples = [logits.sum() for logits, _ in judged], [samples for _, samples in judged]
    slopes = torch.autograd.grad(sums, samples, create_graph=True)  # each [N, …]
    return [slope.square().flatten(1).sum(1).mean() for slope in slopes]
