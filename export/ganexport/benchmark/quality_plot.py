"""The picture of speed over quality: how many images a second, and how far from what the network itself draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ganexport.benchmark.plot import DPI, LIGHT, Theme, add_headline, new_figure, png_from_figure, style_axes
from ganexport.benchmark.result import BenchResult, figure_text
from ganexport.parity import PSNR_CAP_DB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE_PIXELS = (1710, 900)
# Two summation orders of float32 leave some 130 dB; one pixel level of 255 throughout is 48 dB.
_ONE_LEVEL_DB = 48.1


def quality_png_from_result(result: BenchResult, theme: Theme = LIGHT) -> bytes:
    """A PNG: x is images a second at the largest batch size, y the PSNR of the worst sample; up and right is better.

    Contenders that give pixels are left out: a rounded pixel's PSNR is not comparable. The reference, which is its own
    measure, is a line at its speed.
    """
    figure = new_figure(_SIZE_PIXELS[0] / DPI, _SIZE_PIXELS[1] / DPI, theme)
    _points(figure, result, theme)
    add_headline(figure, result, theme, "outputs against eager PyTorch's")
    return png_from_figure(figure)


def _points(figure: Figure, result: BenchResult, theme: Theme) -> None:
    axes: Any = figure.subplots()
    batch = max(result.offline)
    colours = theme.colours(result)
    points = []
    for name, found in result.offline[batch].items():
        errors = [by_name[name] for by_name in result.agreement.values() if name in by_name]
        psnr_db = result.psnr_db(name)
        if psnr_db is not None and all("max_abs" in e for e in errors):
            points.append((found.images_per_second.median, psnr_db, name))
    reference = next(iter(result.contenders))
    speed = result.offline[batch][reference].images_per_second.median
    axes.axvline(speed, color=theme.faint, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.annotate(
        result.label(reference), (speed, 0.0), xycoords=("data", "axes fraction"), xytext=(5, 6),
        textcoords="offset points", fontsize=8, color=theme.faint,
    )  # fmt: skip
    axes.axhline(_ONE_LEVEL_DB, color=theme.faint, linewidth=1.0, linestyle=(0, (1, 3)))
    axes.annotate(
        "every pixel off by one level of 255", (1.0, _ONE_LEVEL_DB), xycoords=("axes fraction", "data"),
        xytext=(-2, -9), textcoords="offset points", fontsize=7.5, color=theme.faint, ha="right", va="center",
    )  # fmt: skip
    # Numbers, and the names in the legend: near fp32 a dozen points may be within one name's length of each other.
    for number, (rate, psnr_db, name) in enumerate(points, start=1):
        text = "identical" if psnr_db >= PSNR_CAP_DB else f"{psnr_db:.1f} dB"
        label = f"{number}  {result.label(name)}: {figure_text(rate)}/s, {text}"
        axes.plot(rate, psnr_db, "o", color=colours[name], markersize=13, markeredgecolor=theme.background, label=label)
        axes.annotate(
            str(number), (rate, psnr_db), fontsize=7.5, ha="center", va="center", fontweight="bold",
            color=theme.background if is_dark(colours[name]) == is_dark(theme.text) else theme.text,
        )  # fmt: skip
    heights = [_ONE_LEVEL_DB, *(p[1] for p in points)]
    axes.set_xlim(0, max([speed, *(p[0] for p in points)]) * 1.08)
    axes.set_ylim(max(0.0, min(heights) - 18), max(heights) + 12)
    axes.set_xlabel(f"images per second, batch {batch}")
    axes.set_ylabel("PSNR of the worst sample, dB")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: "identical" if value >= PSNR_CAP_DB else f"{value:g}")
    style_axes(axes, theme, "Speed over quality", grid="both")
    axes.legend(
        frameon=False, fontsize=8, labelcolor=theme.text, loc="upper left", bbox_to_anchor=(1.0, 1.02), markerscale=0.6
    )


def is_dark(colour: str) -> bool:
    """Whether a colour `#rrggbb` is nearer to black than to white, by its luma (ITU-R BT.601)."""
    red, green, blue = bytes.fromhex(colour[1:])
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
