"""StyleGAN2's discriminator: residual blocks and the deviation within a minibatch (Karras et al., 2020,
arXiv:1912.04958, section 4 and configuration F). Labels by projection, as StyleGAN2-ADA has them (arXiv:2006.06676).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from gantrain.networks import checked_integer
from gantrain.networks.checks import checked_classes, checked_size, halving_widths, require_label
from gantrain.networks.equalised import EqualisedConv2d, EqualisedLinear, activated, minibatch_deviation
from gantrain.networks.resampling import Binomial, downsampling


class Stylegan2Discriminator(nn.Module):
    """Images [N, channels, size, size], with classes label int64 [N] -> logits float32 [N], positive for "real".

    Any power of two from 8 to 1024 pixels; `width` is the number of planes at the image's size, and doubles at each
    halving up to `max_width`.

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
        super().__init__()
        size = checked_size(size, 8)
        checked_integer("channels", channels, 1, 64)
        self.group = checked_integer("group", group, 0, 1024)
        self.classes = checked_classes(classes)
        widths = halving_widths(size, width, max_width)  # from the image's size to 4 px
        self.first = EqualisedConv2d(channels, widths[0], 1)
        self.blocks = nn.Sequential(*(_ResidualBlock(a, b) for a, b in itertools.pairwise(widths)))
        last = widths[-1]
        self.last_convolution = EqualisedConv2d(last + (self.group > 0), last, 3)
        self.hidden = EqualisedLinear(last * 16, last)
        self.last = EqualisedLinear(last, last if self.classes else 1)
        if self.classes:
            self.embedding = nn.Embedding(len(self.classes), last)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        x = self.blocks(activated(self.first(images)))  # [N, width, 4, 4]
        if self.group:
            x = minibatch_deviation(x, self.group)
        x = activated(self.hidden(activated(self.last_convolution(x)).flatten(1)))  # [N, width]
        features: Tensor = self.last(x)  # [N, 1 or width]
        if label is None:
            return features.squeeze(1)  # [N]
        projected: Tensor = (features * self.embedding(label)).sum(1) / math.sqrt(features.shape[1])  # [N]
        return projected


class _ResidualBlock(nn.Module):
    """[N, inputs, H, W] -> [N, outputs, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution_1 = EqualisedConv2d(inputs, inputs, 3)
        self.blur = Binomial(padding=2)  # one wider and higher, for a convolution of stride 2 without padding
        self.convolution_2 = EqualisedConv2d(inputs, outputs, 3, stride=2, padding=0)
        self.down = downsampling()
        self.shortcut = EqualisedConv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = activated(self.convolution_1(x))
        y = activated(self.convolution_2(self.blur(y)))
        return (y + self.shortcut(self.down(x))) / math.sqrt(2.0)  # type: ignore[no-any-return]
