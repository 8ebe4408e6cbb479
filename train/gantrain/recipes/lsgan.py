"""LSGAN: the DCGAN's networks, and a discriminator that regresses 1 and 0 by least squares."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.recipes import Recipe
from gantrain.recipes.dcgan import DcganSettings, discriminator, generator
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES


@dataclass(frozen=True)
class LsganSettings(DcganSettings):
    """As the DCGAN's, but for the objective. The paper's own networks are DCGANs too (its figure 5)."""

    objective: str = setting("least_squares", "what both networks optimise", choices=OBJECTIVE_NAMES)


RECIPE = Recipe(
    name="lsgan",
    line="LSGAN (Mao et al. 2016): a DCGAN with least squares in place of the log loss",
    defaults=LsganSettings(),
    generator=generator,
    discriminator=discriminator,
)
