"""StyleGAN2: a mapping to styles, modulated convolutions, lazy R1 and path length, and truncation to sample with."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import ImageSettings


@dataclass(frozen=True)
class Stylegan2Settings(ImageSettings):
    """As published, at a quarter of the widths or less: non-saturating loss, R1 in every 16th step, path length in
    every 4th, style mixing of 0.9. Adam's betas are (0, 0.99).

    γ = 0.1 is near the authors' rule, 0.0002 · size² / batch, times what small batches want; scale it with the size.
    `noise`: `constant` draws a checkpoint's noise once, so that one latent is one image, and `input` leaves it to
    whoever generates.
    """

    size: int = setting(32, "side of the square images, in pixels", choices=(8, 16, 32, 64, 128, 256))
    z_size: int = setting(64, "length of the latent vector", least=1, most=65536)
    generator_lr: float = setting(2e-3, "the generator's learning rate", least=0.0)
    discriminator_lr: float = setting(2e-3, "the discriminator's learning rate", least=0.0)
    beta1: float = setting(0.0, "Adam's decay of the gradient's mean", least=0.0, most=0.99999)
    beta2: float = setting(0.99, "Adam's decay of the gradient's square", least=0.0, most=0.99999)
    batch: int = setting(32, "images in a batch", least=2, most=65536)
    r1: float = setting(0.1, "weight γ of R1, γ/2·|∇D|² on real images", least=0.0)
    penalty_every: int = setting(16, "R1 and R2 in every n-th discriminator step, n times as heavy", least=1, most=1000)
    mixing: float = setting(0.9, "share of the images with the styles of two latents", least=0.0, most=1.0)
    path_length: float = setting(2.0, "weight of the path-length regularisation", least=0.0)
    width: int = setting(16, "feature planes at the image's size; doubles at each halving", least=1, most=4096)
    max_width: int = setting(64, "most feature planes at any size", least=1, most=8192)
    w_size: int = setting(64, "length of a style vector", least=1, most=65536)
    mapping_layers: int = setting(2, "layers from z to w; the paper has 8", least=1, most=16)
    noise: str = setting("input", "where the images' noise comes from", choices=("input", "constant", "none"))


def _networks(settings: Stylegan2Settings, data: DataShape) -> dict[str, object]:
    return {
        "size": settings.size,
        "channels": data.channels,
        "width": settings.width,
        "max_width": max(settings.width, settings.max_width),
    } | data.conditioning


def generator(settings: Stylegan2Settings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "stylegan2_generator",
        {
            "z_size": settings.z_size,
            "w_size": settings.w_size,
            "mapping_layers": settings.mapping_layers,
            "noise": settings.noise,
        }
        | _networks(settings, data),
    )


def discriminator(settings: Stylegan2Settings, data: DataShape) -> NetworkRecord:
    return NetworkRecord("stylegan2_discriminator", _networks(settings, data))


RECIPE = Recipe(
    name="stylegan2",
    line="StyleGAN2 (Karras et al. 2020): styles, mixing, truncation, lazy R1, path length, ADA on request",
    defaults=Stylegan2Settings(),
    generator=generator,
    discriminator=discriminator,
    styles=True,
    presets={
        # Limited data: every image augmented as often as keeps the discriminator from knowing it by heart.
        "ada": {"shift": 4, "colour": 1.0, "cutout": 0.5, "ada_target": 0.6},
        # What draws all ten digits on a CPU in minutes. Mixing and path length would take several times the steps.
        "small": {
            "size": 16,
            "z_size": 32,
            "shift": 2,
            "cutout": 0.5,
            "ada_target": 0.6,
            "ada_images": 10_000.0,
            "r1": 0.1,
            "penalty_every": 8,
            "generator_lr": 2.5e-3,
            "discriminator_lr": 2.5e-3,
            "ema_half_life": 5000.0,
            "mixing": 0.0,
            "path_length": 0.0,
            "steps": 7000,
            "decay_start": 2800,
            "decay_end": 7000,
            "decay_to": 0.02,
        },
        "paper": {"width": 64, "max_width": 512, "w_size": 512, "z_size": 512, "mapping_layers": 8, "size": 256},
    },
)
