"""The projection discriminator: SNGAN with labels, by conditional normalisation in G and a product of vectors in D."""

from __future__ import annotations

from gantrain.recipes import Recipe
from gantrain.recipes.sngan import SnganSettings, discriminator, generator

# Miyato and Koyama, "cGANs with Projection Discriminator", 2018 (arXiv:1802.05637). A real and a generated image of a
# pair have the same label, which is the real one's.
RECIPE = Recipe(
    name="sngan-projection",
    line="conditional SNGAN (Miyato and Koyama 2018): labels by projection",
    defaults=SnganSettings(),
    generator=generator,
    discriminator=discriminator,
    conditional=True,
)
