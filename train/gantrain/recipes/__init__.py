"""What goes together: networks, objective and settings, one recipe a file, each about a page.

A recipe is plain data and imports no torch. Every other file here is one, and defines `RECIPE`: to add one, add a file,
with underscores for the hyphens of its name (`docs/adding-a-recipe.md`).
"""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Literal

from ganruntime.errors import InputError
from gantrain.networks import NetworkRecord
from gantrain.recipes.training_settings import TrainingSettings

_NOT_RECIPES = ("settings", "training_settings")

# name -> module, of every file in this folder
RECIPES: dict[str, str] = {
    module.name.replace("_", "-"): f"{__name__}.{module.name}"
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name)
    if module.name not in _NOT_RECIPES
}


@dataclass(frozen=True)
class DataShape:
    """What networks must know of the data that they are built for.

    Args:
        kind: whether samples are images or vectors.
        channels: of an image; with packing, of as many images as the discriminator judges together.
        length: of a vector, likewise.
        classes: names of the classes that condition both networks; empty where nothing does.
    """

    kind: Literal["image", "vector"]
    channels: int = 0
    length: int = 0
    classes: tuple[str, ...] = ()

    @property
    def conditioning(self) -> dict[str, Any]:
        """The keyword argument that makes a network conditional; nothing where nothing conditions."""
        return {"classes": list(self.classes)} if self.classes else {}

    def packed(self, pack: int) -> DataShape:
        """The shape of `pack` samples that are judged together."""
        return replace(self, channels=pack * self.channels, length=pack * self.length)


@dataclass(frozen=True)
class Recipe:
    """A name for what is trained, and how.

    Args:
        name: what `ganexport train` calls it.
        line: one line for `ganexport recipes`.
        defaults: every setting, at its default.
        generator: (settings, data) -> the generator's record; it takes z [N, z_size], then labels [N] if conditional.
        discriminator: (settings, data) -> the discriminator's record; it takes samples, then labels [N] if
            conditional, and gives logits [N].
        presets: named changes of the defaults.
        kind: of the data that it trains on.
        conditional: whether both networks take the data's labels.
        styles: whether the generator is a StyleGAN2, which style mixing and path length need.
        grows: whether both networks grow (`gantrain.networks.progan.Growing`).
    """

    name: str
    line: str
    defaults: TrainingSettings
    generator: Callable[[Any, DataShape], NetworkRecord]
    discriminator: Callable[[Any, DataShape], NetworkRecord]
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kind: Literal["image", "vector"] = "image"
    conditional: bool = False
    styles: bool = False
    grows: bool = False


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
