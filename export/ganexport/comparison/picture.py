"""The picture of a comparison: the worst cases, A and B side by side, and their difference amplified."""

from __future__ import annotations

import io
import math

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFont

from ganexport.comparison.comparison import Comparison, OutputComparison, WorstCase
from ganexport.parity import PSNR_CAP_DB
from ganruntime.images import pil_from_image, uint8_from_output
from ganruntime.spec import Image, TensorSpec

_CELL_PIXELS = 160  # small images are drawn with whole pixels of at least about this size
_GAP, _MARGIN, _LINE = 4, 20, 20
_BETWEEN = 28  # between two triples in a row, and above each row
_TEXT_SIZE = 14
_INK, _FAINT, _PAPER = (31, 36, 48), (102, 112, 133), (255, 255, 255)
# So that single pixels do not make all others black: one in two hundred may be whiter than white.
_SHOWN_SHARE = 0.995


def png_from_comparison(comparison: Comparison, output: OutputComparison) -> bytes:
    """The PNG file. Each case is three images: A, B, and |A - B| times a factor that is the same for all and stands in
    the picture, under the case's seed and index, with which it can be drawn again, and its PSNR.

    Args:
        output: an image of 1, 3 or 4 channels.
    """
    tensor, cases = output.tensor, output.worst
    gaps = [_gap(case, tensor) for case in cases]
    factor = amplification(gaps)
    triples = [_triple(case, gap, factor, tensor) for case, gap in zip(cases, gaps, strict=True)]
    wide, tall = triples[0].size
    columns = 2 if len(cases) > 3 and wide <= 3 * 280 else 1
    rows = -(-len(cases) // columns)
    heading = _heading(comparison, output, factor, gaps)
    font = ImageFont.load_default(_TEXT_SIZE)
    width = max(columns * wide + (columns - 1) * _BETWEEN, 3 * _CELL_PIXELS) + 2 * _MARGIN
    top = _MARGIN + _LINE * len(heading) + _MARGIN // 2
    height = top + rows * (tall + 2 * _LINE + _BETWEEN) - _BETWEEN + _MARGIN
    whole = PIL.Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(whole)
    for i, (line, colour) in enumerate(heading):
        draw.text((_MARGIN, _MARGIN + i * _LINE), _shortened(line, width - 2 * _MARGIN, font), colour, font)
    for i, (case, triple) in enumerate(zip(cases, triples, strict=True)):
        x = _MARGIN + (i % columns) * (wide + _BETWEEN)
        y = top + (i // columns) * (tall + 2 * _LINE + _BETWEEN)
        draw.text((x, y), _shortened(_case_text(comparison, case), wide, font), _INK, font)
        for k, name in enumerate(("A", "B", f"|A - B| x {factor:,}")):
            draw.text((x + k * (wide + _GAP) // 3, y + _LINE), name, _FAINT, font)
        whole.paste(triple, (x, y + 2 * _LINE))
    file = io.BytesIO()
    whole.save(file, "PNG", optimize=True)
    return file.getvalue()


def amplification(gaps: list[NDArray[np.float64]]) -> int:
    """The largest of 1, 2, 5, 10, 20, 50, … under which differences, as shares of the range, stay at most 1; but for
    one value in two hundred. 1 where there is no difference."""
    values = np.concatenate([gap.ravel() for gap in gaps])
    largest = float(np.quantile(values, _SHOWN_SHARE)) or float(values.max())
    if not 0 < largest < 1:
        return 1
    power = 10 ** math.floor(math.log10(1 / largest))
    return int(next(step * power for step in (5, 2, 1) if step * power * largest <= 1))


def _gap(case: WorstCase, tensor: TensorSpec) -> NDArray[np.float64]:
    """|A - B| as a share of the range, [H, W, C]; a value that is not finite counts as the whole range."""
    assert isinstance(tensor.role, Image)
    low, high = tensor.role.range
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(case.a.astype(np.float64) - case.b.astype(np.float64)) / (high - low)
    gap = np.nan_to_num(gap, nan=1.0, posinf=1.0)
    return gap.transpose(1, 2, 0) if tensor.role.layout == "CHW" else gap


def _triple(case: WorstCase, gap: NDArray[np.float64], factor: int, tensor: TensorSpec) -> PIL.Image.Image:
    amplified = np.rint(np.minimum(gap * factor, 1.0) * 255).astype(np.uint8)
    if amplified.shape[2] == 4:  # a difference in opacity would hide itself
        amplified = amplified.max(axis=2, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        a, b = (uint8_from_output(x[None], tensor)[0] for x in (case.a, case.b))
    tall, wide = a.shape[:2]
    scale = max(1, round(_CELL_PIXELS / max(tall, wide)))
    size = wide * scale, tall * scale
    triple = PIL.Image.new("RGB", (3 * size[0] + 2 * _GAP, size[1]), _PAPER)
    for k, pixels in enumerate((a, b, amplified)):
        cell = pil_from_image(pixels).resize(size, PIL.Image.Resampling.NEAREST)
        at = (k * (size[0] + _GAP), 0)
        triple.paste(cell.convert("RGB"), at, cell.getchannel("A") if cell.mode == "RGBA" else None)
    return triple


def _heading(
    comparison: Comparison, output: OutputComparison, factor: int, gaps: list[NDArray[np.float64]]
) -> list[tuple[str, tuple[int, int, int]]]:
    last = comparison.first + comparison.latents - 1
    at_size = f" at {comparison.size_label}" if comparison.size is not None else ""
    whites = f"white in |A - B| x {factor:,} is a difference of {100 / factor:.3g} % of the range"
    if max(float(gap.max()) for gap in gaps) * factor > 1:
        whites += " or more"
    return [
        (f"A   {comparison.label_a}   {comparison.where_a}", _INK),
        (f"B   {comparison.label_b}   {comparison.where_b}", _INK),
        (
            f"{output.tensor.name}{at_size}: the worst {len(output.worst)} of {comparison.latents:,} latents, seed "
            f"{comparison.seed}, indices {comparison.first} to {last}",
            _FAINT,
        ),
        (whites if any(gap.any() for gap in gaps) else "A and B are equal", _FAINT),
    ]


def _case_text(comparison: Comparison, case: WorstCase) -> str:
    psnr = "equal" if case.psnr_db >= PSNR_CAP_DB else f"PSNR {case.psnr_db:.1f} dB"
    return f"seed {comparison.seed}, index {case.index}   {psnr}"


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, or as much of it as fits, without its middle."""
    shown, cut = text, 0
    while font.getlength(shown) > width and len(shown) > 3:
        cut += 1
        keep = max(1, (len(text) - cut) // 2)
        shown = f"{text[:keep]}...{text[-keep:]}"
    return shown
