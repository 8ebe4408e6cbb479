"""The conditional GAN: a DCGAN whose networks are told the label. G has it as one-hot numbers beside z; D as planes
beside x, or by projection."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe, dcgan
from gantrain.recipes.dcgan import DcganSettings, generator
from gantrain.recipes.settings import setting


@dataclass(frozen=True)
class CganSettings(DcganSettings):
    """The DCGAN's, and how the discriminator is told the label."""

    conditioning: str = setting(
        "concatenation", "how the recipe's own D takes the label", choices=("concatenation", "projection")
    )


def discriminator(settings: CganSettings, data: DataShape) -> NetworkRecord:
    record = dcgan.discriminator(settings, data)
    return NetworkRecord(record.network, {**record.settings, "conditioning": settings.conditioning})


# Mirza and Osindero, "Conditional Generative Adversarial Nets", 2014 (arXiv:1411.1784). A real and a generated image of
# a pair have the same label, which is the real one's.
RECIPE = Recipe(
    name="cgan",
    line="conditional GAN (Mirza and Osindero 2014): a DCGAN with labels, by concatenation or projection",
    defaults=CganSettings(),
    generator=generator,
    discriminator=discriminator,
    conditional=True,
    presets={
        # Where the class is a small thing in the picture, a plane of ones beside it does not teach D to look there.
        "faces": {
            "z_size": 64,
            "batch": 32,
            "width": 32,
            "discriminator_width": 24,
            "discriminator_lr": 1e-3,
            "r1": 0.2,
            "penalty_every": 4,
            "ema_half_life": 5000.0,
            "conditioning": "projection",
            "mismatched": 0.25,
            "steps": 3500,
            "decay_start": 1400,
            "decay_end": 3500,
            "decay_to": 0.02,
        }
    },
)
