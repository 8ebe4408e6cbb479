"""Equalised learning rate and its companions: Karras, Aila, Laine and Lehtinen, "Progressive Growing of GANs for
Improved Quality, Stability, and Variation", 2018 (arXiv:1710.10196), sections 4.1 and 4.2.

Weights are kept as N(0, 1) and multiplied by He's constant when they are used, so that Adam's steps are equally large
relative to every layer. In a graph the product is a constant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAK = 0.2
ACTIVATION_GAIN = math.sqrt(2.0)  # StyleGAN2 puts He's gain behind the LeakyReLU, not into the weights


class EqualisedLinear(nn.Module):
    """[N, inputs] -> [N, outputs].

    Args:
        bias: where the biases start; None for none.
        lr_multiplier: the layer learns so much faster than the others; its weights are kept divided by it.
        gain: of the weights, over √inputs.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: float | None = 0.0, lr_multiplier: float = 1.0, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.weight_scale, self.bias_scale = gain * lr_multiplier / math.sqrt(inputs), lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias if self.bias is None or self.bias_scale == 1.0 else self.bias * self.bias_scale
        return functional.linear(x, self.weight * self.weight_scale, bias)


class EqualisedConv2d(nn.Module):
    """[N, inputs, H, W] -> [N, outputs, H', W'], weights over √(inputs · kernel²) times `gain`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs * kernel * kernel)
        self.stride, self.padding = stride, kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


def pixel_norm(x: Tensor) -> Tensor:
    """[N, C, …] -> the same with mean square 1 over the C values of each place."""
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def activated(x: Tensor) -> Tensor:
    """LeakyReLU of 0.2, times √2."""
    return functional.leaky_relu(x, LEAK) * ACTIVATION_GAIN


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """[N, C, H, W] -> [N, C + 1, H, W]: one more plane, how much the images of a group differ, the same everywhere.

    The standard deviation over each group at every place and plane, averaged (section 3 of the paper; groups are
    StyleGAN2's). Groups are of the largest divisor of N that is at most `group`, so that no batch is left over.
    """
    n = x.shape[0]
    members = max(d for d in range(1, min(group, n) + 1) if n % d == 0)
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # differences of nearly equal numbers
    grouped = wide.reshape(members, n // members, *x.shape[1:])  # [members, groups, C, H, W]
    variance = (grouped - grouped.mean(0)).square().mean(0)  # [groups, C, H, W]
    deviation = (variance + 1e-8).sqrt().mean((1, 2, 3))  # [groups]
    plane = deviation.repeat(members)[:, None, None, None].expand(-1, 1, x.shape[2], x.shape[3])
    return torch.cat([x, plane.to(x.dtype)], dim=1)
