"""What the two networks optimise, one objective a file. An objective is two functions of logits, and each gives a loss.

Logits are D's output, float32 [N], larger for what it takes for real. What else they mean, each objective says:

    PROBABILITY  whether sigmoid(logit) is D's probability that x is real
    THRESHOLD    D calls real what lies above this; None where only differences between real and generated count
    SMOOTHS      whether the target for real images may be below 1 (`real_label`)
    RELATIVE     whether the generator's loss needs the logits of real images too
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ganruntime.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

OBJECTIVES: dict[str, str] = {
    name: f"gantrain.objectives.{name}"
    for name in ("non_saturating", "minimax", "least_squares", "wasserstein", "hinge", "relativistic")
}


@dataclass(frozen=True)
class Objective:
    """An objective by name.

    discriminator_loss(real logits [N], fake logits [N], real_label) and generator_loss(fake logits [N], real logits
    [N]) give scalars; only a `relative` objective looks at the generator's second argument.
    """

    name: str
    discriminator_loss: Callable[[Tensor, Tensor, float], Tensor]
    generator_loss: Callable[[Tensor, Tensor | None], Tensor]
    probability: bool
    threshold: float | None
    smooths: bool
    relative: bool

    def opinion(self, logits: Tensor) -> Tensor:
        """D(x) as it is reported: a probability where the objective has one, the logit itself otherwise; [N]."""
        return logits.sigmoid() if self.probability else logits

    def accuracy(self, real: Tensor, fake: Tensor) -> Tensor:
        """Share in [0, 1] of what D tells rightly, of [N] and [N]; of pairs where only differences count."""
        if self.threshold is None:
            return (real > fake).sum() / len(real)
        return ((real > self.threshold).sum() + (fake <= self.threshold).sum()) / (len(real) + len(fake))


def objective_from_name(name: str) -> Objective:
    """The objective called `name`. Raises `InputError` that lists them all."""
    if name not in OBJECTIVES:
        raise InputError("no objective has this name", got=repr(name), expected=", ".join(OBJECTIVES))
    module = import_module(OBJECTIVES[name])
    return Objective(
        name=name,
        discriminator_loss=module.discriminator_loss,
        generator_loss=module.generator_loss,
        probability=module.PROBABILITY,
        threshold=module.THRESHOLD,
        smooths=module.SMOOTHS,
        relative=module.RELATIVE,
    )
