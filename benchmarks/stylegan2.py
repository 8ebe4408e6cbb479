"""StyleGAN2's generator as it is published, with random weights: weights per sample, the batch in the groups.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020: the skip architecture, modulation and
demodulation of the weights, constant noise, resampling with the filter [1, 3, 3, 1] by zero insertion and a depthwise
convolution, as the reference implementations without CUDA extensions do it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec

_LATENT = 512
_CLAMP = 256.0


class StyleGAN2(nn.Module):
    """z float32 [N, 512] -> float32 [N, 3, size, size], about [-1, 1].

    Args:
        size: a power of two from 8 on.
        channel_base, channel_max: a layer of R × R pixels has min(channel_base // R, channel_max) channels.
        mapping_layers: of the mapping network.
    """

    def __init__(self, size: int, channel_base: int, channel_max: int = 512, mapping_layers: int = 8) -> None:
        super().__init__()
        self.mapping = nn.ModuleList([_Dense(_LATENT, _LATENT, rate=0.01) for _ in range(mapping_layers)])
        widths = {r: min(channel_base // r, channel_max) for r in _resolutions(size)}
        self.constant = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.layers, self.to_image = nn.ModuleList(), nn.ModuleList()
        previous = widths[4]
        for resolution, width in widths.items():
            if resolution > 4:
                self.layers.append(_StyledLayer(previous, width, resolution, up=True))
            self.layers.append(_StyledLayer(width, width, resolution))
            self.to_image.append(_ToImage(width))
            previous = width
        self.register_buffer("filter", _filter())

    def scaled(self) -> StyleGAN2:
        """Itself, its modulated convolutions now in the scaled form: the same function, in one convolution with one
        weight for the whole batch. Nobody publishes it so; it is the best that `torch.compile` can be given."""
        for module in self.modules():
            if isinstance(module, _ModulatedConv):
                module.is_scaled = True
        return self

    def forward(self, z: Tensor) -> Tensor:
        w = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for dense in self.mapping:
            w = functional.leaky_relu(dense(w), 0.2) * 2**0.5
        x = self.constant.unsqueeze(0).repeat(z.shape[0], 1, 1, 1)  # [N, C, 4, 4]
        layers = iter(self.layers)
        x = next(layers)(x, w)
        image = self.to_image[0](x, w)
        for to_image in self.to_image[1:]:
            x = next(layers)(x, w)
            x = next(layers)(x, w)
            image = _upsampled(image, self.filter) + to_image(x, w)
        return image


class _Dense(nn.Module):
    """A dense layer with equalised learning rate."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.weight_gain, self.bias_gain = rate / inputs**0.5, rate

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


class _ModulatedConv(nn.Module):
    """A convolution whose weight is scaled by a style per sample: the batch as groups of one convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, demodulate: bool = True, up: bool = False) -> None:
        super().__init__()
        self.inputs, self.outputs, self.kernel = inputs, outputs, kernel
        self.demodulate, self.up = demodulate, up
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.gain = (inputs * kernel**2) ** -0.5
        self.style = _Dense(_LATENT, inputs, bias=1.0)
        self.register_buffer("filter", _filter())
        self.is_scaled = False

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self._scaled(x, w) if self.is_scaled else self._grouped(x, w)

    def _scaled(self, x: Tensor, w: Tensor) -> Tensor:
        weight, style = self.weight[0] * self.gain, self.style(w)
        x = x * style[:, :, None, None]
        if self.up:
            y = functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            y = _filtered(functional.pad(y, [1, 1, 1, 1]), self.filter * 4)
        else:
            y = functional.conv2d(x, weight, padding=self.kernel // 2)
        if self.demodulate:
            y = y * (style.square() @ weight.square().sum(dim=[2, 3]).t() + 1e-8).rsqrt()[:, :, None, None]
        return y

    def _grouped(self, x: Tensor, w: Tensor) -> Tensor:
        batch, k = x.shape[0], self.kernel
        weight = self.weight * self.gain * self.style(w).view(batch, 1, self.inputs, 1, 1)  # [N, O, I, k, k]
        if self.demodulate:
            weight = weight * (weight.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt().view(batch, self.outputs, 1, 1, 1)
        x = x.reshape(1, batch * self.inputs, x.shape[2], x.shape[3])
        if self.up:
            weight = weight.transpose(1, 2).reshape(batch * self.inputs, self.outputs, k, k)
            y = functional.conv_transpose2d(x, weight, stride=2, groups=batch)
            y = y.view(batch, self.outputs, y.shape[2], y.shape[3])
            return _filtered(functional.pad(y, [1, 1, 1, 1]), self.filter * 4)
        weight = weight.view(batch * self.outputs, self.inputs, k, k)
        y = functional.conv2d(x, weight, padding=k // 2, groups=batch)
        return y.view(batch, self.outputs, y.shape[2], y.shape[3])


class _StyledLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int, resolution: int, *, up: bool = False) -> None:
        super().__init__()
        self.convolution = _ModulatedConv(inputs, outputs, 3, up=up)
        self.register_buffer("noise", torch.randn(resolution, resolution))
        self.strength = nn.Parameter(torch.tensor(0.1))
        self.bias = nn.Parameter(0.1 * torch.randn(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        y = self.convolution(x, w) + self.noise * self.strength
        y = functional.leaky_relu(y + self.bias.view(1, -1, 1, 1), 0.2) * 2**0.5
        return y.clamp(-_CLAMP, _CLAMP)


class _ToImage(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.convolution = _ModulatedConv(inputs, 3, 1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        # A sixth: with random weights the images of all resolutions then add up to about [-1, 1].
        return (self.convolution(x, w) / 6 + self.bias.view(1, -1, 1, 1)).clamp(-_CLAMP, _CLAMP)


def _resolutions(size: int) -> list[int]:
    return [2**i for i in range(2, size.bit_length())]


def _filter() -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    return torch.outer(taps, taps) / taps.sum() ** 2  # [4, 4], of sum 1


def _filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel convolved with one kernel: [N, C, H, W] -> [N, C, H - 3, W - 3]."""
    channels = x.shape[1]
    return functional.conv2d(x, kernel.expand(channels, 1, *kernel.shape), groups=channels)


def _upsampled(x: Tensor, kernel: Tensor) -> Tensor:
    """Twice the height and width: zeros between the pixels, and the filter over them."""
    batch, channels, height, width = x.shape
    x = functional.pad(x.reshape(batch, channels, height, 1, width, 1), [0, 1, 0, 0, 0, 1])
    x = functional.pad(x.reshape(batch, channels, 2 * height, 2 * width), [2, 1, 2, 1])
    return _filtered(x, kernel * 4)


def stylegan2(size: int, channel_base: int, seed: int = 0) -> tuple[nn.Module, GeneratorSpec]:
    """A generator in eval mode with random weights, and its spec."""
    torch.manual_seed(seed)
    module = StyleGAN2(size, channel_base).eval()
    image = TensorSpec("image", "float32", (3, size, size), Image())
    return module, GeneratorSpec(f"stylegan2-{size}", (TensorSpec("z", "float32", (_LATENT,), Latent()),), (image,))
