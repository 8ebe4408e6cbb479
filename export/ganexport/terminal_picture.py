"""Pictures in a terminal: two pixels a character, by the upper half block in 24-bit colours."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TextIO

import numpy as np
import PIL.Image

RESET = "\x1b[0m"
_BLOCK = "\N{UPPER HALF BLOCK}"


def lines_from_picture(png: bytes, columns: int) -> list[str]:
    """A picture as lines of text with colour codes (ISO 8613-6, as xterm and its like take them), ⌈height / 2⌉ of them.

    Args:
        png: of any mode.
        columns: of the terminal. What is wider is made smaller, and nothing is enlarged.
    """
    with PIL.Image.open(io.BytesIO(png)) as opened:
        picture = opened.convert("RGB")
    if picture.width > columns:
        height = max(1, round(picture.height * columns / picture.width))
        picture = picture.resize((columns, height), PIL.Image.Resampling.BOX)
    pixels = np.asarray(picture)  # [H, W, 3]
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, np.zeros_like(pixels[:1])])
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (f"{_colour(38, a)}{_colour(48, b)}{_BLOCK}" for a, b in zip(upper, lower, strict=True))
        lines.append("".join(cells) + RESET)
    return lines


def shows_colours(stream: TextIO) -> bool:
    """Whether pictures can be written to it: a terminal, and nobody has said NO_COLOR (no-color.org) or TERM=dumb;
    or anything, where FORCE_COLOR says so."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _colour(ground: int, pixel: Sequence[int]) -> str:
    return f"\x1b[{ground};2;{pixel[0]};{pixel[1]};{pixel[2]}m"
