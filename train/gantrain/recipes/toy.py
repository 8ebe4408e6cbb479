"""Toys in the plane, `ring` and `grid`: mode collapse where every mode can be counted."""

from __future__ import annotations

from dataclasses import dataclass

from ganruntime.errors import InputError
from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES, TrainingSettings

# The set-up of Lin et al., "PacGAN", 2017 (arXiv:1712.04086), section 4.1, but for the number of steps.
_PACGAN = {
    "objective": "non_saturating",
    "z_size": 2,
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
    "generator_frequencies": 0,
    "generator_skip": 0.0,
    "generator_signs": 0,
    "maxout": 5,
    "discriminator_frequencies": 0,
    "batch": 100,
    "decay_end": 0,
}


@dataclass(frozen=True)
class ToySettings(TrainingSettings):
    """By default the relativistic loss with R1 and R2, on small networks that see frequencies, in the unit of the grid.

    A generator that is continuous in z must draw something between any two modes, and steepness comes slowly: few
    samples of a batch are there to teach it. So nine of the eleven components of z enter by their sign alone: they
    choose one of 512 places, and a skip spreads those over all of the data from the first step on. The other two vary
    what is drawn at a place. The preset `ring` has the unit of a ring of radius 1; R1 and R2, slopes over the data's
    unit, are smaller by its square. Chosen on seeds 100 and 101. The presets `vanilla`, `pack2` and `pack4` are the
    set-up of the paper.
    """

    z_size: int = setting(11, "length of the latent vector", least=1, most=65536)
    objective: str = setting("relativistic", "what both networks optimise", choices=OBJECTIVE_NAMES)
    steps: int = setting(2500, "generator steps to make in all", least=1)
    generator_lr: float = setting(4e-3, "the generator's learning rate", least=0.0)
    discriminator_lr: float = setting(4e-3, "the discriminator's learning rate", least=0.0)
    decay_start: int = setting(1250, "the step up to which learning rates stay as they are", least=0)
    decay_end: int = setting(
        2500, "the step at which they have fallen, linearly, to `decay_to`; 0 for no decay", least=0
    )
    r1: float = setting(0.02, "weight γ of R1, γ/2·|∇D|² on real vectors", least=0.0)
    r2: float = setting(0.02, "weight γ of R2, γ/2·|∇D|² on generated vectors", least=0.0)
    batch: int = setting(256, "vectors in a batch", least=2, most=65536)
    beta2: float = setting(0.99, "Adam's decay of the gradient's square", least=0.0, most=0.99999)
    sample_images: int = setting(2500, "vectors on a sample sheet", least=1, most=4096)
    scale: float = setting(
        1.0, "the unit of the data, in which the networks see and draw: a third of its spread", least=1e-6, most=1e6
    )
    generator_widths: tuple[int, ...] = setting(
        (128, 128, 128), "widths of the generator's hidden layers", least=1, most=65536
    )
    generator_batch_norm: bool = setting(False, "batch normalisation in the generator")
    discriminator_widths: tuple[int, ...] = setting(
        (128, 128), "widths of the discriminator's hidden layers", least=1, most=65536
    )
    generator_frequencies: int = setting(
        64, "sines and cosines of z that the generator sees in place of z; 0 for none", least=0, most=4096
    )
    generator_skip: float = setting(
        2.8,
        "gain of a fixed map of z, or of the places, that the generator's output is added to; 0 for none",
        least=0.0,
        most=1e3,
    )
    generator_signs: int = setting(
        9,
        "how many of z's components the generator sees by their sign alone, which choose a place; 0 for none",
        least=0,
        most=65535,
    )
    maxout: int = setting(
        1, "linear pieces of each of the discriminator's hidden units; 1 for a leaky ReLU", least=1, most=64
    )
    leak: float = setting(0.2, "the slope below 0 of that ReLU", least=0.0, most=1.0)
    discriminator_frequencies: int = setting(
        64, "sines and cosines of a vector that the discriminator sees beside it; 0 for none", least=0, most=4096
    )


def generator(settings: ToySettings, data: DataShape) -> NetworkRecord:
    if settings.generator_signs >= settings.z_size:
        raise InputError(
            "generator_signs leaves no component of z to vary what is drawn at a place",
            got=f"generator_signs {settings.generator_signs}, z_size {settings.z_size}",
            expected="fewer signs than components",
            remedy=f"--set generator_signs={settings.z_size // 2}, or a larger z_size",
        )
    return NetworkRecord(
        "vector_generator",
        {
            "z_size": settings.z_size,
            "outputs": data.length,
            "widths": list(settings.generator_widths),
            "batch_norm": settings.generator_batch_norm,
            "frequencies": settings.generator_frequencies,
            "skip": settings.generator_skip,
            "scale": settings.scale,
            "signs": settings.generator_signs,
        },
    )


def discriminator(settings: ToySettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord(
        "vector_discriminator",
        {
            "inputs": data.length,
            "widths": list(settings.discriminator_widths),
            "maxout": settings.maxout,
            "leak": settings.leak,
            "frequencies": settings.discriminator_frequencies,
            "scale": settings.scale,
        },
    )


RECIPE = Recipe(
    name="toy",
    line="ring 8 and grid 25 (PacGAN, Lin et al. 2017): where modes can be counted; relativistic, R1 and R2",
    defaults=ToySettings(),
    generator=generator,
    discriminator=discriminator,
    kind="vector",
    presets={
        "ring": {"scale": 0.25, "r1": 0.02 / 16, "r2": 0.02 / 16},
        "vanilla": _PACGAN,
        "pack2": _PACGAN | {"pack": 2},
        "pack4": _PACGAN | {"pack": 4},
    },
)
