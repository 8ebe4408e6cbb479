"""R3GAN, the modern baseline: relativistic loss, R1 and R2, residual networks without any normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES, ImageSettings


@dataclass(frozen=True)
class R3ganSettings(ImageSettings):
    """Both penalties in every step, Adam without momentum, a half-life of 500 steps for the averaged weights.

    γ is right over a wide range: 1 to 100 train stably here, 0.1 collapses. `width`, `max_width`, `blocks` and
    `cardinality` scale the networks, from these for two CPU cores to the paper's (`paper`, for CIFAR-10 on GPUs).
    """

    size: int = setting(32, "side of the square images, in pixels", choices=(16, 32, 64, 128, 256))
    z_size: int = setting(64, "length of the latent vector", least=1, most=65536)
    objective: str = setting("relativistic", "what both networks optimise", choices=OBJECTIVE_NAMES)
    r1: float = setting(10.0, "weight γ of R1, γ/2·|∇D|² on real images", least=0.0)
    r2: float = setting(10.0, "weight γ of R2, γ/2·|∇D|² on generated images", least=0.0)
    beta1: float = setting(0.0, "Adam's decay of the gradient's mean", least=0.0, most=0.99999)
    beta2: float = setting(0.99, "Adam's decay of the gradient's square", least=0.0, most=0.99999)
    ema_half_life: float = setting(
        32_000.0, "half-life of the averaged generator weights, in images; 0 for none", least=0.0
    )
    width: int = setting(16, "feature planes at the image's size; doubles at each halving", least=1, most=4096)
    max_width: int = setting(64, "most feature planes at any size", least=1, most=8192)
    blocks: int = setting(1, "residual blocks at each size", least=1, most=16)
    cardinality: int = setting(0, "groups of the paper's bottleneck blocks; 0 for plain blocks", least=0, most=4096)


def _networks(settings: R3ganSettings, data: DataShape) -> dict[str, object]:
    return {
        "size": settings.size,
        "channels": data.channels,
        "width": settings.width,
        "max_width": max(settings.width, settings.max_width),
        "blocks": settings.blocks,
        "cardinality": settings.cardinality,
    } | data.conditioning


def generator(settings: R3ganSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord("r3gan_generator", {"z_size": settings.z_size} | _networks(settings, data))


def discriminator(settings: R3ganSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord("r3gan_discriminator", _networks(settings, data))


RECIPE = Recipe(
    name="r3gan",
    line="R3GAN (Huang et al. 2025): relativistic, R1 and R2, residual networks; the modern baseline",
    defaults=R3ganSettings(),
    generator=generator,
    discriminator=discriminator,
    presets={"paper": {"width": 768, "max_width": 768, "blocks": 2, "cardinality": 96, "batch": 512}},
)
