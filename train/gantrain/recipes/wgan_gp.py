"""WGAN-GP: the Wasserstein distance, and a critic whose slope is held near 1 by a gradient penalty."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.recipes import Recipe
from gantrain.recipes.dcgan import DcganSettings, discriminator, generator
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES


@dataclass(frozen=True)
class WganGpSettings(DcganSettings):
    """Algorithm 1 of the paper: λ = 10, five critic steps, Adam at 1e-4, no batch normalisation in the critic.

    Adam's betas are (0.5, 0.9), those of the paper's DCGAN experiments; its algorithm box has (0, 0.9).
    """

    objective: str = setting("wasserstein", "what both networks optimise", choices=OBJECTIVE_NAMES)
    gradient_penalty: float = setting(10.0, "the weight λ of (|∇D| - 1)² between real and fake", least=0.0)
    generator_lr: float = setting(1e-4, "the generator's learning rate", least=0.0)
    discriminator_lr: float = setting(1e-4, "the critic's learning rate", least=0.0)
    beta2: float = setting(0.9, "Adam's decay of the gradient's square", least=0.0, most=0.99999)
    discriminator_steps: int = setting(5, "critic steps before each generator step", least=1, most=100)
    batch_norm: bool = setting(False, "batch normalisation in the critic: not with a gradient penalty")


RECIPE = Recipe(
    name="wgan-gp",
    line="WGAN-GP (Gulrajani et al. 2017): the Wasserstein distance, its critic held by a gradient penalty",
    defaults=WganGpSettings(),
    generator=generator,
    discriminator=discriminator,
)
