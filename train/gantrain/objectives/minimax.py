"""The minimax game: Goodfellow et al., "Generative Adversarial Nets", 2014 (arXiv:1406.2661), equation 1.

    min over G, max over D:  E[log D(x)] + E[log(1 - D(G(z)))]

The generator's gradient vanishes where D is sure of the fakes; `non_saturating` is the paper's remedy for it.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

PROBABILITY, THRESHOLD, SMOOTHS, RELATIVE = True, 0.0, True, False


def discriminator_loss(real: Tensor, fake: Tensor, real_label: float = 1.0) -> Tensor:
    """-E[t log D(x) + (1 - t) log(1 - D(x))] - E[log(1 - D(G(z)))], with t = `real_label`, 1 in the paper.

    t below 1 is one-sided label smoothing: Salimans et al., "Improved Techniques for Training GANs", 2016
    (arXiv:1606.03498), section 3.4.
    """
    # -log sigmoid(a) = softplus(-a) and -log(1 - sigmoid(a)) = softplus(a): no overflow for any logit.
    on_real = softplus(-real)
    if real_label != 1.0:
        on_real = real_label * on_real + (1.0 - real_label) * softplus(real)
    return on_real.mean() + softplus(fake).mean()


def generator_loss(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """E[log(1 - D(G(z)))]: never positive, and lower is better for the generator."""
    return -softplus(fake).mean()
