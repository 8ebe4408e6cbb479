"""Previews: a small picture of what each recipe draws, from a recorded run of the gallery (`docs/gallery.md`).

A PNG a recipe in this folder, under the recipe's name with underscores for hyphens: `ROWS` × `COLUMNS` images without
frames. `benchmarks/gallery.py` writes them.
"""

from __future__ import annotations

from importlib.resources import files

ROWS, COLUMNS = 2, 10


def preview_of(recipe: str) -> bytes | None:
    """The PNG of the recipe called `recipe`; None where there is none, as for a recipe of one's own."""
    file = files(__name__) / f"{recipe.replace('-', '_')}.png"
    return file.read_bytes() if file.is_file() else None
