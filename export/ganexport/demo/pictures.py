"""The report's pictures, as PNG files: sheets with a see-through gap, strips, and plots in two colour schemes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ganexport.benchmark.plot import DARK, DPI, LIGHT, Theme, new_figure, png_from_figure, style_axes
from ganexport.demo.judging import Shares
from ganruntime import noise
from ganruntime.errors import CheckpointError
from ganruntime.images import columns_for
from ganruntime.spec import Latent, TensorSpec

Images = NDArray[np.uint8]
GAP = 2
_SHEET_PADDING = 2  # of `ganruntime.images.sheet_from_images`, in which training draws its samples


@dataclass(frozen=True)
class Picture:
    """A PNG file with its size in pixels; plots have a second one for dark pages."""

    png: bytes
    width: int
    height: int
    dark_png: bytes | None = None


def sheet(images: Images, columns: int, gap: int = GAP) -> Picture:
    """Images uint8 [N, H, W, 1 or 3] in rows, nothing between them but transparency, so that it suits any page."""
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    whole = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, channels + 1), np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        whole[top : top + height, left : left + width, :channels] = image
        whole[top : top + height, left : left + width, channels] = 255
    picture = PIL.Image.fromarray(whole, "LA" if channels == 1 else "RGBA")
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return Picture(file.getvalue(), *picture.size)


def images_from_sheet(path: Path, size: int, total: int, count: int) -> Images:
    """The first `count` images of a training's sample sheet of `total`: uint8 [count, size, size, C].

    Raises:
        CheckpointError: the picture is not such a sheet.
    """
    try:
        with PIL.Image.open(path) as picture:
            pixels = np.asarray(picture)
    except OSError as error:
        raise CheckpointError(f"{path} is not a picture", got=str(error)) from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    columns = columns_for(total)
    cell = (pixels.shape[1] - _SHEET_PADDING) // columns
    scale = (cell - _SHEET_PADDING) // size
    if scale < 1 or pixels.shape[1] != columns * (size * scale + _SHEET_PADDING) + _SHEET_PADDING:
        raise CheckpointError(f"{path} is not a sheet of {total} images of {size} px", got=f"{pixels.shape[:2]}")
    found = []
    for i in range(min(count, total)):
        top, left = (_SHEET_PADDING + (k * cell) for k in (i // columns, i % columns))
        found.append(pixels[top : top + size * scale : scale, left : left + size * scale : scale])
    return np.stack(found)


def interpolated(tensor: TensorSpec, seed: int, first: int, strips: int, columns: int) -> NDArray[np.float32]:
    """Latents on the way from one to another, strip after strip: float32 [strips · columns, *shape].

    Along the great circle where the latent is normal or on a sphere (White, "Sampling Generative Networks", 2016,
    arXiv:1609.04468): a straight line would pass through lengths that the network was never shown. Else straight.
    """
    ends = noise.latents(tensor, seed, first, 2 * strips).reshape(strips, 2, -1).astype(np.float64)
    curved = isinstance(tensor.role, Latent) and tensor.role.distribution in ("normal", "sphere")
    way = np.linspace(0.0, 1.0, columns)
    rows = [(slerp if curved else _lerp)(a, b, t) for a, b in ends for t in way]
    return np.stack(rows).astype(np.float32).reshape(strips * columns, *(d or 0 for d in tensor.shape))


def slerp(a: NDArray[np.float64], b: NDArray[np.float64], t: float) -> NDArray[np.float64]:
    """From a (t = 0) to b (t = 1), turning evenly, with lengths that change evenly."""
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if length_a == 0.0 or length_b == 0.0:
        return _lerp(a, b, t)
    cosine = float(np.clip(a @ b / (length_a * length_b), -1.0, 1.0))
    angle = float(np.arccos(cosine))
    if np.sin(angle) < 1e-6:  # the same direction, or opposite ones, between which no great circle is singled out
        return _lerp(a, b, t)
    direction = (np.sin((1 - t) * angle) * a / length_a + np.sin(t * angle) * b / length_b) / np.sin(angle)
    turned: NDArray[np.float64] = direction * ((1 - t) * length_a + t * length_b)
    return turned


def _lerp(a: NDArray[np.float64], b: NDArray[np.float64], t: float) -> NDArray[np.float64]:
    return (1 - t) * a + t * b


def losses_plot(log: Sequence[Mapping[str, Any]]) -> Picture:
    """Both losses, and how real the discriminator takes either side to be, over the steps."""
    return _themed(lambda theme: _losses_png(log, theme), *_LOSSES_INCHES)


def shares_plot(shares: Sequence[Shares]) -> Picture:
    """A panel an attribute: the share of every class, real beside generated."""
    return _themed(lambda theme: _shares_png(shares, theme), *_shares_inches(shares))


_LOSSES_INCHES = (9.5, 3.4)


def _shares_inches(shares: Sequence[Shares]) -> tuple[float, float]:
    return 9.5, 3.2 if len(shares) == 1 else 2.9 * -(-len(shares) // 3)


def _themed(draw: Any, width: float, height: float) -> Picture:
    return Picture(draw(LIGHT), round(width * DPI), round(height * DPI), draw(DARK))


def _losses_png(log: Sequence[Mapping[str, Any]], theme: Theme) -> bytes:
    figure = new_figure(*_LOSSES_INCHES, theme)
    left, right = figure.subplots(1, 2)
    steps = np.array([line["step"] for line in log])
    for axes, pairs, title in (
        (left, (("loss_d", "discriminator"), ("loss_g", "generator")), "Losses"),
        (right, (("d_real", "of real images"), ("d_fake", "of generated images")), "What D takes for real"),
    ):
        for (key, label), colour in zip(pairs, (theme.colour("plain"), theme.colour("ours")), strict=True):
            values = np.array([line[key] for line in log], np.float64)
            axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
            axes.plot(steps, _smoothed(values), color=colour, linewidth=2.0, label=label)
        axes.set_xlabel("generator steps")
        style_axes(axes, theme, title)
        axes.legend(frameon=False, fontsize=8.5, labelcolor=theme.text)
    left.set_ylim(0, None)
    right.set_ylim(0, 1)
    return png_from_figure(figure)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A running mean over a twentieth of the curve, narrower at its ends."""
    half = max(1, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    smooth: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return smooth


def _shares_png(shares: Sequence[Shares], theme: Theme) -> bytes:
    rows, columns = -(-len(shares) // 3), min(3, len(shares))
    figure = new_figure(*_shares_inches(shares), theme)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, found in zip(grid, shares, strict=False):
        at = np.arange(len(found.classes))
        axes.bar(at - 0.2, found.real, 0.38, color=theme.colour("pytorch"), label="real")
        axes.bar(at + 0.2, found.generated, 0.38, color=theme.colour("ours"), label="generated")
        if len(shares) == 1:
            for x, share in zip(at, found.generated, strict=True):
                axes.annotate(
                    f"{share:.1%}", (x + 0.2, share), (0, 3), textcoords="offset points",
                    ha="center", fontsize=7.5, color=theme.text,
                )  # fmt: skip
        long = max(map(len, found.classes)) > 3
        axes.set_xticks(at, found.classes, rotation=35 if long else 0, ha="right" if long else "center")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        title = found.attribute.replace("_", " ")
        style_axes(axes, theme, "Share of each digit" if title == "digit" else title.capitalize())
    for axes in grid[len(shares) :]:
        axes.set_visible(False)
    grid[0].legend(frameon=False, fontsize=8.5, labelcolor=theme.text, loc="upper right", ncols=2)
    grid[0].set_ylim(0, grid[0].get_ylim()[1] * 1.15)
    return png_from_figure(figure)
