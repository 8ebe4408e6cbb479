"""The modern baseline R3GAN: Huang, Gokaslan, Kuleshov and Tompkin, "The GAN is dead; long live the GAN! A Modern
Baseline GAN", 2024 (arXiv:2501.05441). To be trained with the relativistic loss and both gradient penalties.

A generator is a learned constant of 4 × 4 that z scales, plane by plane, residual blocks, and bilinear ×2 between the
resolutions; the discriminator is its mirror. No normalisation anywhere, LeakyReLU, and fix-up initialisation (Zhang,
Dauphin and Ma, 2019, arXiv:1901.09321): the last convolution of a branch starts at zero, so that every block starts as
the identity, and the others are the smaller the more blocks there are.

Blocks have one of two branches. cardinality 0: two 3×3 convolutions. cardinality n: the paper's last form, 1×1 to
`expansion` times the planes, 3×3 in n groups, 1×1 back. Any power of two from 8 to 256 pixels; `width` is the number
of planes at the image's size, and doubles at each halving up to `max_width`. The paper's network for CIFAR-10 has
width = max_width = 768, blocks 2, expansion 2, cardinality 96.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganruntime.errors import InputError
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
from gantrain.networks.conditional import one_hot
from gantrain.networks.resampling import downsampling, upsampled

MOST_SIZE = 256
LEAK = 0.2
_GAIN = math.sqrt(2.0 / (1.0 + LEAK**2))  # keeps the variance through a LeakyReLU: He et al., 2015


class R3ganGenerator(nn.Module):
    """z float32 [N, z_size] ~ N(0, 1), with classes label int64 [N] -> images [N, channels, size, size], about [-1, 1].

    There is no tanh at the end: values beyond [-1, 1] are white and black.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        z_size: int = 64,
        size: int = 32,
        channels: int = 3,
        width: int = 32,
        max_width: int = 128,
        blocks: int = 1,
        expansion: int = 2,
        cardinality: int = 0,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.z_size = checked_integer("z_size", z_size, 1, 65536)
        self.size = checked_size(size, 8, MOST_SIZE)
        self.channels = checked_integer("channels", channels, 1, 64)
        self.classes = checked_classes(classes)
        widths = halving_widths(self.size, width, max_width)[::-1]  # from 4 px to the image's size
        branch = _Branch(widths, blocks, expansion, cardinality)
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.scale = nn.Linear(self.z_size + len(self.classes), widths[0], bias=False)
        nn.init.normal_(self.scale.weight, 0.0, (self.z_size + bool(self.classes)) ** -0.5)
        self.stages = nn.ModuleList(branch.stage(w) for w in widths)
        self.widenings = nn.ModuleList(_widening(a, b) for a, b in itertools.pairwise(widths))
        self.last = _convolution(widths[-1], self.channels, 1, 1.0)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        if label is not None:
            z = torch.cat([z, one_hot(label, len(self.classes)).to(z.dtype)], dim=1)
        x = self.stages[0](self.constant * self.scale(z)[:, :, None, None])  # [N, width, 4, 4]
        for widening, stage in zip(self.widenings, self.stages[1:], strict=True):
            x = stage(upsampled(widening(x)))
        images: Tensor = self.last(x)  # [N, C, H, W]
        return images

    def input_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` takes, in its order, as a generator spec says it."""
        return latent_and_label(self.z_size, self.classes)

    def output_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` gives, in its order, as a generator spec says it."""
        return square_image(self.channels, self.size)


class R3ganDiscriminator(nn.Module):
    """Images [N, channels, size, size], with classes label int64 [N] -> logits float32 [N], positive for "real".

    With classes the logit is the product of the features with a learned vector of the label, over √planes.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        width: int = 32,
        max_width: int = 128,
        blocks: int = 1,
        expansion: int = 2,
        cardinality: int = 0,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        size = checked_size(size, 8, MOST_SIZE)
        checked_integer("channels", channels, 1, 64)
        self.classes = checked_classes(classes)
        widths = halving_widths(size, width, max_width)  # from the image's size to 4 px
        branch = _Branch(widths, blocks, expansion, cardinality)
        self.first = _convolution(channels, widths[0], 1, 1.0)
        self.stages = nn.ModuleList(branch.stage(w) for w in widths)
        self.down = downsampling()
        self.widenings = nn.ModuleList(_widening(a, b) for a, b in itertools.pairwise(widths))
        self.basis = nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False)  # 4 × 4 to one, by plane
        nn.init.normal_(self.basis.weight, 0.0, 0.25)
        outputs = widths[-1] if self.classes else 1
        self.last = nn.Linear(widths[-1], outputs, bias=False)
        nn.init.normal_(self.last.weight, 0.0, widths[-1] ** -0.5)
        if self.classes:
            self.embedding = nn.Embedding(len(self.classes), widths[-1])

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        x = self.stages[0](self.first(images))
        for widening, stage in zip(self.widenings, self.stages[1:], strict=True):
            x = stage(widening(self.down(x)))
        features: Tensor = self.last(self.basis(x).flatten(1))  # [N, 1 or width]
        if label is None:
            return features.squeeze(1)  # [N]
        projected: Tensor = (features * self.embedding(label)).sum(1) / math.sqrt(features.shape[1])  # [N]
        return projected


