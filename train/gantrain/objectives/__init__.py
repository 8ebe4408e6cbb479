"""What the two networks optimise, one objective a file. An objective is two functions of logits, and each gives a loss.

Logits are D's output before the sigmoid, float32 [N]; D(x) = sigmoid(logit) is its probability that x is real.
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
    "non_saturating": "gantrain.objectives.non_saturating",
    "minimax": "gantrain.objectives.minimax",
}


@dataclass(frozen=True)
class Objective:
    """discriminator_loss(real logits [N], fake logits [N], real_label) and generator_loss(fake logits [N]): scalars."""

    name: str
    discriminator_loss: Callable[[Tensor, Tensor, float], Tensor]
    generator_loss: Callable[[Tensor], Tensor]


def objective_from_name(name: str) -> Objective:
    """The objective called `name`. Raises `InputError` that lists them all."""
    if name not in OBJECTIVES:
        raise InputError("no objective has this name", got=repr(name), expected=", ".join(OBJECTIVES))
    module = import_module(OBJECTIVES[name])
    return Objective(name, module.discriminator_loss, module.generator_loss)
