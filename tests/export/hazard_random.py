"""Networks that draw random numbers by themselves, in the ways that published generators do."""

from __future__ import annotations

import numpy as np
import odd_networks as odd
import torch
from torch import Tensor, nn
from torch.nn import functional


class NoiseInjection(nn.Module):
    """StyleGAN's: one plane of noise per image and layer, with a learned strength."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        return x + self.strength * x.new_empty(n, 1, height, width).normal_()


class Layered(odd.Small):
    """Two layers, each with its own noise: normal and uniform."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(NoiseInjection(), nn.Conv2d(1, 1, 3, padding=1), NoiseInjection())

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.layers(self.draw(z))
        return torch.tanh(x + 0.2 * torch.rand(x.shape[0], 1, 4, 4))


class Reparametrised(odd.Small):
    """A VAE's sample: mean + deviation · ε, by torch.normal."""

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(torch.normal(z, 0.1 + z.abs()))


class Everything(odd.Small):
    """Every call that can be made from normal or uniform numbers, each seen in the image."""

    def forward(self, z: Tensor) -> Tensor:
        n = z.shape[0]
        x = self.draw(z + 0.1 * torch.randn_like(z) + 0.1 * torch.randn(n, odd.LATENT) + 0.1 * torch.randn(size=(n, 8)))
        x = x + 0.1 * torch.rand_like(x) + 0.1 * torch.rand((n, 1, 4, 4))
        x = x + torch.empty_like(x).normal_(0.5, 0.1) + torch.empty_like(x).uniform_(-0.2, 0.3)
        x = x + 0.1 * torch.normal(0.0, 1.0, (n, 1, 4, 4)) + 0.1 * torch.bernoulli(torch.full((n, 1, 4, 4), 0.3))
        x = x + 0.1 * torch.empty_like(x).bernoulli_(0.7)
        return functional.dropout2d(x + 2.0, 0.1) + functional.dropout(x, 0.5)


class Pix2Pix(odd.Small):
    """Dropout that is kept on at test time, as pix2pix has it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        self.body[1].train()
        x: Tensor = self.body(self.draw(z))
        return torch.tanh(x)


class OneRowForAll(odd.Small):
    """One row of noise for the whole batch."""

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z) + torch.randn(1, 1, 4, 4)


class NoRow(odd.Small):
    """Noise without a batch dimension."""

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z) + torch.randn(4, 4)


class DrawsPerImage(odd.Small):
    """A draw for each image in a loop: how many depends on the batch."""

    def forward(self, z: Tensor) -> Tensor:
        noise = torch.stack([torch.randn(odd.LATENT) for _ in range(z.shape[0])])
        return self.draw(z + noise)


class Permuted(odd.Small):
    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z[:, torch.randperm(odd.LATENT)])


class Leaky(odd.Small):
    """A slope that is drawn for each element while training, and here at test time."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.RReLU()

    def forward(self, z: Tensor) -> Tensor:
        self.act.train()
        x: Tensor = self.act(self.draw(z))
        return x


class NumpyNoise(odd.Small):
    """Random numbers that torch knows nothing of."""

    def forward(self, z: Tensor) -> Tensor:
        return self.draw(z + torch.from_numpy(np.random.default_rng().normal(size=odd.LATENT).astype("float32")))
