"""Differentiable augmentation: what the discriminator is shown, of real and generated images alike.

Zhao, Liu, Lin, Zhu and Han, "Differentiable Augmentation for Data-Efficient GAN Training", 2020 (arXiv:2006.10738). It
keeps the discriminator from knowing a small data set by heart; because generated images are changed too, and gradients
pass through the change, the generator does not learn to draw the changes. One kind a file; `ada` says how often.

Every draw is a function of (seed, position, use, kind): `use` tells the calls of one training step apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ganruntime.noise import stream_of, uniform
from gantrain.augmentations.colour import recoloured
from gantrain.augmentations.cutout import cut_out
from gantrain.augmentations.translation import shifted, shifts


@dataclass(frozen=True)
class Augmentation:
    """Which kinds there are, and how strong: see `ImageSettings`. With all at 0 nothing is changed."""

    shift: int = 0
    colour: float = 0.0
    cutout: float = 0.0

    @property
    def active(self) -> bool:
        return bool(self.shift or self.colour or self.cutout)

    def shown(self, images: Tensor, seed: int, first: int, use: str, probability: float = 1.0) -> Tensor:
        """float32 [N, C, H, W] in [-1, 1] -> the same shape: each kind, on each image with this probability."""
        count = len(images)

        def chosen(kind: str) -> np.ndarray:  # bool [N]
            if probability >= 1.0:
                return np.ones(count, bool)
            u = uniform(seed, first, count, 1, stream=stream_of(f"gantrain.augmentations.{kind}.{use}.whether"))[:, 0]
            return np.asarray((u + 1.0) / 2.0 < probability)

        def amounts(kind: str, numbers: int) -> np.ndarray:  # float32 [N, numbers] in [-1, 1)
            return uniform(seed, first, count, numbers, stream=stream_of(f"gantrain.augmentations.{kind}.{use}"))

        if self.colour:
            changes = self.colour * amounts("colour", 3) * chosen("colour")[:, None]
            images = recoloured(images, torch.from_numpy(changes.astype(np.float32)).to(images.device))
        if self.shift:
            images = shifted(images, shifts(seed, first, count, self.shift, use) * chosen("shift")[:, None])
        if self.cutout:
            images = cut_out(images, amounts("cutout", 2), self.cutout, chosen("cutout"))
        return images
