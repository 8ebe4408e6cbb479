"""Progressive GAN: both networks grow from 4 pixels, each new size faded in; WGAN-GP all the way."""

from __future__ import annotations

from dataclasses import dataclass

from gantrain.networks import NetworkRecord
from gantrain.recipes import DataShape, Recipe
from gantrain.recipes.settings import setting
from gantrain.recipes.training_settings import OBJECTIVE_NAMES, ImageSettings


@dataclass(frozen=True)
class ProgressiveSettings(ImageSettings):
    """The paper's appendix A.1: λ = 10, one critic step, Adam at 1e-3 with betas (0, 0.99), equal stages and fades, and
    a drift of 0.001.

    A stage has 20,000 images, where the paper has 800,000: at 32 px all is grown after 120,000. The images have their
    full size from the start, with as little detail as the networks have grown to.
    """

    size: int = setting(32, "side of the square images, in pixels", choices=(8, 16, 32, 64, 128, 256))
    z_size: int = setting(64, "length of the latent vector", least=1, most=65536)
    objective: str = setting("wasserstein", "what both networks optimise", choices=OBJECTIVE_NAMES)
    gradient_penalty: float = setting(10.0, "the weight λ of (|∇D| - 1)² between real and fake", least=0.0)
    drift: float = setting(0.001, "weight of D(x)² on real data: holds a critic's level near 0", least=0.0)
    generator_lr: float = setting(1e-3, "the generator's learning rate", least=0.0)
    discriminator_lr: float = setting(1e-3, "the critic's learning rate", least=0.0)
    beta1: float = setting(0.0, "Adam's decay of the gradient's mean", least=0.0, most=0.99999)
    beta2: float = setting(0.99, "Adam's decay of the gradient's square", least=0.0, most=0.99999)
    stage_images: int = setting(20_000, "real images at each size, and as many in each fade; 0 for none", least=0)
    width: int = setting(16, "feature planes at the image's size; doubles at each halving", least=1, most=4096)
    max_width: int = setting(64, "most feature planes at any size", least=1, most=8192)


def _networks(settings: ProgressiveSettings, data: DataShape) -> dict[str, object]:
    return {
        "size": settings.size,
        "channels": data.channels,
        "width": settings.width,
        "max_width": max(settings.width, settings.max_width),
    } | data.conditioning


def generator(settings: ProgressiveSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord("progan_generator", {"z_size": settings.z_size} | _networks(settings, data))


def discriminator(settings: ProgressiveSettings, data: DataShape) -> NetworkRecord:
    return NetworkRecord("progan_discriminator", _networks(settings, data))


RECIPE = Recipe(
    name="progressive",
    line="Progressive GAN (Karras et al. 2018): grows from 4 px, each size faded in; WGAN-GP",
    defaults=ProgressiveSettings(),
    generator=generator,
    discriminator=discriminator,
    grows=True,
    presets={
        "paper": {"size": 256, "width": 32, "max_width": 512, "z_size": 512, "stage_images": 800_000, "batch": 16}
    },
)
