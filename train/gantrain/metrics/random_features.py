"""A convolutional network with fixed random weights: features for images without labels.

Naeem et al., "Reliable fidelity and diversity metrics for generative models", 2020 (arXiv:2002.09797), find that random
embeddings serve where the images are unlike ImageNet's, and tell apart what a trained network would not look at. The
weights come from `ganruntime.noise`, and are the same everywhere.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ganruntime import noise
from gantrain.metrics.judge_network import LARGEST_SIDE, at_judges_size
from gantrain.metrics.spaces import Description, FeatureSpace, checked_images

_PLANES = (3, 24, 48, 64)
_SEED = 0


class RandomFeatures(FeatureSpace):
    """Mean and standard deviation of every plane of three layers: float32 [N, 272]. Grey images count as RGB."""

    name = f"random-{LARGEST_SIDE}px"

    def __init__(self) -> None:
        self._weights = []
        for k, (fan_in, fan_out) in enumerate(itertools.pairwise(_PLANES)):
            stream = noise.stream_of(f"gantrain.metrics.random_features {k}")
            rows = noise.normal(_SEED, 0, fan_out, fan_in * 9, stream=stream) * np.float32((2.0 / (fan_in * 9)) ** 0.5)
            self._weights.append(torch.from_numpy(rows.reshape(fan_out, fan_in, 3, 3)))

    @torch.no_grad()
    def describe(self, samples: NDArray[np.generic]) -> Description:
        images = checked_images(samples)
        x = at_judges_size(np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images)  # [N, 3, S, S]
        rows = []
        for weight in self._weights:
            x = functional.leaky_relu(functional.conv2d(x, weight, stride=2, padding=1), 0.2)
            rows += [x.mean(dim=(2, 3)), x.std(dim=(2, 3), correction=0)]
        return Description(torch.cat(rows, dim=1).numpy())
