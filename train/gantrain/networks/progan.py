"""Progressive GAN: Karras, Aila, Laine and Lehtinen, "Progressive Growing of GANs for Improved Quality, Stability, and
Variation", 2018 (arXiv:1710.10196).

Both networks start at 4 × 4 pixels and grow: at growth g in [0, doublings] the images have the detail of 4 · 2^⌈g⌉
pixels, of which the last doubling is faded in by α = g - ⌈g⌉ + 1. Images always have the full size: the generator's
are upsampled to it, nearest, and the discriminator halves them until they have as many pixels as there is detail. So
a training loop has nothing to do but `set_growth`, and any checkpoint exports.

growth is a buffer, and α a constant in the graph: a grown generator (growth = doublings, where a network starts unless
it is told otherwise) has α = 1 and a graph without a fade; one exported in the middle draws what it was trained to.

Any power of two from 8 to 1024 pixels; `width` is the number of planes at the image's size, and doubles at each halving
up to `max_width`. The paper's network has size 1024, width 16, max_width 512 and z_size 512.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

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
from gantrain.networks.equalised import LEAK, EqualisedConv2d, EqualisedLinear, minibatch_deviation, pixel_norm

_GAIN = math.sqrt(2.0)


class Growing(nn.Module):
    """A network that grows from 4 px: where it is, as a buffer `growth` that a checkpoint keeps.

    The stage decides which layers run, and is Python's number therefore. While a graph is traced no tensor has a value;
    the number then is that of the last pass, of `set_growth` or of loading, whichever came last.
    """

    growth: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.doublings = (checked_size(size, 8) // 4).bit_length() - 1
        self.register_buffer("growth", torch.tensor(float(self.doublings)))
        self._seen = float(self.doublings)
        self.register_load_state_dict_post_hook(_see_growth)  # type: ignore[no-untyped-call]

    def set_growth(self, growth: float) -> None:
        """Grows, or shrinks, to `growth` in [0, doublings]. Raises `InputError` where it is out of range."""
        if not 0.0 <= growth <= self.doublings:
            raise InputError("growth is out of range", got=growth, expected=f"a number from 0 to {self.doublings}")
        self.growth.fill_(growth)
        self.see_growth()

    def see_growth(self) -> None:
        """Reads the buffer, unless it has no value here."""
        if not torch.compiler.is_compiling() and not self.growth.is_meta:
            self._seen = float(self.growth)

    def stage_and_alpha(self) -> tuple[int, float]:
        """(⌈growth⌉, α): how many doublings there are, and the share of the last one, in (0, 1]."""
        self.see_growth()
        stage = math.ceil(self._seen)
        return stage, self._seen - stage + 1.0


def _see_growth(network: Growing, incompatible: Any) -> None:
    network.see_growth()


class ProganGenerator(Growing):
    """z float32 [N, z_size] ~ N(0, 1), with classes label int64 [N] -> images [N, channels, size, size], about [-1, 1].

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
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(size)
        self.size = size
        self.z_size = checked_integer("z_size", z_size, 1, 65536)
        self.channels = checked_integer("channels", channels, 1, 64)
        self.classes = checked_classes(classes)
        widths = halving_widths(self.size, width, max_width)[::-1]  # from 4 px to the image's size
        # The gain of the first layer is a quarter of He's: a 4 × 4 map is laid out by it, in the paper's code.
        self.first = EqualisedLinear(self.z_size + len(self.classes), widths[0] * 16, gain=_GAIN / 4.0)
        self.first_convolution = EqualisedConv2d(widths[0], widths[0], 3, gain=_GAIN)
        self.blocks = nn.ModuleList(_UpBlock(a, b) for a, b in itertools.pairwise(widths))
        self.to_images = nn.ModuleList(EqualisedConv2d(w, self.channels, 1) for w in widths)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        stage, alpha = self.stage_and_alpha()
        z = pixel_norm(z)
        if label is not None:
            z = torch.cat([z, one_hot(label, len(self.classes)).to(z.dtype)], dim=1)
        x = _normalised(self.first(z).unflatten(1, (-1, 4, 4)))  # [N, width, 4, 4]
        x = _normalised(self.first_convolution(x))
        before = x
        for block in self.blocks[:stage]:
            before, x = x, block(x)
        image = self.to_images[stage](x)
        if alpha < 1.0:
            image = alpha * image + (1.0 - alpha) * _enlarged(self.to_images[stage - 1](before), 1)
        return _enlarged(image, self.doublings - stage)  # [N, C, H, W]

    def input_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` takes, in its order, as a generator spec says it."""
        return latent_and_label(self.z_size, self.classes)

    def output_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` gives, in its order, as a generator spec says it."""
        return square_image(self.channels, self.size)


class ProganDiscriminator(Growing):
    """Images [N, channels, size, size], with classes label int64 [N] -> logits float32 [N], positive for "real".

    With classes the logit is the product of the features with a learned vector of the label, over √planes.

    Args:
        group: images whose deviation is compared, at most; 0 leaves it out, and each image is judged alone.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        width: int = 32,
        max_width: int = 128,
        group: int = 4,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__(size)
        checked_integer("channels", channels, 1, 64)
        self.group = checked_integer("group", group, 0, 1024)
        self.classes = checked_classes(classes)
        widths = halving_widths(size, width, max_width)[::-1]  # from 4 px to the image's size
        self.from_images = nn.ModuleList(EqualisedConv2d(channels, w, 1, gain=_GAIN) for w in widths)
        self.blocks = nn.ModuleList(_DownBlock(b, a) for a, b in itertools.pairwise(widths))
        self.last_convolution = EqualisedConv2d(widths[0] + (self.group > 0), widths[0], 3, gain=_GAIN)
        self.hidden = EqualisedLinear(widths[0] * 16, widths[0], gain=_GAIN)
        self.last = EqualisedLinear(widths[0], widths[0] if self.classes else 1)
        if self.classes:
            self.embedding = nn.Embedding(len(self.classes), widths[0])

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        stage, alpha = self.stage_and_alpha()
        images = _reduced(images, self.doublings - stage)  # [N, C, 4 · 2^stage, …]
        x = _activated(self.from_images[stage](images))
        for i in reversed(range(stage)):
            x = self.blocks[i](x)
            if i == stage - 1 and alpha < 1.0:
                x = alpha * x + (1.0 - alpha) * _activated(self.from_images[i](_reduced(images, 1)))
        if self.group:
            x = minibatch_deviation(x, self.group)
        x = _activated(self.hidden(_activated(self.last_convolution(x)).flatten(1)))  # [N, width]
        features: Tensor = self.last(x)  # [N, 1 or width]
        if label is None:
            return features.squeeze(1)  # [N]
        projected: Tensor = (features * self.embedding(label)).sum(1) / math.sqrt(features.shape[1])  # [N]
        return projected


