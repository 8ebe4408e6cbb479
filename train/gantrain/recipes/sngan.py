"""SNGAN: spectral normalisation, the hinge loss, and residual networks."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES, ImageSettings


@dataclass(frozen=True)
class SnganSettings(ImageSettings):
    """The paper's: five discriminator steps, Adam at 2e-4 with betas (0, 0.9). Its widths are the preset `paper`."""

    size: int = setting(32, "side of the square images, in pixels", choices=(16, 32, 64, 128, 256))
    z_size: int = setting(128, "length of the latent vector", least=1, most=65536)
    objective: str = setting("hinge", "what both networks optimise", choices=OBJECTIVE_NAMES)
    discriminator_steps: int = setting(5, "discriminator steps before each generator step: k", least=1, most=100)
    beta1: float = setting(0.0, "Adam's decay of the gradient's mean", least=0.0, most=0.99999)
    beta2: float = setting(0.9, "Adam's decay of the gradient's square", least=0.0, most=0.99999)
    width: int = setting(16, "generator's feature planes at the image's size; doubles at each halving", least=1)
    discriminator_width: int = setting(16, "the discriminator's at half of it", least=1, most=4096)
    max_width: int = setting(64, "most feature planes at any size", least=1, most=8192)


def generator(settings: SnganSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "resnet_generator",
        {
            "z_size": settings.z_size,
            "size": settings.size,
            "channels": data.channels,
            "width": settings.width,
            "max_width": max(settings.width, settings.max_width),
        }
        | data.conditioning,
    )


def discriminator(settings: SnganSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "resnet_discriminator",
        {
            "size": settings.size,
            "channels": data.channels,
            "width": settings.discriminator_width,
            "max_width": max(settings.discriminator_width, settings.max_width),
        }
        | data.conditioning,
    )


RECIPE = Recipe(
    name="sngan",
    line="SNGAN (Miyato et al. 2018): spectral normalisation, hinge loss, residual networks",
    defaults=SnganSettings(),
    generator=generator,
    discriminator=discriminator,
    presets={"paper": {"width": 256, "discriminator_width": 128, "max_width": 256, "steps": 100_000}},
)
