"""Small generators of the usual kinds, written the way research code writes them: what the passes have to cope with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec

LATENT = 16


def spec_of(channels: int, size: int, name: str = "usual") -> GeneratorSpec:
    z = TensorSpec("z", "float32", (LATENT,), Latent())
    return GeneratorSpec(name, (z,), (TensorSpec("image", "float32", (channels, size, size), Image()),))


class SpectralBlock(nn.Module):
    """A residual block of SNGAN's generator: BatchNorm, ReLU, upsampling, two convolutions, a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.first_norm, self.second_norm = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.first = spectral(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = spectral(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        self.shortcut = spectral(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2] * 2, x.shape[3] * 2
        y = functional.interpolate(functional.relu(self.first_norm(x)), size=(height, width), mode="nearest")
        y = self.second(functional.relu(self.second_norm(self.first(y))))
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return y + self.shortcut(x)


class Residual(nn.Module):
    """SNGAN's generator, small: z [N, 16] -> [N, 3, 16, 16]."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.channels = channels
        self.dense = nn.utils.parametrizations.spectral_norm(nn.Linear(LATENT, channels * 16))
        self.blocks = nn.Sequential(SpectralBlock(channels), SpectralBlock(channels))
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.3)
        self.out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.dense(z).view(z.size(0), self.channels, 4, 4)
        x = self.dropout(functional.relu(self.norm(self.blocks(x))))
        return torch.tanh(self.out(x))


class Styled(nn.Module):
    """StyleGAN2's layers, small, in the scaled form: mapping, equalised learning rates, demodulation, skips."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.mapping = nn.ParameterList([nn.Parameter(torch.randn(LATENT, LATENT) / 0.01) for _ in range(2)])
        self.constant = nn.Parameter(torch.randn(1, channels, 4, 4))
        self.affine = nn.ModuleList([nn.Linear(LATENT, channels) for _ in range(3)])
        self.kernels = nn.ParameterList([nn.Parameter(torch.randn(channels, channels, 3, 3)) for _ in range(3)])
        self.biases = nn.ParameterList([nn.Parameter(torch.randn(channels)) for _ in range(3)])
        self.to_image = nn.ModuleList([nn.Conv2d(channels, 3, 1) for _ in range(3)])
        self.gain = 1.0 / (channels * 9) ** 0.5

    def forward(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for weight in self.mapping:
            w = functional.leaky_relu(functional.linear(w, weight * (0.01 / LATENT**0.5)), 0.2) * 2**0.5
        x = self.constant.repeat(z.shape[0], 1, 1, 1)
        image = None
        for i, (affine, kernel, bias, to_image) in enumerate(
            zip(self.affine, self.kernels, self.biases, self.to_image, strict=True)
        ):
            style = affine(w) + 1.0  # [N, C]
            weight = kernel * self.gain
            demodulation = torch.rsqrt(style.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8)
            if i:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = functional.conv2d(x * style[:, :, None, None], weight, padding=1) * demodulation[:, :, None, None]
            x = torch.clamp(functional.leaky_relu(x + bias[None, :, None, None], 0.2) * 2**0.5, -256, 256)
            new = to_image(x)
            if image is not None:
                image = functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
            image = new if image is None else image + new
        assert image is not None
        return torch.clamp(image * 0.1, -1, 1)


class Attentive(nn.Module):
    """SAGAN's self-attention between convolutions, with shapes read off tensors: z [N, 16] -> [N, 1, 8, 8]."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.dense = nn.Linear(LATENT, channels * 16)
        self.query, self.key = nn.Conv2d(channels, 2, 1), nn.Conv2d(channels, 2, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.tensor(0.7))
        self.up = nn.ConvTranspose2d(channels, 1, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.dense(z).reshape(z.shape[0], -1, 4, 4)
        n, c, h, w = x.shape
        query = self.query(x).view(n, -1, h * w).permute(0, 2, 1)
        key = self.key(x).view(n, -1, h * w)
        attention = torch.softmax(torch.bmm(query, key), dim=-1)  # [N, HW, HW]
        value = self.value(x).view(n, c, h * w)
        x = x + self.gamma * torch.bmm(value, attention.permute(0, 2, 1)).view(n, c, h, w)
        return torch.tanh(self.up(functional.relu(x)))


NETWORKS: dict[str, tuple[type[nn.Module], GeneratorSpec]] = {
    "residual": (Residual, spec_of(3, 16, "residual")),
    "styled": (Styled, spec_of(3, 16, "styled")),
    "attentive": (Attentive, spec_of(1, 8, "attentive")),
}


def trained_a_little(name: str, seed: int = 0) -> tuple[nn.Module, GeneratorSpec]:
    """A network after a few passes in train mode, so that no statistic is trivial, and its spec."""
    kind, spec = NETWORKS[name]
    torch.manual_seed(seed)
    network = kind()
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.randn(16, LATENT) + 0.3)
    return network.eval(), spec
