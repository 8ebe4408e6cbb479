"""Image-to-image networks whose heights and widths vary, small, and some in which a size is baked."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganexport.source import Source
from ganruntime.spec import GeneratorSpec, Image, TensorSpec


class UNet(nn.Module):
    """Three levels with skip connections: multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(3, 8, 4, 2, 1)
        self.down2 = nn.Conv2d(8, 16, 4, 2, 1)
        self.down3 = nn.Conv2d(16, 16, 4, 2, 1)
        self.up3 = nn.ConvTranspose2d(16, 16, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(32, 8, 4, 2, 1)
        self.up1 = nn.ConvTranspose2d(16, 3, 4, 2, 1)

    def forward(self, photo: Tensor) -> Tensor:
        a = functional.leaky_relu(self.down1(photo), 0.2)
        b = functional.leaky_relu(self.down2(a), 0.2)
        x = functional.relu(self.up3(functional.leaky_relu(self.down3(b), 0.2)))
        x = functional.relu(self.up2(torch.cat([x, b], 1)))
        return torch.tanh(self.up1(torch.cat([x, a], 1)))


class SuperResolution(nn.Module):
    """Fully convolutional, twice the size: any size."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 16, 3, padding=1)
        self.shuffled = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, photo: Tensor) -> Tensor:
        fine = functional.pixel_shuffle(self.shuffled(functional.relu(self.features(photo))), 2)
        smooth = functional.interpolate(photo, scale_factor=2, mode="bilinear", align_corners=False)
        return torch.tanh(fine + smooth)


class StyleTransfer(nn.Module):
    """Reflection padding, InstanceNorm, a stride and its upsampling: even sizes from 6 on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(4),
            nn.Conv2d(3, 8, 9),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.InstanceNorm2d(16, affine=True),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(16, 3, 3, padding=1),
        )

    def forward(self, photo: Tensor) -> Tensor:
        return torch.tanh(self.layers(photo))


class Unpadded(nn.Module):
    """Convolutions that take something away: half the size, less 3."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 5), nn.Conv2d(8, 3, 3, 2)

    def forward(self, photo: Tensor) -> Tensor:
        return torch.tanh(self.second(self.first(photo)))


class PaddedToEight(nn.Module):
    """Pads to a multiple of 8 by a Python number, and crops again: eagerly any size, traced even ones."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = UNet()

    def forward(self, photo: Tensor) -> Tensor:
        height, width = photo.shape[2:]
        padded = functional.pad(photo, (0, -width % 8, 0, -height % 8))
        cropped: Tensor = self.inner(padded)[:, :, :height, :width]
        return cropped


class Positions(nn.Module):
    """An embedding of 64 × 64 positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 8, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class BakedPositions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.positions, self.last = nn.Conv2d(3, 8, 3, padding=1), Positions(), nn.Conv2d(8, 3, 1)

    def forward(self, photo: Tensor) -> Tensor:
        return torch.tanh(self.last(self.positions(self.first(photo))))


class Branch(nn.Module):
    """Another layer for wide images: a Python condition, which a graph freezes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.shape[-1] > 48 else x


class BranchOnWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = Branch()

    def forward(self, photo: Tensor) -> Tensor:
        return torch.tanh(self.branch(photo))


class BranchOnEvenWidth(nn.Module):
    """The same, behind a stride: sizes are multiples of a symbol, whose range torch.export ends without a word."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.branch = nn.Conv2d(3, 3, 4, 2, 1), Branch()
        self.up = nn.ConvTranspose2d(3, 3, 4, 2, 1)

    def forward(self, photo: Tensor) -> Tensor:
        return torch.tanh(self.up(self.branch(self.down(photo))))


class IntegerHeight(nn.Module):
    """A ramp over the height, whose length is made a Python integer."""

    def forward(self, photo: Tensor) -> Tensor:
        height = int(photo.shape[2])
        return torch.tanh(photo + torch.linspace(-1, 1, height)[None, None, :, None])


class FixedOutput(nn.Module):
    """Every input comes out at 32 × 32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, photo: Tensor) -> Tensor:
        return torch.tanh(functional.interpolate(self.layer(photo), size=(32, 32)))


class NoisyPhoto(nn.Module):
    """Noise of the photo's own size, drawn in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, photo: Tensor) -> Tensor:
        return torch.tanh(self.layer(photo + 0.1 * torch.randn_like(photo)))


class Guided(nn.Module):
    """A photo, a mask of half its size, and a style: two images and a latent. Gives pixels last."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.style = nn.Conv2d(4, 3, 3, padding=1), nn.Linear(5, 3)

    def forward(self, photo: Tensor, guide: Tensor, z: Tensor) -> Tensor:
        x = torch.cat([photo, guide], 1)
        x = self.layer(x) * self.style(z)[:, :, None, None]
        return torch.tanh(x).permute(0, 2, 3, 1)


def source_of(module: nn.Module, name: str = "sized") -> Source:
    """A photo of any size to an image of the size that follows."""
    photo = TensorSpec("photo", "float32", (3, None, None), Image())
    return Source(
        module, GeneratorSpec(name, (photo,), (TensorSpec("image", "float32", (3, None, None), Image()),)), "test"
    )
