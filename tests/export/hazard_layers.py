"""Layers that are known to go wrong on the way to a graph, each in a generator of a few lines."""

from __future__ import annotations

from typing import Any

import odd_networks as odd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations


class Drawn(nn.Module):
    """z [N, 8] -> features [N, 4, 8, 8] -> the layers -> an image."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(odd.LATENT, 4 * 64)
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Any:
        return self.layers(torch.tanh(self.linear(z)).reshape(-1, 4, 8, 8))


def settled(norm: nn.Module) -> nn.Module:
    """A norm whose gain, bias and statistics are not those that it is born with."""
    for name, tensor in [*norm.named_parameters(), *norm.named_buffers()]:
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.uniform_(0.5, 1.5) if "var" in name or "weight" in name else tensor.normal_(0.0, 0.5)
    return norm


class PixelNorm(nn.Module):
    """Progressive GAN's: each pixel's features to unit length."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class EqualisedConv(nn.Module):
    """Equalised learning rate: the weight times a constant, at every forward."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.gain = (2 / (inputs * 9)) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight * self.gain, self.bias, padding=1)


class FadeIn(nn.Module):
    """Progressive GAN's blend of two resolutions, its α a buffer."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.register_buffer("alpha", torch.tensor(alpha))
        self.old, self.new = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        low = functional.interpolate(self.old(functional.avg_pool2d(x, 2)), scale_factor=2.0)
        return torch.lerp(low, self.new(x), self.alpha)


class Truncated(odd.Small):
    """Truncation by lerp towards w_avg, with ψ an input."""

    def __init__(self) -> None:
        super().__init__()
        self.w_avg.normal_()

    def forward(self, z: Tensor, truncation: Tensor) -> Tensor:  # type: ignore[override]
        return self.draw(torch.lerp(self.w_avg.expand_as(z), z, truncation[:, None]))


class Warp(nn.Module):
    """First-order motion: an affine map from a 2×2 inverse, in closed form or torch's, and a grid sample."""

    def __init__(self, inverse: str, mode: str = "bilinear", padding: str = "zeros", align: bool = True) -> None:
        super().__init__()
        self.inverse, self.options = inverse, {"mode": mode, "padding_mode": padding, "align_corners": align}
        self.affine = nn.Linear(64 * 4, 6)
        with torch.no_grad():
            self.affine.weight *= 0.2
            self.affine.bias.copy_(torch.tensor([1.0, 0.2, -0.1, 1.1, 0.1, -0.1]))

    def forward(self, x: Tensor) -> Tensor:
        values = self.affine(x.flatten(1))
        jacobian = values[:, :4].reshape(-1, 2, 2)
        if self.inverse == "closed":
            a, b, c, d = jacobian.flatten(1).unbind(1)
            adjugate = torch.stack([d, -b, -c, a], 1).reshape(-1, 2, 2)
            inverse = adjugate / (a * d - b * c)[:, None, None]
        else:
            inverse = torch.inverse(jacobian)
        theta = torch.cat([inverse, values[:, 4:, None]], 2)  # [N, 2, 3]
        grid = functional.affine_grid(theta, list(x.shape), align_corners=self.options["align_corners"])
        return functional.grid_sample(x, grid, **self.options)


class Coupling(nn.Module):
    """RealNVP's affine coupling, run backwards, as sampling does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(odd.LATENT // 2, 16), nn.Tanh(), nn.Linear(16, odd.LATENT))

    def forward(self, y: Tensor) -> Tensor:
        a, b = y.chunk(2, 1)
        scale, shift = self.net(a).chunk(2, 1)
        return torch.cat([a, (b - shift) * torch.exp(-torch.tanh(scale))], 1)


class InvertibleLinear(nn.Module):
    """Glow's 1×1 convolution on vectors. baked: the inverse is taken once; else at every sample, in float64."""

    def __init__(self, baked: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(odd.LATENT, odd.LATENT))[0])
        self.baked = baked
        self.register_buffer("inverse", torch.inverse(self.weight.detach().double()).float())

    def forward(self, y: Tensor) -> Tensor:
        inverse = self.inverse if self.baked else torch.inverse(self.weight.double()).float()
        return functional.linear(y, inverse)


class Flow(nn.Module):
    def __init__(self, baked: bool) -> None:
        super().__init__()
        self.steps = nn.Sequential(Coupling(), InvertibleLinear(baked), Coupling())

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.steps(z)
        return x


class NumpyActivation(torch.autograd.Function):
    """An extension op: torch sees a call, not what it computes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2.0 * gradient


class ScaledActivation(torch.autograd.Function):
    """A custom function of plain torch: it can be looked into."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.2) * 2**0.5

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Applied(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


class LibraryOp(nn.Module):
    """An op of an extension that is registered with torch, so that it is traced and ONNX has never heard of it."""

    def forward(self, x: Tensor) -> Tensor:
        return bias_act(x)


@torch.library.custom_op("odd::bias_act", mutates_args=())
def bias_act(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2) * 2**0.5


@bias_act.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class OneIsSpecial(odd.Small):
    """Squeezes away a batch of one, and nothing of any other: an example of one image would bake that in."""

    def forward(self, z: Tensor) -> Tensor:
        x = self.linear(z).squeeze()
        return torch.tanh(x).reshape(-1, 1, 4, 4)


def spectral(layer: nn.Module, old: bool) -> nn.Module:
    return nn.utils.spectral_norm(layer) if old else parametrizations.spectral_norm(layer)


def weight_normed(layer: nn.Module, old: bool) -> nn.Module:
    return nn.utils.weight_norm(layer) if old else parametrizations.weight_norm(layer)
