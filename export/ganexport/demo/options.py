"""What can be shown: which recipe on which data, for how many steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ganruntime.errors import InputError

IMAGES_SEED = 7  # of the thousand images that are generated and judged
IMAGES = 1000
SIZE = 32


@dataclass(frozen=True)
class Show:
    """A demo that there is.

    title: the report's.
    noun: what one image is of, in the plural.
    steps, quick_steps: generator steps by default, and with --quick.
    settings: changes of the recipe's settings.
    decays: whether the learning rates fall to a fiftieth over the last three fifths of the training.
    """

    title: str
    noun: str
    steps: int
    quick_steps: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    decays: bool = False


# Chosen on the digit judge with seed 3, one thread, mean confidence after as much computing: the recipe's own settings
# 0.79; batches of 32, 16 numbers for z and falling rates 0.815; the discriminator's rate twice the generator's 0.835
# (0.79 with 100 numbers for z, 0.81 at four times the rate); R1 of 0.5 in every eighth step 0.854 (of 0.05 0.840, of 2
# 0.837, of 5 0.818). Without batch normalisation in the discriminator 0.64, relativistic with R1 of 0.1 0.832.
# These give seeds 0 and 1 0.847 and 0.858 after 2,700 steps, and seed 0 0.831 after 2,500.
_DIGITS = {
    "size": SIZE, "z_size": 16, "batch": 32, "ema_half_life": 5000.0, "discriminator_lr": 2e-3, "r1": 0.5,
    "penalty_every": 8,
}  # fmt: skip
SHOWS: dict[tuple[str, str], Show] = {
    ("digits", "dcgan"): Show("Handwritten digits", "digits", 3500, 300, _DIGITS, decays=True),
    ("digits", "mlp"): Show("Handwritten digits, fully connected", "digits", 3000, 1000, {"size": SIZE}),
    ("faces", "dcgan"): Show("Drawn faces", "faces", 2500, 300, {"size": SIZE, "width": 32, "discriminator_width": 24}),
}


@dataclass(frozen=True)
class Options:
    """A demo that was asked for. Equal options give the same images, on the same machine with the same threads.

    Raises:
        InputError: there is no such demo, or a number is out of range.
    """

    data: str = "digits"
    recipe: str = "dcgan"
    steps: int | None = None
    seed: int = 0
    quick: bool = False

    def __post_init__(self) -> None:
        if (self.data, self.recipe) not in SHOWS:
            raise InputError(
                f"there is no demo of {self.recipe} on {self.data}",
                expected=", ".join(f"--data {data} --recipe {recipe}" for data, recipe in SHOWS),
                remedy=f"ganexport train {self.recipe} --data {self.data} trains it all the same",
            )
        if self.steps is not None and self.steps < 1:
            raise InputError("steps is out of range", got=self.steps, expected="at least 1")
        if not 0 <= self.seed < 1 << 64:
            raise InputError("the seed is out of range", got=self.seed, expected="an integer from 0 to 2^64 - 1")

    @property
    def show(self) -> Show:
        return SHOWS[self.data, self.recipe]

    @property
    def steps_to_make(self) -> int:
        return self.steps or (self.show.quick_steps if self.quick else self.show.steps)

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe's settings that differ from its defaults; about ten sample sheets over the training."""
        every = max(1, self.steps_to_make // 5)
        settings = dict(self.show.settings) | {"sample_every": every, "checkpoint_every": min(every, 500)}
        settings["metrics_every"] = 0  # the demo judges what it has generated, and a judge takes seconds to fit
        if self.show.decays:
            settings |= {"decay_start": 2 * self.steps_to_make // 5, "decay_end": self.steps_to_make, "decay_to": 0.02}
        return settings

    @property
    def bench_seconds(self) -> float:
        """Of each contender at each batch size."""
        return 0.3 if self.quick else 1.2

    def to_json(self) -> dict[str, Any]:
        """What decides the training; two demos that agree in this are the same demo."""
        return {"data": self.data, "recipe": self.recipe, "steps": self.steps_to_make, "seed": self.seed}
