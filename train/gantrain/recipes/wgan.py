"""WGAN: the DCGAN's networks, a critic of bounded weights, and the Wasserstein distance."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.recipes import Recipe
from gantrain.recipes.dcgan import DcganSettings, discriminator, generator
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES


@dataclass(frozen=True)
class WganSettings(DcganSettings):
    """Algorithm 1 of the paper: five critic steps of RMSprop at 5e-5 before each of the generator, weights in ± 0.01.

    The loss of the critic is minus an estimate of the distance: it means something, and falls as the images get better.
    Clipping makes the critic slow, and so the whole; `wgan-gp` is the remedy.
    """

    objective: str = setting("wasserstein", "what both networks optimise", choices=OBJECTIVE_NAMES)
    optimiser: str = setting("rmsprop", "of both networks; RMSprop has no betas", choices=("adam", "rmsprop"))
    generator_lr: float = setting(5e-5, "the generator's learning rate", least=0.0)
    discriminator_lr: float = setting(5e-5, "the critic's learning rate", least=0.0)
    discriminator_steps: int = setting(5, "critic steps before each generator step", least=1, most=100)
    clip: float = setting(0.01, "the critic's weights are clipped to ± this after each step; 0 for not", least=0.0)


RECIPE = Recipe(
    name="wgan",
    line="WGAN (Arjovsky et al. 2017): the Wasserstein distance, its critic bounded by weight clipping",
    defaults=WganSettings(),
    generator=generator,
    discriminator=discriminator,
)
