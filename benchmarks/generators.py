"""Generators with random weights, of the usual kinds and sizes: a time does not depend on what is drawn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec
from gantrain.checkpoint import spec_from_generator
from gantrain.networks import NetworkRecord, network_from_record


class Block(nn.Module):
    """A residual block of SNGAN's generator (Miyato et al., 2018), spectral norm on every weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.first_norm, self.second_norm = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.first = spectral(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = spectral(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = spectral(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.interpolate(functional.relu(self.first_norm(x)), scale_factor=2, mode="nearest")
        y = self.second(functional.relu(self.second_norm(self.first(y))))
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        return y + self.shortcut(x)


class Residual(nn.Module):
    """SNGAN's generator: z [N, 128] -> [N, 3, 32, 32]."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.channels = channels
        self.dense = nn.utils.parametrizations.spectral_norm(nn.Linear(128, channels * 16))
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(3)))
        self.norm = nn.BatchNorm2d(channels)
        self.out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.blocks(self.dense(z).view(z.size(0), self.channels, 4, 4))
        return torch.tanh(self.out(functional.relu(self.norm(x))))


class Styled(nn.Module):
    """StyleGAN2's layers (Karras et al., 2020) in the scaled form: z [N, 128] -> [N, 3, 32, 32]."""

    def __init__(self, channels: int = 64, latent: int = 128) -> None:
        super().__init__()
        self.latent, self.gain = latent, 1.0 / (channels * 9) ** 0.5
        self.mapping = nn.ParameterList([nn.Parameter(torch.randn(latent, latent) / 0.01) for _ in range(4)])
        self.constant = nn.Parameter(torch.randn(1, channels, 4, 4))
        self.affine = nn.ModuleList([nn.Linear(latent, channels) for _ in range(4)])
        self.kernels = nn.ParameterList([nn.Parameter(torch.randn(channels, channels, 3, 3)) for _ in range(4)])
        self.biases = nn.ParameterList([nn.Parameter(torch.randn(channels)) for _ in range(4)])
        self.to_image = nn.ModuleList([nn.Conv2d(channels, 3, 1) for _ in range(4)])

    def forward(self, z: Tensor) -> Tensor:
        w = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for weight in self.mapping:
            w = functional.leaky_relu(functional.linear(w, weight * (0.01 / self.latent**0.5)), 0.2) * 2**0.5
        x, image = self.constant.repeat(z.shape[0], 1, 1, 1), None
        for i in range(len(self.kernels)):
            style, weight = self.affine[i](w) + 1.0, self.kernels[i] * self.gain
            demodulation = torch.rsqrt(style.square() @ weight.square().sum(dim=(2, 3)).t() + 1e-8)  # [N, C]
            if i:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = functional.conv2d(x * style[:, :, None, None], weight, padding=1) * demodulation[:, :, None, None]
            x = functional.leaky_relu(x + self.biases[i][None, :, None, None], 0.2) * 2**0.5
            x = torch.clamp(x, -256, 256)
            drawn = self.to_image[i](x)
            if image is not None:
                image = functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
            image = drawn if image is None else image + drawn
        assert image is not None
        return torch.clamp(image * 0.1, -1, 1)


def _dcgan(size: int, channels: int, width: int) -> tuple[nn.Module, GeneratorSpec]:
    settings = {"z_size": 100, "size": size, "channels": channels, "width": width}
    module = network_from_record(NetworkRecord("dcgan_generator", settings))
    return module, spec_from_generator(module, f"dcgan-{size}")


def _with_latent(module: nn.Module, name: str) -> tuple[nn.Module, GeneratorSpec]:
    image = TensorSpec("image", "float32", (3, 32, 32), Image())
    return module, GeneratorSpec(name, (TensorSpec("z", "float32", (128,), Latent()),), (image,))


GENERATORS: dict[str, Callable[[], tuple[nn.Module, GeneratorSpec]]] = {
    "dcgan-32": lambda: _dcgan(32, 1, 32),
    "dcgan-64": lambda: _dcgan(64, 3, 64),
    "residual-32": lambda: _with_latent(Residual(), "residual-32"),
    "styled-32": lambda: _with_latent(Styled(), "styled-32"),
}


def generator_of(name: str, seed: int = 0) -> tuple[nn.Module, GeneratorSpec]:
    """A network in eval mode whose BatchNorm statistics are those of a few batches, so that folding has work."""
    torch.manual_seed(seed)
    module, spec = GENERATORS[name]()
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(16, spec.inputs[0].size) + 0.3)
    return module.eval(), spec
