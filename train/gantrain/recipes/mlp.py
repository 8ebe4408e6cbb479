"""The multilayer GAN of 2014: fully connected, small, and quick at small sizes."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import ImageSettings


@dataclass(frozen=True)
class MlpSettings(ImageSettings):
    """The settings of `gantrain.networks.mlp`.

    The generator's rate is two and a half times the discriminator's: at equal rates the digits at 32 px stay vague for
    longer (after 1,000 steps a judge's mean confidence was 0.64, and 0.72 with these).
    """

    generator_lr: float = setting(5e-4, "learning rate of the generator's Adam", least=0.0)
    generator_widths: tuple[int, ...] = setting(
        (128, 256, 512, 1024), "widths of the generator's hidden layers", least=1, most=65536
    )
    discriminator_widths: tuple[int, ...] = setting(
        (512, 256), "widths of the discriminator's hidden layers", least=1, most=65536
    )


def generator(settings: MlpSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "mlp_generator",
        {
            "z_size": settings.z_size,
            "size": settings.size,
            "channels": data.channels,
            "widths": list(settings.generator_widths),
        },
    )


def discriminator(settings: MlpSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "mlp_discriminator",
        {"size": settings.size, "channels": data.channels, "widths": list(settings.discriminator_widths)},
    )


RECIPE = Recipe(
    name="mlp",
    line="GAN (Goodfellow et al. 2014): fully connected, any size to 256 px, grey or RGB",
    defaults=MlpSettings(),
    generator=generator,
    discriminator=discriminator,
)
