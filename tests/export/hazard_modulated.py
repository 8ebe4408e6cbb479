"""Modulated convolution as it is published: weights per sample, the batch in the groups."""

from __future__ import annotations

import odd_networks as odd
import torch
from torch import Tensor, nn
from torch.nn import functional

STYLE = odd.LATENT


class ModulatedConv(nn.Module):
    """As in most reimplementations of StyleGAN2. up: a transposed convolution of stride 2, as before its blur."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, demodulate: bool = True, up: bool = False, dims: int = 2
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.kernel = inputs, outputs, (kernel,) * dims
        self.demodulate, self.up = demodulate, up
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, *self.kernel))
        self.scale = (inputs * kernel**dims) ** -0.5  # equalised learning rate (Karras et al., 2017)
        self.style = nn.Linear(STYLE, inputs)
        nn.init.ones_(self.style.bias)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch, ones = x.shape[0], [1] * len(self.kernel)
        style = self.style(w).view(batch, 1, self.inputs, *ones)
        weight = self.scale * self.weight * style  # [N, O, I, *k]
        if self.demodulate:
            demodulation = torch.rsqrt(weight.pow(2).sum([*range(2, weight.ndim)]) + 1e-8)
            weight = weight * demodulation.view(batch, self.outputs, 1, *ones)
        x = x.reshape(1, batch * self.inputs, *x.shape[2:])
        if self.up:
            weight = weight.transpose(1, 2).reshape(batch * self.inputs, self.outputs, *self.kernel)
            convolve = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
            y = convolve[len(ones)](x, weight, stride=2, groups=batch)
        else:
            weight = weight.view(batch * self.outputs, self.inputs, *self.kernel)
            plain = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
            y = plain[len(ones)](x, weight, padding=self.kernel[0] // 2, groups=batch)
        return y.view(batch, self.outputs, *y.shape[2:])


class AdaConv(nn.Module):
    """As in StyleGAN2-ADA: `square`, weights by flat reshapes, a flipped kernel, a bias per sample."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.affine = nn.Linear(STYLE, inputs)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch = x.shape[0]
        styles = self.affine(w) + 1.0
        weight = self.weight.unsqueeze(0) * styles.reshape(batch, 1, -1, 1, 1)
        coefficients = (weight.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt()
        weight = weight * coefficients.reshape(batch, -1, 1, 1, 1)
        weight = weight.reshape(-1, self.inputs, 3, 3).flip([2, 3])
        bias = self.bias.repeat(batch)
        y = functional.conv2d(x.reshape(1, -1, *x.shape[2:]), weight, bias, padding=1, groups=batch)
        return y.reshape(batch, -1, *y.shape[2:])


class DividedConv(nn.Module):
    """Demodulation as a division, with keepdim, and a gain per sample of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.style = nn.Linear(STYLE, inputs)
        self.gain = nn.Linear(STYLE, 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch = x.shape[0]
        weight = self.weight * (1 + self.style(w))[:, None, :, None, None]
        weight = weight / torch.sqrt((weight * weight).sum((2, 3, 4), keepdim=True) + 1e-8)
        weight = self.gain(w).view(-1, 1, 1, 1, 1) * weight
        x = x.flatten(0, 1)[None]
        y = functional.conv2d(x, weight.flatten(0, 1), padding="same", groups=batch)
        return y.unflatten(1, (batch, self.outputs)).squeeze(0)


class AddedConv(nn.Module):
    """A style that is added to the weight: not the scaled form of anything."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 4, 4, 3, 3))
        self.style = nn.Linear(STYLE, 4)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch = x.shape[0]
        weight = (self.weight + self.style(w)[:, None, :, None, None]).view(batch * 4, 4, 3, 3)
        y = functional.conv2d(x.view(1, batch * 4, *x.shape[2:]), weight, padding=1, groups=batch)
        return y.view(batch, 4, *y.shape[2:])


class HyperConv(AddedConv):
    """A whole kernel per sample from a hypernetwork."""

    def __init__(self) -> None:
        super().__init__()
        self.style = nn.Linear(STYLE, 4 * 4 * 9)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch = x.shape[0]
        weight = self.weight * self.style(w).view(batch, 4, 4, 3, 3)
        y = functional.conv2d(x.view(1, -1, *x.shape[2:]), weight.view(-1, 4, 3, 3), padding=1, groups=batch)
        return y.view(batch, 4, *y.shape[2:])


class IntegerBatchConv(ModulatedConv):
    """`int(batch)`, as StyleGAN2-ADA writes it: the trace holds a number from there on."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch = int(x.shape[0])
        weight = (self.weight * self.style(w).view(batch, 1, -1, 1, 1)).view(-1, self.inputs, *self.kernel)
        y = functional.conv2d(x.reshape(1, -1, *x.shape[2:]), weight, padding=1, groups=batch)
        return y.view(batch, self.outputs, *y.shape[2:])


class Synthesis(nn.Module):
    """A constant, modulated layers, and an image [N, outputs, *size]."""

    def __init__(self, *layers: nn.Module, channels: int = 4, dims: int = 2) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, channels, *[4] * dims))
        self.layers = nn.ModuleList(layers)

    def forward(self, z: Tensor) -> Tensor:
        x = self.constant.repeat(z.shape[0], *[1] * (self.constant.ndim - 1))
        for layer in self.layers:
            x = functional.leaky_relu(layer(x, z), 0.2)
        return x
