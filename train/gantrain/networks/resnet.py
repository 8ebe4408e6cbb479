"""The residual GAN of SNGAN: Miyato, Kataoka, Koyama and Yoshida, "Spectral Normalization for Generative Adversarial
Networks", 2018 (arXiv:1802.05957), appendix B.4, with the conditioning of Miyato and Koyama, "cGANs with Projection
Discriminator", 2018 (arXiv:1802.05637).

For any power of two from 8 to 256 pixels. `width` is the number of feature planes at the image's size in the
generator, and at half of it in the discriminator; each halving doubles it, up to `max_width`. The paper's networks: at
32 px a generator of width = max_width = 256, and a discriminator of width = max_width = 128, last_size 8 and
flat_blocks 2; at 64 px width 64 and max_width 1024 for both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ganruntime.spec import TensorSpec
from gantrain.networks import checked_integer
from gantrain.networks.checks import (
    checked_classes,
    checked_size,
    halving_widths,
    latent_and_label,
    require_label,
    square_image,
)
from gantrain.networks.conditional import ConditionalBatchNorm2d

MOST_SIZE = 256


class ResnetGenerator(nn.Module):
    """z float32 [N, z_size] ~ N(0, 1), with classes label int64 [N] -> images [N, channels, size, size] in [-1, 1].

    Residual blocks with batch normalisation, nearest ×2, tanh at the end. With classes the normalisation has a gain and
    a bias for each of them.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        z_size: int = 128,
        size: int = 32,
        channels: int = 3,
        width: int = 32,
        max_width: int = 128,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.z_size = checked_integer("z_size", z_size, 1, 65536)
        self.size = checked_size(size, 8, MOST_SIZE)
        self.channels = checked_integer("channels", channels, 1, 64)
        self.classes = checked_classes(classes)
        widths = halving_widths(self.size, width, max_width)[::-1]  # from 4 px to the image's size
        self.first = nn.Linear(self.z_size, widths[0] * 16)
        self.blocks = nn.ModuleList(
            _UpBlock(fan_in, fan_out, len(self.classes)) for fan_in, fan_out in itertools.pairwise(widths)
        )
        self.last_norm = nn.BatchNorm2d(widths[-1])
        self.last = nn.Conv2d(widths[-1], self.channels, 3, padding=1)
        nn.init.xavier_uniform_(self.first.weight)
        nn.init.zeros_(self.first.bias)
        _initialise(self.last, 1.0)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        x = self.first(z).unflatten(1, (-1, 4, 4))  # [N, width, 4, 4]
        for block in self.blocks:
            x = block(x, label)
        return torch.tanh(self.last(torch.relu(self.last_norm(x))))  # [N, C, H, W]

    def input_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` takes, in its order, as a generator spec says it."""
        return latent_and_label(self.z_size, self.classes)

    def output_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` gives, in its order, as a generator spec says it."""
        return square_image(self.channels, self.size)


class _UpBlock(nn.Module):
    """[N, inputs, H, W] -> [N, outputs, 2 H, 2 W]."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norm_1 = ConditionalBatchNorm2d(inputs, classes) if classes else nn.BatchNorm2d(inputs)
        self.norm_2 = ConditionalBatchNorm2d(outputs, classes) if classes else nn.BatchNorm2d(outputs)
        self.convolution_1 = _initialise(nn.Conv2d(inputs, outputs, 3, padding=1), math.sqrt(2.0))
        self.convolution_2 = _initialise(nn.Conv2d(outputs, outputs, 3, padding=1), math.sqrt(2.0))
        self.shortcut = _initialise(nn.Conv2d(inputs, outputs, 1), 1.0)

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        given = () if label is None else (label,)
        residual = _doubled(torch.relu(self.norm_1(x, *given)))
        residual = torch.relu(self.norm_2(self.convolution_1(residual), *given))
        # A pointwise convolution and nearest ×2 commute, and this order has a quarter of the work.
        return self.convolution_2(residual) + _doubled(self.shortcut(x))  # type: ignore[no-any-return]


class ResnetDiscriminator(nn.Module):
    """Images [N, channels, size, size], with classes label int64 [N] -> logits float32 [N], positive for "real".

    Residual blocks with ReLU, spectral normalisation throughout, a sum over all places, and with classes the
    projection of the features onto a learned vector of the label.

    Args:
        last_size: halved by blocks down to this height and width.
        flat_blocks: how many blocks that do not halve follow.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        width: int = 32,
        max_width: int = 128,
        last_size: int = 4,
        flat_blocks: int = 1,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        size = checked_size(size, 8, MOST_SIZE)
        checked_integer("channels", channels, 1, 64)
        last_size = checked_size(last_size, 2, size // 2)
        self.classes = checked_classes(classes)
        widths = halving_widths(size // 2, width, max_width, last_size)
        blocks: list[nn.Module] = [_FirstBlock(channels, widths[0])]
        blocks += [_DownBlock(fan_in, fan_out, down=True) for fan_in, fan_out in itertools.pairwise(widths)]
        flat = checked_integer("flat_blocks", flat_blocks, 0, 16)
        blocks += [_DownBlock(widths[-1], widths[-1], down=False) for _ in range(flat)]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(widths[-1], 1)
        nn.init.xavier_uniform_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        spectral_norm(self.last)
        if self.classes:
            self.projection = nn.Embedding(len(self.classes), widths[-1])
            nn.init.xavier_uniform_(self.projection.weight)
            spectral_norm(self.projection)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        features = torch.relu(self.blocks(images)).sum((2, 3))  # [N, width]
        logits: Tensor = self.last(features).squeeze(1)  # [N]
        if label is not None:
            logits = logits + (self.projection(label) * features).sum(1)
        return logits


class _FirstBlock(nn.Module):
    """Images [N, channels, H, W] -> [N, outputs, H / 2, W / 2], without a ReLU before the first convolution."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.convolution_1 = _normalised(nn.Conv2d(channels, outputs, 3, padding=1), math.sqrt(2.0))
        self.convolution_2 = _normalised(nn.Conv2d(outputs, outputs, 3, padding=1), math.sqrt(2.0))
        self.shortcut = _normalised(nn.Conv2d(channels, outputs, 1), 1.0)

    def forward(self, images: Tensor) -> Tensor:
        residual = self.convolution_2(torch.relu(self.convolution_1(images)))
        return _halved(residual) + self.shortcut(_halved(images))  # type: ignore[no-any-return]


class _DownBlock(nn.Module):
    """[N, inputs, H, W] -> [N, outputs, H / 2, W / 2], or with `down` false [N, outputs, H, W]."""

    def __init__(self, inputs: int, outputs: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.convolution_1 = _normalised(nn.Conv2d(inputs, outputs, 3, padding=1), math.sqrt(2.0))
        self.convolution_2 = _normalised(nn.Conv2d(outputs, outputs, 3, padding=1), math.sqrt(2.0))
        self.shortcut = _normalised(nn.Conv2d(inputs, outputs, 1), 1.0) if down or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        residual = self.convolution_2(torch.relu(self.convolution_1(torch.relu(x))))
        if self.down:
            return _halved(residual) + self.shortcut(_halved(x))  # type: ignore[no-any-return]
        return residual + self.shortcut(x)  # type: ignore[no-any-return]


def _doubled(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2 H, 2 W], each value four times."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _halved(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, H / 2, W / 2], the mean of four."""
    return functional.avg_pool2d(x, 2)


def _initialise(layer: nn.Conv2d, gain: float) -> nn.Conv2d:
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _normalised(layer: nn.Conv2d, gain: float) -> nn.Module:
    return spectral_norm(_initialise(layer, gain))
