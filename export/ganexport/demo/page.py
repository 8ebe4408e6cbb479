"""Pictures inside a page, which need no file beside it. The other pieces of a page are `gantrain.page_parts`."""

from __future__ import annotations

import base64
from html import escape

from ganexport.demo.pictures import Picture


def image(picture: Picture, alt: str, *, scale: int = 1, pixelated: bool = True) -> str:
    """An <img> with the picture inside it: pixels at `scale` times their size, or as wide as a narrow page is; plots as
    wide as the page, and on a narrow one wide enough to be read, in a box that scrolls."""
    look = "pixels" if pixelated else "plot"
    tag = (
        f'<img class="{look}" src="{_data(picture.png)}" alt="{escape(alt)}" width="{picture.width * scale}" '
        f'height="{picture.height * scale}">'
    )
    if picture.dark_png is not None:
        dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(picture.dark_png)}">'
        tag = f"<picture>{dark}{tag}</picture>"
    return tag if pixelated else f'<div class="scroll">{tag}</div>'


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
