"""What goes together: networks, objective and settings, one recipe a file, each about a page.

A recipe is plain data and imports no torch. To add one, copy `dcgan.py`, and name it in `RECIPES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ganruntime.errors import InputError
from gantrain.networks import NetworkRecord
from gantrain.recipes.settings import TrainingSettings

RECIPES: dict[str, str] = {
    "dcgan": "gantrain.recipes.dcgan",
    "mlp": "gantrain.recipes.mlp",
}


@dataclass(frozen=True)
class Recipe:
    """A name for what is trained, and how.

    Args:
        name: what `ganexport train` calls it.
        line: one line for `ganexport recipes`.
        defaults: every setting, at its default.
        generator: (settings, channels) -> the generator's record; it takes z [N, z_size].
        discriminator: (settings, channels) -> the discriminator's record; it gives logits [N].
        presets: named changes of the defaults.
    """

    name: str
    line: str
    defaults: TrainingSettings
    generator: Callable[[Any, int], NetworkRecord]
    discriminator: Callable[[Any, int], NetworkRecord]
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def recipe_from_name(name: str) -> Recipe:
    """The recipe called `name`. Raises `InputError` that suggests the nearest one."""
    if name not in RECIPES:
        nearest = difflib.get_close_matches(name, RECIPES, n=1)
        raise InputError(
            f"no recipe is called {name!r}",
            expected=f"{nearest[0]!r}?" if nearest else ", ".join(RECIPES),
            remedy="ganexport recipes lists them",
        )
    recipe: Recipe = import_module(RECIPES[name]).RECIPE
    return recipe
