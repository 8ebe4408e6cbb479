"""Path-length regularisation: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020
(arXiv:1912.04958), section 3.2 and appendix B.

    E over w, y of (|Jᵀy| - a)²   with y ~ N(0, 1) an image of noise, a the moving mean of the lengths |Jᵀy|

A step of one size in w should change the image by one amount, wherever it is taken and in whichever direction.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ganruntime.noise import normal, stream_of

_STREAM = stream_of("gantrain.penalties.path_length")
PATH_LENGTH = "path_length"  # the mean's place among the state's extras
DECAY = 0.01  # of the mean, in a step


def directions(seed: int, first: int, count: int, shape: tuple[int, ...]) -> np.ndarray:
    """y of images `first` … : float32 [count, *shape] ~ N(0, 1) / √(H · W), a function of its arguments alone."""
    y = normal(seed, first, count, math.prod(shape), stream=_STREAM).reshape(count, *shape)
    return y / np.float32(math.sqrt(shape[-1] * shape[-2]))


def path_lengths(images: Tensor, styles: Tensor, y: Tensor, *, differentiable: bool = True) -> Tensor:
    """|Jᵀy| of each image, [N].

    Args:
        images: [N, C, H, W], made from `styles`.
        styles: [N, layers, w_size], which the images depend on.
        y: as the images.
        differentiable: whether the lengths are to have a gradient of their own.
    """
    (slope,) = torch.autograd.grad((images * y).sum(), styles, create_graph=differentiable)  # [N, layers, w_size]
    return slope.square().sum(2).mean(1).sqrt()


def follow(mean: Tensor, batch_mean: Tensor) -> None:
    """Brings the moving mean a, float32 [] and 0 at the beginning, up to date with the mean length of a batch."""
    mean.lerp_(batch_mean.detach(), DECAY)


def path_penalty(lengths: Tensor, mean: Tensor) -> Tensor:
    """(|Jᵀy| - a)² of lengths [N] and the moving mean, this batch's lengths in it: a scalar."""
    return (lengths - mean).square().mean()
