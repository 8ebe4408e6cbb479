"""DCGAN: transposed convolutions up, strided convolutions down, batch normalisation between them."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import ImageSettings


@dataclass(frozen=True)
class DcganSettings(ImageSettings):
    """The settings of `gantrain.networks.dcgan`.

    The defaults are for two CPU cores and about two minutes at 32 px: narrow networks, and rates above the paper's,
    the generator's twice the discriminator's, which such networks bear. The preset `paper` is for a GPU.
    """

    size: int = setting(32, "side of the square images, in pixels", choices=(16, 32, 64, 128))
    generator_lr: float = setting(1e-3, "learning rate of the generator's Adam", least=0.0)
    discriminator_lr: float = setting(5e-4, "learning rate of the discriminator's Adam", least=0.0)
    width: int = setting(24, "generator's feature planes at half the size; doubles towards 4 px", least=1, most=4096)
    discriminator_width: int = setting(16, "the same for the discriminator", least=1, most=4096)
    max_width: int = setting(512, "most feature planes at any size", least=1, most=8192)
    batch_norm: bool = setting(True, "batch normalisation in the discriminator")


def generator(settings: DcganSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "dcgan_generator",
        {
            "z_size": settings.z_size,
            "size": settings.size,
            "channels": data.channels,
            "width": settings.width,
            "max_width": max(settings.max_width, settings.width),
        }
        | data.conditioning,
    )


def discriminator(settings: DcganSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "dcgan_discriminator",
        {
            "size": settings.size,
            "channels": data.channels,
            "width": settings.discriminator_width,
            "max_width": max(settings.max_width, settings.discriminator_width),
            "batch_norm": settings.batch_norm,
        }
        | data.conditioning,
    )


RECIPE = Recipe(
    name="dcgan",
    line="DCGAN (Radford et al. 2015): convolutional, 16 to 128 px, grey or RGB",
    defaults=DcganSettings(),
    generator=generator,
    discriminator=discriminator,
    presets={
        # Colour needs wider networks; with these the drawn faces take some two and a half minutes on two cores.
        "faces": {"width": 32, "discriminator_width": 24, "steps": 2500},
        "paper": {
            "size": 64,
            "width": 64,
            "discriminator_width": 64,
            "generator_lr": 2e-4,
            "discriminator_lr": 2e-4,
            "batch": 128,
            "steps": 50_000,
        },
    },
)
