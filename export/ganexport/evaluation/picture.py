"""The picture of nearest neighbours: generated images beside the real ones that they are most like."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from ganexport.evaluation.evaluation import Pair
from ganruntime.images import pil_from_image

_CELL_PIXELS, _GAP, _MARGIN, _LINE, _TEXT_SIZE = 112, 4, 20, 20, 14
_BETWEEN = 16
_INK, _FAINT, _PAPER = (31, 36, 48), (102, 112, 133), (255, 255, 255)


def png_from_pairs(pairs: tuple[Pair, ...], seed: int, counts: tuple[int, int]) -> bytes:
    """The PNG file: a column a generated image, above its nearest training and its nearest held-out image, each under
    its distance, the root mean square over 16×16 pixels as a share of the range.

    Args:
        pairs: at least one.
        counts: how many training and held-out images there are.
    """
    font = ImageFont.load_default(_TEXT_SIZE)
    label_width = int(max(font.getlength(text) for text in ("generated", "held out", "train"))) + 16
    width = 2 * _MARGIN + label_width + len(pairs) * (_CELL_PIXELS + _GAP)
    row = _CELL_PIXELS + _LINE + _BETWEEN
    top = _MARGIN + 2 * _LINE + _BETWEEN
    whole = PIL.Image.new("RGB", (max(width, 640), top + 3 * row + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(whole)
    heading = f"the generated images of seed {seed} that are nearest to a training image"
    explained = f"of {counts[0]:,} training and {counts[1]:,} held-out images; among more, the nearest is nearer"
    draw.text((_MARGIN, _MARGIN), heading, _INK, font)
    draw.text((_MARGIN, _MARGIN + _LINE), explained, _FAINT, font)
    for k, name in enumerate(("generated", "train", "held out")):
        draw.text((_MARGIN, top + k * row + _LINE), name, _INK, font)
    for column, pair in enumerate(pairs):
        x = _MARGIN + label_width + column * (_CELL_PIXELS + _GAP)
        for k, (image, text) in enumerate(
            (
                (pair.generated, f"{pair.index}"),
                (pair.train, f"{pair.distance_train:.3f}"),
                (pair.held_out, f"{pair.distance_held_out:.3f}"),
            )
        ):
            draw.text((x, top + k * row), text, _FAINT, font)
            whole.paste(_cell(image), (x, top + k * row + _LINE))
    file = io.BytesIO()
    whole.save(file, "PNG", optimize=True)
    return file.getvalue()


def _cell(image: NDArray[np.uint8]) -> PIL.Image.Image:
    cell = pil_from_image(image).convert("RGB")
    kernel = PIL.Image.Resampling.NEAREST if cell.width <= _CELL_PIXELS else PIL.Image.Resampling.LANCZOS
    return cell.resize((_CELL_PIXELS, _CELL_PIXELS), kernel)
