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


def path_penalty(images: Tensor, styles: Tensor, y: Tensor, mean: Tensor) -> Tensor:
    """(|Jᵀy| - a)², a scalar with a gradient of its own; `mean`, a scalar buffer, is brought up to date.

    Args:
        images: [N, C, H, W], made from `styles`.
        styles: [N, layers, w_size], which the images depend on.
        y: as the images.
        mean: float32 [], 0 at the beginning of the training.
    """
    (slope,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)  # [N, layers, w_size]
    lengths = slope.square().sum(2).mean(1).sqrt()  # [N]
    mean.lerp_(lengths.detach().mean(), DECAY)
    return (lengths - mean).square().mean()
