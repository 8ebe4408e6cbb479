"""DCGAN: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", 2015 (arXiv:1511.06434).

For any power of two from 16 to 128 pixels. `width` is the number of feature planes at half the image's size; each
halving of the resolution doubles it, up to `max_width`. width 64, max_width 512 and size 64 are the paper's network.

With `classes` both networks are conditional. A label's one-hot vector joins z, and in the discriminator one plane a
class, of ones or of zeros, joins the image (Mirza and Osindero, "Conditional Generative Adversarial Nets", 2014,
arXiv:1411.1784); or its features are projected onto a learned vector of the label, as in `resnet`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as with_spectral_norm

from ganruntime.errors import InputError
from ganruntime.spec import TensorSpec
from gantrain.networks import checked_integer
from gantrain.networks.checks import (
    checked_choice,
    checked_classes,
    checked_flag,
    latent_and_label,
    require_label,
    square_image,
)
from gantrain.networks.conditional import one_hot, one_hot_planes

SIZES = (16, 32, 64, 128)
CONDITIONINGS = ("concatenation", "projection")
LEAK = 0.2
INITIAL_STD = 0.02  # the paper's section 4: weights from N(0, 0.02²)


class DcganGenerator(nn.Module):
    """z float32 [N, z_size] ~ N(0, 1), with classes label int64 [N] -> images [N, channels, size, size] in [-1, 1].

    Transposed convolutions with batch normalisation and ReLU, tanh at the end.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        z_size: int = 100,
        size: int = 32,
        channels: int = 1,
        width: int = 32,
        max_width: int = 512,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.classes = checked_classes(classes)
        self.z_size = checked_integer("z_size", z_size, 1, 65536)
        self.size = _checked_size(size)
        self.channels = checked_integer("channels", channels, 1, 64)
        widths = _widths(self.size, width, max_width)[::-1]  # from 4 px to size / 2
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(self.z_size + len(self.classes), widths[0], 4, bias=False),  # [N, widths[0], 4, 4]
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(fan_in, fan_out, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(fan_out),
                nn.ReLU(),
            ]
        layers += [nn.ConvTranspose2d(widths[-1], self.channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        _initialise(self)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        if label is not None:
            z = torch.cat([z, one_hot(label, len(self.classes)).to(z.dtype)], dim=1)  # [N, z_size + classes]
        images: Tensor = self.layers(z[:, :, None, None])  # [N, C, H, W]
        return images

    def input_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` takes, in its order, as a generator spec says it."""
        return latent_and_label(self.z_size, self.classes)

    def output_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` gives, in its order, as a generator spec says it."""
        return square_image(self.channels, self.size)


class DcganDiscriminator(nn.Module):
    """Images [N, channels, size, size], with classes label int64 [N] -> logits float32 [N], positive for "real".

    Strided convolutions with LeakyReLU.

    Args:
        batch_norm: batch normalisation after every convolution but the first and the last, as in the paper.
        spectral_norm: spectral normalisation of every convolution and of the projection (Miyato et al., 2018,
            arXiv:1802.05957).
        conditioning: `concatenation`, or `projection` (Miyato and Koyama, "cGANs with Projection Discriminator", 2018,
            arXiv:1802.05637): the inner product of the last features with a learned vector of the label is added to
            the logit. The paper sums the features over all places before; here each place keeps its own, since where
            a thing is tells a class as well.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 1,
        width: int = 32,
        max_width: int = 512,
        batch_norm: bool = True,
        spectral_norm: bool = False,
        classes: Sequence[str] = (),
        conditioning: str = "concatenation",
    ) -> None:
        super().__init__()
        size = _checked_size(size)
        checked_integer("channels", channels, 1, 64)
        batch_norm = checked_flag("batch_norm", batch_norm)
        self.classes = checked_classes(classes)
        widths = _widths(size, width, max_width)  # from size / 2 to 4 px
        self.projects = checked_choice("conditioning", conditioning, CONDITIONINGS) == "projection"
        planes = channels if self.projects else channels + len(self.classes)
        layers: list[nn.Module] = [nn.Conv2d(planes, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
        for fan_in, fan_out in itertools.pairwise(widths):
            layers.append(nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(fan_out))
            layers.append(nn.LeakyReLU(LEAK))
        layers += [nn.Conv2d(widths[-1], 1, 4), nn.Flatten(0)]
        self.layers = nn.Sequential(*layers)
        if self.projects and self.classes:
            self.projection = nn.Embedding(len(self.classes), widths[-1] * 16)
        _initialise(self)
        if checked_flag("spectral_norm", spectral_norm):
            for layer in list(self.modules()):
                if isinstance(layer, (nn.Conv2d, nn.Embedding)):
                    with_spectral_norm(layer)

    def forward(self, images: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        logits: Tensor
        if label is not None and self.projects:
            features = self.layers[:-2](images)  # [N, C, 4, 4]
            logits = self.layers[-2:](features) + (self.projection(label) * features.flatten(1)).sum(1)
            return logits
        if label is not None:
            images = torch.cat([images, one_hot_planes(label, len(self.classes), images)], dim=1)
        logits = self.layers(images)  # [N]
        return logits


def _checked_size(size: object) -> int:
    if size not in SIZES or isinstance(size, bool) or not isinstance(size, int):
        raise InputError(
            "size is not one that a DCGAN draws", got=repr(size), expected=", ".join(str(s) for s in SIZES)
        )
    return size


def _widths(size: int, width: int, max_width: int) -> list[int]:
    """Feature planes at size / 2, size / 4, … 4 pixels."""
    checked_integer("width", width, 1, 4096)
    checked_integer("max_width", max_width, width, 8192)
    halvings = (size // 4).bit_length() - 1
    return [min(width << i, max_width) for i in range(halvings)]


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)):
            nn.init.normal_(module.weight, 0.0, INITIAL_STD)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, INITIAL_STD)
            nn.init.zeros_(module.bias)
