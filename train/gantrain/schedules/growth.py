"""How a progressive GAN grows: Karras et al., 2018 (arXiv:1710.10196), section 2 and appendix A."""

from __future__ import annotations

from gantrain.networks.progan import Growing
from gantrain.plan import Plan
from gantrain.recipes.training_settings import ImageSettings
from gantrain.training_state import TrainingState


def growth(images: int, stage_images: int, doublings: int) -> float:
    """The growth in [0, doublings] after so many real images: each size for `stage_images`, then a fade as long.

    A whole number stands still; between two the next size is faded in. 0 `stage_images` is a grown network.
    """
    if stage_images == 0:
        return float(doublings)
    stage, within = divmod(images, 2 * stage_images)
    fade = max(0.0, within / stage_images - 1.0)
    return min(float(doublings), stage + fade)


class Growth:
    """Brings all networks of a training that grow to where they should be; others are left alone."""

    def __init__(self, plan: Plan, state: TrainingState) -> None:
        s = plan.settings
        self._stage_images = s.stage_images if isinstance(s, ImageSettings) else 0
        networks = (state.generator, state.discriminator, state.average)
        self._networks = [n for n in networks if isinstance(n, Growing) and self._stage_images]

    def __call__(self, images: int) -> None:
        """After so many real images."""
        for network in self._networks:
            network.set_growth(growth(images, self._stage_images, network.doublings))
