"""The picture of speed over quality: how many images a second, and how far from what the network itself draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ganexport.benchmark.label_places import Point, Rectangle, caption_place, is_beside, label_places
from ganexport.benchmark.plot import DPI, LIGHT, Theme, add_headline, new_figure, png_from_figure, style_axes
from ganexport.benchmark.result import BenchResult, figure_text
from ganexport.parity import PSNR_CAP_DB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE_PIXELS = (1710, 900)
# Two summation orders of float32 leave some 130 dB; one pixel level of 255 throughout is 48 dB.
_ONE_LEVEL_DB = 48.1
_RADIUS_PIXELS, _DOT_PIXELS = 16.5, 6.0


def quality_png_from_result(result: BenchResult, theme: Theme = LIGHT) -> bytes:
    """A PNG: x is images a second at the largest batch size, y the PSNR of the worst sample; up and right is better.

    Contenders that give pixels are left out: a rounded pixel's PSNR is not comparable. The reference, which is its own
    measure, is a line at its speed.
    """
    figure = new_figure(_SIZE_PIXELS[0] / DPI, _SIZE_PIXELS[1] / DPI, theme)
    _points(figure, result, theme)
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
    axes.axhline(_ONE_LEVEL_DB, color=theme.faint, linewidth=1.0, linestyle=(0, (1, 3)))
    # Numbers, and the names in the legend: near fp32 a dozen points may be within one name's length of each other.
    for number, (rate, psnr_db, name) in enumerate(points, start=1):
        text = "identical" if psnr_db >= PSNR_CAP_DB else f"{psnr_db:.1f} dB"
        label = f"{number}  {result.label(name)}: {figure_text(rate)}/s, {text}"
        axes.plot([], [], "o", color=colours[name], markersize=8, label=label)
    heights = [_ONE_LEVEL_DB, *(p[1] for p in points)]
    axes.set_xlim(0, max([speed, *(p[0] for p in points)]) * 1.08)
    axes.set_ylim(max(0.0, min(heights) - 18), max(heights) + 12)
    axes.set_xlabel(f"images per second, batch {batch}")
    axes.set_ylabel("PSNR of the worst sample, dB")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: "identical" if value >= PSNR_CAP_DB else f"{value:g}")
    style_axes(axes, theme, "Speed over quality", grid="both")
    axes.legend(frameon=False, fontsize=8, labelcolor=theme.text, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    add_headline(figure, result, theme, "outputs against eager PyTorch's")
    # From here on pixels are what they will be in the file: the layout is made, and kept.
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    places = [(rate, psnr_db) for rate, psnr_db, _ in points]
    low, high = axes.get_ylim()
    on_the_line = [(speed, low + (high - low) * step / 200) for step in range(201)]
    ends = [((speed, at), (5.0, 0.0)) for at in _along(axes.get_ylim())]
    levels = [((at, _ONE_LEVEL_DB), (0.0, side)) for at in _along(axes.get_xlim()) for side in (-9.0, 9.0)]
    captions = [
        _caption(axes, theme, result.label(reference), places, ends),
        _caption(axes, theme, "every pixel off by one level of 255", places, levels, [on_the_line]),
    ]
    _labels(axes, theme, points, colours, captions)


def _along(limits: tuple[float, float]) -> list[float]:
    """Where a caption may begin along its line: from the ends to the middle."""
    low, high = limits
    shares = [step / 50 for step in range(1, 50)]
    return [low + share * (high - low) for share in sorted(shares, key=lambda share: (min(share, 1 - share), share))]


def _caption(
    axes: Any,
    theme: Theme,
    text: str,
    points: Sequence[Point],
    places: Sequence[tuple[Point, Point]],
    lines: Sequence[Sequence[Point]] = (),
) -> Rectangle:
    """Writes a line's caption at the best of the places, ((x, y), (points right, points up)); gives the room that it
    takes, in pixels.

    points, lines: what else there is, in data coordinates.
    """

    def written(place: Point, offset: Point) -> Any:
        return axes.annotate(
            text, place, xytext=offset, textcoords="offset points", fontsize=7.5, color=theme.faint, va="center"
        )

    def pixels(of: Sequence[Point]) -> list[Point]:
        return [(float(x), float(y)) for x, y in axes.transData.transform(of)] if of else []

    note = written(*places[0])
    box = note.get_window_extent()
    note.remove()
    at = [
        (x + right * DPI / 72, y + up * DPI / 72)
        for (x, y), (_, (right, up)) in zip(pixels([place for place, _ in places]), places, strict=True)
    ]
    first = Rectangle(box.x0, box.y0, box.x1, box.y1)
    rooms = [first.moved(x - at[0][0], y - at[0][1]) for x, y in at]
    frame = axes.get_window_extent()
    within = Rectangle(frame.x0, frame.y0, frame.x1, frame.y1)
    chosen = caption_place(rooms, pixels(points), _RADIUS_PIXELS, within, [pixels(line) for line in lines])
    written(*places[chosen])
    return rooms[chosen]


def _labels(
    axes: Any,
    theme: Theme,
    points: Sequence[tuple[float, float, str]],
    colours: Mapping[str, str],
    captions: Sequence[Rectangle],
) -> None:
    """A numbered disc for each point: on it, or beside it with a line to a dot that is where the point is."""
    if not points:
        return
    frame = axes.get_window_extent()
    pixels = [(float(x), float(y)) for x, y in axes.transData.transform([(p[0], p[1]) for p in points])]
    within = Rectangle(frame.x0, frame.y0, frame.x1, frame.y1)
    places = label_places(pixels, _RADIUS_PIXELS, _DOT_PIXELS, within, captions)
    to_data = axes.transData.inverted()
    for number, ((rate, psnr_db, name), pixel, place) in enumerate(zip(points, pixels, places, strict=True), start=1):
        x, y = to_data.transform(place)
        colour = colours[name]
        if is_beside(pixel, place):
            axes.plot([rate, x], [psnr_db, y], color=colour, linewidth=1.0, zorder=2)
            axes.plot(rate, psnr_db, "o", color=colour, markersize=_points_from(2 * _DOT_PIXELS), zorder=3)
        axes.plot(
            x,
            y,
            "o",
            color=colour,
            markersize=_points_from(2 * _RADIUS_PIXELS),
            markeredgecolor=theme.background,
            zorder=4,
        )
        axes.annotate(
            str(number), (x, y), fontsize=7.5, ha="center", va="center", fontweight="bold", zorder=5,
            color=theme.background if is_dark(colour) == is_dark(theme.text) else theme.text,
        )  # fmt: skip


def _points_from(pixels: float) -> float:
    return pixels * 72 / DPI


def is_dark(colour: str) -> bool:
    """Whether a colour `#rrggbb` is nearer to black than to white, by its luma (ITU-R BT.601)."""
    red, green, blue = bytes.fromhex(colour[1:])
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
