"""Drift: Karras, Aila, Laine and Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and
Variation", 2018 (arXiv:1710.10196), appendix A.1.

    ε · E over real x of D(x)²   with ε = 0.001

A Wasserstein critic's loss is of differences alone, so that its level is free to wander; this holds it near zero.
"""

from __future__ import annotations

from torch import Tensor


def drift_penalty(real_logits: Tensor) -> Tensor:
    """E[D(x)²], a scalar, of D's logits [N] of real samples."""
    return real_logits.square().mean()
