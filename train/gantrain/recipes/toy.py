"""Toys in the plane, `ring` and `grid`: mode collapse where every mode can be counted."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES, TrainingSettings

# The set-up of Lin et al., "PacGAN", 2017 (arXiv:1712.04086), section 4.1, but for the number of steps.
_PACGAN = {
    "objective": "non_saturating",
    "r1": 0.0,
    "r2": 0.0,
    "generator_lr": 1e-4,
    "discriminator_lr": 1e-4,
    "beta1": 0.8,
    "beta2": 0.999,
    "ema_half_life": 0.0,
    "generator_widths": (400, 400, 400, 400),
    "generator_batch_norm": True,
    "discriminator_widths": (200, 200, 200),
    "maxout": 5,
    "batch": 100,
    "decay_end": 0,
}


@dataclass(frozen=True)
class ToySettings(TrainingSettings):
    """By default the relativistic loss with R1 and R2, and smaller networks that a core trains in a minute.

    Tuned on one seed: every mode of the grid by step 2,500, and after 5,000 steps 91 % of the samples within 3σ of one.
    The presets `vanilla`, `pack2` and `pack4` are the set-up of the paper.
    """

    z_size: int = setting(2, "length of the latent vector", least=1, most=65536)
    objective: str = setting("relativistic", "what both networks optimise", choices=OBJECTIVE_NAMES)
    steps: int = setting(5000, "generator steps to make in all", least=1)
    generator_lr: float = setting(1e-3, "the generator's learning rate", least=0.0)
    discriminator_lr: float = setting(1e-3, "the discriminator's learning rate", least=0.0)
    decay_start: int = setting(2500, "the step up to which learning rates stay as they are", least=0)
    decay_end: int = setting(
        5000, "the step at which they have fallen, linearly, to `decay_to`; 0 for no decay", least=0
    )
    r1: float = setting(0.02, "weight γ of R1, γ/2·|∇D|² on real vectors", least=0.0)
    r2: float = setting(0.02, "weight γ of R2, γ/2·|∇D|² on generated vectors", least=0.0)
    batch: int = setting(128, "vectors in a batch", least=2, most=65536)
    beta2: float = setting(0.99, "Adam's decay of the gradient's square", least=0.0, most=0.99999)
    sample_images: int = setting(2500, "vectors on a sample sheet", least=1, most=4096)
    generator_widths: tuple[int, ...] = setting(
        (256, 256, 256, 256), "widths of the generator's hidden layers", least=1, most=65536
    )
    generator_batch_norm: bool = setting(False, "batch normalisation in the generator")
    discriminator_widths: tuple[int, ...] = setting(
        (128, 128, 128), "widths of the discriminator's hidden layers", least=1, most=65536
    )
    maxout: int = setting(2, "linear pieces of each of the discriminator's hidden units; 1 for ReLU", least=1, most=64)


def generator(settings: ToySettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "vector_generator",
        {
            "z_size": settings.z_size,
            "outputs": data.length,
            "widths": list(settings.generator_widths),
            "batch_norm": settings.generator_batch_norm,
        },
    )


def discriminator(settings: ToySettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "vector_discriminator",
        {"inputs": data.length, "widths": list(settings.discriminator_widths), "maxout": settings.maxout},
    )


RECIPE = Recipe(
    name="toy",
    line="ring 8 and grid 25 (PacGAN, Lin et al. 2017): where modes can be counted; relativistic, R1 and R2",
    defaults=ToySettings(),
    generator=generator,
    discriminator=discriminator,
    kind="vector",
    presets={
        "vanilla": _PACGAN,
        "pack2": _PACGAN | {"pack": 2},
        "pack4": _PACGAN | {"pack": 4},
    },
)
