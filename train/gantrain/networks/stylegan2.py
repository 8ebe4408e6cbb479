"""StyleGAN2's generator: Karras, Laine, Aittala, Hellsten, Lehtinen and Aila, "Analyzing and Improving the Image
Quality of StyleGAN", 2020 (arXiv:1912.04958), configuration F with skip connections. Its discriminator has a file of
its own.

z is mapped to w, and w modulates every convolution of the synthesis (`modulated`). The image is a sum over resolutions,
each upsampled onto the next. forward(z, [label,] truncation, *noise) is a pure function of what it is given, in
training too: noise is an input, and the mean of w changes through `update_w_avg` alone.

Any power of two from 8 to 1024 pixels; `width` is the number of planes at the image's size, and doubles at each halving
up to `max_width`. The paper's network for FFHQ has size 1024, width 32, max_width 512, z_size = w_size = 512 and
mapping_layers 8.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ganruntime.errors import InputError
from ganruntime.spec import Noise, Scalar, TensorSpec
from gantrain.networks import checked_integer
from gantrain.networks.checks import (
    checked_choice,
    checked_classes,
    checked_number,
    checked_size,
    halving_widths,
    latent_and_label,
    require_label,
    square_image,
)
from gantrain.networks.equalised import EqualisedLinear, activated, pixel_norm
from gantrain.networks.modulated import ModulatedConv2d
from gantrain.networks.resampling import upsampled

NOISE_MODES = ("input", "constant", "none")


class Stylegan2Generator(nn.Module):
    """z float32 [N, z_size] ~ N(0, 1), with classes label int64 [N], truncation ψ float32 [N], with noise "input"
    noise_0 … float32 [N, 1, h, w] ~ N(0, 1) -> images float32 [N, channels, size, size], about [-1, 1].

    Args:
        mapping_layers: from z to w.
        mapping_lr: the mapping learns so much faster than the rest.
        noise: `input`, one input a layer; `constant`, drawn once and kept with the weights; `none`.

    Raises:
        InputError: a setting is out of range.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_size: int = 64,
        size: int = 32,
        channels: int = 3,
        width: int = 32,
        max_width: int = 128,
        w_size: int = 64,
        mapping_layers: int = 2,
        mapping_lr: float = 0.01,
        noise: str = "input",
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.z_size = checked_integer("z_size", z_size, 1, 65536)
        self.size = checked_size(size, 8)
        self.channels = checked_integer("channels", channels, 1, 64)
        self.w_size = checked_integer("w_size", w_size, 1, 65536)
        self.noise = checked_choice("noise", noise, NOISE_MODES)
        self.classes = checked_classes(classes)
        widths = halving_widths(self.size, width, max_width)[::-1]  # from 4 px to the image's size
        layers = checked_integer("mapping_layers", mapping_layers, 1, 16)
        mapping_lr = checked_number("mapping_lr", mapping_lr, 1e-6, 1.0)
        self.mapping = MappingNetwork(self.z_size, self.w_size, layers, mapping_lr, self.classes)
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        noisy = self.noise != "none"
        convolutions = [ModulatedLayer(widths[0], widths[0], self.w_size, noisy=noisy)]
        for fan_in, fan_out in itertools.pairwise(widths):
            convolutions += [
                ModulatedLayer(fan_in, fan_out, self.w_size, noisy=noisy, up=True),
                ModulatedLayer(fan_out, fan_out, self.w_size, noisy=noisy),
            ]
        self.convolutions = nn.ModuleList(convolutions)
        self.to_images = nn.ModuleList(_ToImage(w, self.channels, self.w_size) for w in widths)
        self.register_buffer("w_avg", torch.zeros(self.w_size))
        if self.noise == "constant":
            for i, side in enumerate(self._sides()):
                self.register_buffer(f"noise_{i}", torch.randn(1, 1, side, side))

    @property
    def style_layers(self) -> int:
        """How many places take a w: every convolution, and the last image layer, which has one of its own."""
        return len(self.convolutions) + 1

    def forward(self, z: Tensor, *given: Tensor) -> Tensor:
        """Takes the inputs of `input_tensors`, in their order: z, [label,] truncation, *noise."""
        names = [t.name for t in self.input_tensors()]
        if len(given) != len(names) - 1:
            raise InputError("the inputs do not fit the network", got=f"{1 + len(given)} tensors", expected=names)
        label, rest = (given[0], given[1:]) if self.classes else (None, given)
        truncation, *noise = rest
        styles = self.styles(self.mapping(z, label), truncation)  # [N, L, w_size]
        return self.synthesis(styles, noise)

    def styles(self, w: Tensor, truncation: Tensor | None = None) -> Tensor:
        """w [N, w_size] -> [N, style_layers, w_size], each w_avg + ψ (w - w_avg) with ψ [N]; None for ψ = 1."""
        if truncation is not None:
            w = self.w_avg + truncation[:, None] * (w - self.w_avg)
        return w[:, None, :].expand(-1, self.style_layers, -1)

    def mixed_styles(self, w_first: Tensor, w_second: Tensor, crossover: Tensor) -> Tensor:
        """Style mixing: w_first [N, w_size] in the layers before `crossover` int64 [N], w_second from there on.

        Crossover 0 is all of the second, `style_layers` all of the first. Returns [N, style_layers, w_size].
        """
        before = torch.arange(self.style_layers, device=crossover.device) < crossover[:, None]  # [N, L]
        return torch.where(before[:, :, None], w_first[:, None, :], w_second[:, None, :])

    def synthesis(self, styles: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
        """styles [N, style_layers, w_size], noise as `noise_tensors` says -> images [N, channels, size, size]."""
        if self.noise == "constant":
            noise = [getattr(self, f"noise_{i}") for i in range(len(self.convolutions))]
        given = list(noise) if self.noise != "none" else [None] * len(self.convolutions)
        x = self.constant.expand(styles.shape[0], -1, -1, -1)  # [N, width, 4, 4]
        x = self.convolutions[0](x, styles[:, 0], given[0])
        image = self.to_images[0](x, styles[:, 1])
        for i, to_image in enumerate(self.to_images[1:]):
            for k in (2 * i + 1, 2 * i + 2):
                x = self.convolutions[k](x, styles[:, k], given[k])
            image = upsampled(image) + to_image(x, styles[:, 2 * i + 3])
        images: Tensor = image  # [N, C, H, W]
        return images

    @torch.no_grad()
    def update_w_avg(self, w: Tensor, decay: float = 0.998) -> None:
        """w_avg = decay · w_avg + (1 - decay) · the mean of w [N, w_size]. Called by the training loop, once a step."""
        self.w_avg.lerp_(w.detach().mean(0), 1.0 - decay)

    def input_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` takes, in its order, as a generator spec says it."""
        truncation = TensorSpec("truncation", "float32", (), Scalar(1.0, (0.0, 1.0)))
        return (*latent_and_label(self.z_size, self.classes), truncation, *self.noise_tensors())

    def noise_tensors(self) -> tuple[TensorSpec, ...]:
        """The noise inputs, a plane for each convolution from 4 px on; none unless `noise` is "input"."""
        if self.noise != "input":
            return ()
        return tuple(TensorSpec(f"noise_{i}", "float32", (1, s, s), Noise()) for i, s in enumerate(self._sides()))

    def output_tensors(self) -> tuple[TensorSpec, ...]:
        """What `forward` gives, in its order, as a generator spec says it."""
        return square_image(self.channels, self.size)

    def _sides(self) -> list[int]:
        """Height and width of each convolution's output."""
        return [4 << (i + 1) // 2 for i in range(len(self.convolutions))]


class MappingNetwork(nn.Module):
    """z [N, z_size], with classes label int64 [N] -> w [N, w_size]; z and the label's vector are normalised first."""

    def __init__(self, z_size: int, w_size: int, layers: int, lr_multiplier: float, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.classes = classes
        self.embedding = nn.Embedding(len(classes), w_size) if classes else None
        inputs = z_size + (w_size if classes else 0)
        self.layers = nn.ModuleList(
            EqualisedLinear(inputs if i == 0 else w_size, w_size, lr_multiplier=lr_multiplier) for i in range(layers)
        )

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        require_label(label, self.classes)
        x = pixel_norm(z)
        if self.embedding is not None and label is not None:
            x = torch.cat([x, pixel_norm(self.embedding(label))], dim=1)
        for layer in self.layers:
            x = activated(layer(x))
        return x


class ModulatedLayer(nn.Module):
    """x [N, inputs, H, W], w [N, w_size], noise [N, 1, H', W'] -> [N, outputs, H', W'], twice the size with `up`."""

    def __init__(self, inputs: int, outputs: int, w_size: int, *, noisy: bool, up: bool = False) -> None:
        super().__init__()
        self.convolution = ModulatedConv2d(inputs, outputs, 3, w_size, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(())) if noisy else None
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        x = self.convolution(x, w)
        if noise is not None and self.noise_strength is not None:
            x = x + noise * self.noise_strength
        return activated(x + self.bias[:, None, None])


class _ToImage(nn.Module):
    """x [N, inputs, H, W], w [N, w_size] -> [N, channels, H, W]: pointwise, without demodulation."""

    def __init__(self, inputs: int, channels: int, w_size: int) -> None:
        super().__init__()
        self.convolution = ModulatedConv2d(inputs, channels, 1, w_size, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.convolution(x, w) + self.bias[:, None, None]  # type: ignore[no-any-return]
