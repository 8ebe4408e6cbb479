"""What the discriminator is shown: samples, augmented and packed as the settings say."""

from __future__ import annotations

from torch import Tensor

from gantrain.augmentations import Augmentation
from gantrain.augmentations.ada import Controller
from gantrain.batches import packed
from gantrain.plan import Plan
from gantrain.recipes.training_settings import ImageSettings
from gantrain.training_state import TrainingState

ADA = "ada"  # the controller's place among the state's extras


class View:
    """The way from samples to the discriminator. With ADA its probability lives in the training's state."""

    def __init__(self, plan: Plan, state: TrainingState) -> None:
        s = plan.settings
        self._seed, self._pack = plan.record.seed, s.pack
        self._augmentation, self._controller = Augmentation(), Controller(0.0, 1.0)
        if isinstance(s, ImageSettings):
            self._augmentation = Augmentation(s.shift, s.colour, s.cutout)
            self._controller = Controller(s.ada_target, s.ada_images)
            if s.ada_target:
                self._controller.state = state.extras[ADA]

    def __call__(self, samples: Tensor, first: int, use: str) -> Tensor:
        """[N, C, H, W] or [N, length] at position `first` -> [N / pack, pack · C, H, W] or [N / pack, pack · length].

        `use` tells the calls of one step apart, which are augmented independently of one another.
        """
        if self._augmentation.active:
            samples = self._augmentation.shown(samples, self._seed, first, use, self._controller.probability)
        return packed(samples, self._pack)

    def saw(self, real_logits: Tensor, d_step: int) -> None:
        """Tells ADA what the discriminator made of the real samples of its step `d_step`."""
        self._controller.saw(real_logits, d_step)
