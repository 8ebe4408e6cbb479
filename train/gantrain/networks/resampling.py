"""Twice and half the height and width, with the binomial filter [1, 3, 3, 1] on both axes.

Up, that filter is bilinear interpolation; down, its adjoint. Zhang, "Making Convolutional Networks Shift-Invariant
Again", 2019 (arXiv:1904.11486); Karras et al., 2020 (arXiv:1912.04958), whose `upfirdn2d` this is in plain operations.
The kernels are constants, so that gradients of gradients are convolutions again.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def upsampled(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2 H, 2 W], bilinear; values beyond the border are those at the border."""
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Binomial(nn.Module):
    """Blurs [N, C, H, W] with [1, 3, 3, 1] on both axes, zeros beyond the border.

    Args:
        stride: 1 or 2.
        padding: zeros on each side: H becomes (H + 2 padding - 4) / stride + 1.
        gain: the sum of the kernel.
    """

    kernel: Tensor

    def __init__(self, stride: int = 1, padding: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
        self.register_buffer("kernel", gain * taps[:, None] * taps[None, :])  # [4, 4]

    def forward(self, x: Tensor) -> Tensor:
        planes = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(planes, 1, 4, 4)
        return functional.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=planes)


def downsampling() -> Binomial:
    """[N, C, H, W] -> [N, C, H / 2, W / 2]."""
    return Binomial(stride=2, padding=1)