class _UpBlock(nn.Module):
    """[N, inputs, H, W] -> [N, outputs, 2 H, 2 W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution_1 = EqualisedConv2d(inputs, outputs, 3, gain=_GAIN)
        self.convolution_2 = EqualisedConv2d(outputs, outputs, 3, gain=_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        x = _normalised(self.convolution_1(_enlarged(x, 1)))
        return _normalised(self.convolution_2(x))


class _DownBlock(nn.Module):
    """[N, inputs, H, W] -> [N, outputs, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution_1 = EqualisedConv2d(inputs, inputs, 3, gain=_GAIN)
        self.convolution_2 = EqualisedConv2d(inputs, outputs, 3, gain=_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        return _reduced(_activated(self.convolution_2(_activated(self.convolution_1(x)))), 1)


def _activated(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, LEAK)


def _normalised(x: Tensor) -> Tensor:
    return pixel_norm(_activated(x))


def _enlarged(x: Tensor, doublings: int) -> Tensor:
    """[N, C, H, W] -> [N, C, 2^doublings · H, …], each value repeated."""
    return x if doublings == 0 else functional.interpolate(x, scale_factor=float(2**doublings), mode="nearest")


def _reduced(x: Tensor, halvings: int) -> Tensor:
    """[N, C, H, W] -> [N, C, H / 2^halvings, …], the mean of each square."""
    return x if halvings == 0 else functional.avg_pool2d(x, 2**halvings)
