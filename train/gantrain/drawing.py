"""What the loop draws from a generator: plainly from z and labels, or by way of styles, mixed and with fresh noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ganruntime.noise import latents, stream_of, uniform
from gantrain.batches import Batches
from gantrain.networks.stylegan2 import Stylegan2Generator
from gantrain.plan import Plan
from gantrain.recipes.training_settings import ImageSettings

_MIXING = stream_of("gantrain.drawing mixing")


class Drawing:
    """Generated samples for training, functions of (seed, position) and the generator's weights.

    Style mixing: Karras, Laine and Aila, "A Style-Based Generator Architecture for GANs", 2018 (arXiv:1812.04948),
    section 3.1. With the probability `mixing` an image has the styles of one w up to a layer, and of another after it.
    """

    def __init__(self, plan: Plan, generator: nn.Module, batches: Batches) -> None:
        s = plan.settings
        self._generator, self._batches, self._device = generator, batches, plan.device
        self._seed = plan.record.seed
        self._mixing = s.mixing if isinstance(s, ImageSettings) else 0.0

    def __call__(self, first: int, count: int, labels: tuple[Tensor, ...]) -> Tensor:
        """Samples `first` … : images [count, C, H, W] or vectors [count, length]."""
        if not isinstance(self._generator, Stylegan2Generator):
            samples: Tensor = self._generator(self._batches.latents(first, count), *labels)
            return samples
        return self.images(self.styles(first, count, labels), first)

    def styles(self, first: int, count: int, labels: tuple[Tensor, ...]) -> Tensor:
        """[count, style_layers, w_size] of a StyleGAN2; its mean of w is brought up to date."""
        generator = self._stylegan2()
        with torch.autocast(self._device.type, enabled=False):  # float32 in every precision, as its authors have it
            w = generator.mapping(self._batches.latents(first, count), *labels)
            generator.update_w_avg(w)
            if not self._mixing:
                return generator.styles(w)
            other = generator.mapping(self._batches.latents(first, count, "mixed"), *labels)
        return generator.mixed_styles(w, other, self.crossovers(first, count))

    def crossovers(self, first: int, count: int) -> Tensor:
        """The layer of each sample from which the second latent counts, int64 [count]; `style_layers` where none."""
        u = (uniform(self._seed, first, count, 2, stream=_MIXING).astype(np.float64) + 1.0) / 2.0  # [N, 2]
        layers = self._stylegan2().style_layers
        # From 1 to layers - 1 where the image is mixed, so that both have a say.
        places = np.where(u[:, 0] < self._mixing, 1 + (u[:, 1] * (layers - 1)).astype(np.int64), layers)
        return torch.from_numpy(places).to(self._device)

    def images(self, styles: Tensor, first: int) -> Tensor:
        """The images [N, C, H, W] of a StyleGAN2's styles [N, style_layers, w_size], with noise of their own."""
        return self._stylegan2().synthesis(styles, self.noise(first, len(styles)))

    def noise(self, first: int, count: int) -> list[Tensor]:
        """A StyleGAN2's noise of samples `first` …: a float32 [count, 1, h, w] for each of its noise inputs."""
        tensors = self._stylegan2().noise_tensors()
        seed = stream_of(f"gantrain.drawing noise of seed {self._seed}")  # not that which the user will generate with
        return [torch.from_numpy(latents(tensor, seed, first, count)).to(self._device) for tensor in tensors]

    def _stylegan2(self) -> Stylegan2Generator:
        assert isinstance(self._generator, Stylegan2Generator)
        return self._generator
