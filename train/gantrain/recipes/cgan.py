"""The conditional GAN: a DCGAN whose networks are told the label, as one-hot numbers beside z and planes beside x."""

from __future__ import annotations

from gantrain.recipes import Recipe
from gantrain.recipes.dcgan import DcganSettings, discriminator, generator

# Mirza and Osindero, "Conditional Generative Adversarial Nets", 2014 (arXiv:1411.1784). A real and a generated image of
# a pair have the same label, which is the real one's.
RECIPE = Recipe(
    name="cgan",
    line="conditional GAN (Mirza and Osindero 2014): a DCGAN with labels, by concatenation",
    defaults=DcganSettings(),
    generator=generator,
    discriminator=discriminator,
    conditional=True,
)
