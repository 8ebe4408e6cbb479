"""The multilayer GAN: fully connected generator and discriminator.

After the networks of Goodfellow et al., "Generative Adversarial Nets", 2014 (arXiv:1406.2661), with LeakyReLU and with
batch normalisation in the generator from the second layer on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from ganruntime.spec import Image, Latent, TensorSpec
from gantrain.networks import checked_integer
from gantrain.networks.checks import checked_widths

LEAK = 0.2


class MlpGenerator(nn.Module):
    """z float32 [N, z_size] ~ N(0, 1) -> images float32 [N, channels, size, size] in [-1, 1].

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self, z_size: int = 100, size: int = 32, channels: int = 1, widths: Sequence[int] = (128, 256, 512, 1024)
    ) -> None:
        super().__init__()
        self.z_size = checked_integer("z_size", z_size, 1, 65536)
        self.size = checked_integer("size", size, 2, 256)
        self.channels = checked_integer("channels", channels, 1, 64)
        widths = checked_widths(widths)
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise((self.z_size, *widths))):
            normalised = i > 0
            layers.append(nn.Linear(fan_in, fan_out, bias=not normalised))
            if normalised:
                layers.append(nn.BatchNorm1d(fan_out))
            layers.append(nn.LeakyReLU(LEAK))
        layers += [nn.Linear(widths[-1], self.channels * self.size * self.size), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        flat = self.layers(z)  # [N, C*H*W]
        images: Tensor = flat.reshape(-1, self.channels, self.size, self.size)  # [N, C, H, W]
        return images

    def input_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` takes, in its order, as a generator spec says it."""
        return (TensorSpec("z", "float32", (self.z_size,), Latent()),)

    def output_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` gives, in its order, as a generator spec says it."""
        return (TensorSpec("image", "float32", (self.channels, self.size, self.size), Image()),)


class MlpDiscriminator(nn.Module):
    """Images float32 [N, channels, size, size] in [-1, 1] -> logits float32 [N], positive for "real".

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(self, size: int = 32, channels: int = 1, widths: Sequence[int] = (512, 256)) -> None:
        super().__init__()
        checked_integer("size", size, 2, 256)
        checked_integer("channels", channels, 1, 64)
        widths = checked_widths(widths)
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in itertools.pairwise((channels * size * size, *widths)):
            layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(LEAK)]
        layers.append(nn.Linear(widths[-1], 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images).squeeze(1)  # [N]
        return logits
