"""Parts of networks that know about classes: conditional batch normalisation, projection, concatenation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """x [N, C, H, W], label int64 [N] -> [N, C, H, W]: batch normalisation with a gain and a bias for each class.

    Dumoulin, Shlens and Kudlur, "A Learned Representation For Artistic Style", 2017 (arXiv:1610.07629); in GANs since
    Miyato and Koyama, 2018 (arXiv:1802.05637). Gains start at 1 and biases at 0.
    """

    def __init__(self, planes: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(planes, affine=False)
        self.gain = nn.Embedding(classes, planes)
        self.bias = nn.Embedding(classes, planes)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        gain, bias = self.gain(label)[:, :, None, None], self.bias(label)[:, :, None, None]  # [N, C, 1, 1]
        normalised: Tensor = self.norm(x) * gain + bias
        return normalised


def one_hot(label: Tensor, classes: int) -> Tensor:
    """label int64 [N] -> float32 [N, classes]; a comparison, which any graph has."""
    return (label[:, None] == torch.arange(classes, device=label.device)).to(torch.float32)


def one_hot_planes(label: Tensor, classes: int, like: Tensor) -> Tensor:
    """label int64 [N] -> float32 [N, classes, H, W] of ones and zeros, of the height and width of `like`."""
    hot = one_hot(label, classes).to(like.dtype)
    return hot[:, :, None, None].expand(-1, -1, like.shape[2], like.shape[3])