class _Branch:
    """The blocks of a network: how many at each resolution, and of which form. Raises `InputError`."""

    def __init__(self, widths: Sequence[int], blocks: object, expansion: object, cardinality: object) -> None:
        self.blocks = checked_integer("blocks", blocks, 1, 16)
        self.expansion = checked_integer("expansion", expansion, 1, 8)
        self.groups = checked_integer("cardinality", cardinality, 0, 4096)
        for width in widths:
            if self.groups and width * self.expansion % self.groups:
                raise InputError(
                    "cardinality does not divide the planes of a block",
                    got=f"cardinality {self.groups}, {width * self.expansion} planes",
                    expected="a divisor of width × expansion at every size",
                )
        self.total = self.blocks * len(widths)

    def stage(self, planes: int) -> nn.Sequential:
        """The blocks of one resolution, [N, planes, H, W] -> the same."""
        layers = 3 if self.groups else 2
        shrink = self.total ** (-1 / (2 * layers - 2))
        if self.groups == 0:
            return nn.Sequential(*(_PlainBlock(planes, shrink) for _ in range(self.blocks)))
        expanded = planes * self.expansion
        return nn.Sequential(*(_BottleneckBlock(planes, expanded, self.groups, shrink) for _ in range(self.blocks)))


class _PlainBlock(nn.Module):
    """x + two 3×3 convolutions, [N, planes, H, W]."""

    def __init__(self, planes: int, shrink: float) -> None:
        super().__init__()
        self.convolution_1 = _convolution(planes, planes, 3, _GAIN * shrink, bias=True)
        self.convolution_2 = _convolution(planes, planes, 3, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.convolution_1(x), LEAK)
        return x + self.convolution_2(y)  # type: ignore[no-any-return]


class _BottleneckBlock(nn.Module):
    """x + 1×1, 3×3 in groups, 1×1, [N, planes, H, W]."""

    def __init__(self, planes: int, expanded: int, groups: int, shrink: float) -> None:
        super().__init__()
        self.convolution_1 = _convolution(planes, expanded, 1, _GAIN * shrink, bias=True)
        self.convolution_2 = _convolution(expanded, expanded, 3, _GAIN * shrink, bias=True, groups=groups)
        self.convolution_3 = _convolution(expanded, planes, 1, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.convolution_1(x), LEAK)
        y = functional.leaky_relu(self.convolution_2(y), LEAK)
        return x + self.convolution_3(y)  # type: ignore[no-any-return]


def _widening(inputs: int, outputs: int) -> nn.Module:
    """[N, inputs, H, W] -> [N, outputs, H, W]: a pointwise convolution, or nothing where the planes are as many."""
    return nn.Identity() if inputs == outputs else _convolution(inputs, outputs, 1, 1.0)


def _convolution(
    inputs: int, outputs: int, kernel: int, gain: float, *, bias: bool = False, groups: int = 1
) -> nn.Conv2d:
    """Weights from N(0, gain² / fan-in), biases zero; height and width stay."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias, groups=groups)
    nn.init.normal_(layer.weight, 0.0, gain * (kernel * kernel * inputs / groups) ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
