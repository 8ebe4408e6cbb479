"""The painter: a first GAN on curves, from five ideas to fifteen heights, in a few seconds."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES, TrainingSettings


@dataclass(frozen=True)
class PainterSettings(TrainingSettings):
    """One hidden layer of 128 in each network, the log loss of 2014, Adam at 1e-4 with torch's betas.

    The discriminator ends up guessing: D right half of the time, and its score at -2·log 2 = -1.386.
    """

    z_size: int = setting(5, "length of the latent vector: how many ideas the painter has", least=1, most=65536)
    steps: int = setting(5000, "generator steps to make in all", least=1)
    objective: str = setting("minimax", "what both networks optimise", choices=OBJECTIVE_NAMES)
    generator_lr: float = setting(1e-4, "the generator's learning rate", least=0.0)
    discriminator_lr: float = setting(1e-4, "the discriminator's learning rate", least=0.0)
    beta1: float = setting(0.9, "Adam's decay of the gradient's mean", least=0.0, most=0.99999)
    ema_half_life: float = setting(
        0.0, "half-life of the averaged generator weights, in vectors; 0 for none", least=0.0
    )
    width: int = setting(128, "width of the hidden layer of both networks", least=1, most=65536)


def generator(settings: PainterSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "vector_generator",
        {"z_size": settings.z_size, "outputs": data.length, "widths": [settings.width], "batch_norm": False},
    )


def discriminator(settings: PainterSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord("vector_discriminator", {"inputs": data.length, "widths": [settings.width], "maxout": 1})


RECIPE = Recipe(
    name="painter",
    line="painter curves (log loss of 2014): a small fully connected GAN of vectors, trained in seconds",
    defaults=PainterSettings(),
    generator=generator,
    discriminator=discriminator,
    kind="vector",
)
