"""The picture of a benchmark: throughput by batch size, and the latency of single images. Needs no screen."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ganexport.benchmark.result import BenchResult, ratio_text
from ganruntime.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Theme:
    """Colours of a plot. Families are told apart by people who see red and green alike; shades within one by their
    lightness, and by their order, which is the legend's."""

    background: str
    text: str
    faint: str
    grid: str
    families: Mapping[str, tuple[str, ...]]

    def colour(self, family: str) -> str:
        """The first shade of a family, for pictures that have one of each."""
        return self.families[family][0]

    def colours(self, result: BenchResult) -> dict[str, str]:
        """{contender: its colour}: a shade of its family's, in the order of the result."""
        used = dict.fromkeys(self.families, 0)
        colours = {}
        for name, about in result.contenders.items():
            shades = self.families[about["family"]]
            colours[name] = shades[used[about["family"]] % len(shades)]
            used[about["family"]] += 1
        return colours


DPI = 180
SIZE_PIXELS = (1710, 792)  # twice as wide as a page's column, for dense screens
MOST_IN_BARS = 6  # contenders; more are drawn in rows

LIGHT = Theme(
    "#ffffff",
    "#1f2430",
    "#667085",
    "#e4e7ec",
    {
        "pytorch": ("#98a2b3", "#c8ced8", "#6b7688", "#b0a8c4", "#7f8f86"),
        "plain": ("#4a7fb5", "#9cc0e0", "#2c5580", "#6fb3b8"),
        "ours": ("#e07a2f", "#f3b98a", "#b4551a", "#d9a441", "#8f3f14", "#f0cf8f"),
    },
)
DARK = Theme(
    "#171a21",
    "#e6e9ef",
    "#98a2b3",
    "#2d323d",
    {
        "pytorch": ("#667085", "#434b59", "#8c97aa", "#6d6484", "#58685f"),
        "plain": ("#6ea3d8", "#3d6285", "#9cc6ee", "#3f7f84"),
        "ours": ("#f0924c", "#8f5a33", "#ffb583", "#c28f2e", "#6e3c1b", "#e3c27a"),
    },
)


def require_matplotlib() -> None:
    """Raises `MissingDependencyError` naming the extra, where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib, which is not installed", got=str(error), remedy='pip install "ganexport[export]"'
        ) from error


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """A figure of our own, in inches, drawn by Agg: no global state, no screen, no configuration of the user's."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=theme.background, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, theme: Theme, title: str, grid: str = "y") -> None:
    """The house style: a title flush left, a faint grid along one axis, no frame."""
    axes.set_facecolor(theme.background)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=theme.text, pad=10)
    axes.grid(axis=grid, color=theme.grid, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(colors=theme.faint, labelsize=9, length=0)
    axes.xaxis.label.set(color=theme.faint, fontsize=9)
    axes.yaxis.label.set(color=theme.faint, fontsize=9)


def png_from_figure(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def png_from_result(result: BenchResult, theme: Theme = LIGHT) -> bytes:
    """A PNG of `SIZE_PIXELS`; with more than `MOST_IN_BARS` contenders, as wide and higher, a row for each.

    Raises `MissingDependencyError` without matplotlib.
    """
    if len(result.contenders) > MOST_IN_BARS:
        from ganexport.benchmark.row_plot import figure_in_rows

        return png_from_figure(figure_in_rows(result, theme))
    figure = new_figure(SIZE_PIXELS[0] / DPI, SIZE_PIXELS[1] / DPI, theme)
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1.0))
    _throughput(left, result, theme)
    _latency(right, result, theme)
    add_headline(figure, result, theme, f"medians of {result.rounds} interleaved rounds")
    return png_from_figure(figure)


def add_headline(figure: Figure, result: BenchResult, theme: Theme, what: str) -> None:
    """What was measured, on what, and whether it was left alone meanwhile."""
    cpu = result.environment["cpu"]["model"] or result.environment["cpu"]["architecture"]
    gpus = ", ".join(gpu["name"] for gpu in result.environment["gpus"])
    where = gpus if result.device != "cpu" and gpus else f"{cpu}, {result.threads} thread(s)"
    quiet = "" if result.neighbours.quiet else f"; NOT QUIET: others took {result.neighbours.share:.0%} of the cores"
    figure.suptitle(f"{result.generator} on {where}: {what}{quiet}", x=0.012, ha="left", fontsize=9, color=theme.faint)


def throughput_names(result: BenchResult) -> list[str]:
    """Those with a figure at every batch size; who failed on the way is in the tables alone."""
    return [name for name in result.contenders if all(name in by_name for by_name in result.offline.values())]


def _throughput(axes: Any, result: BenchResult, theme: Theme) -> None:
    names, colours = throughput_names(result), theme.colours(result)
    width = 0.82 / len(names)
    for k, name in enumerate(names):
        found = [by_name[name] for by_name in result.offline.values()]
        heights = [f.images_per_second.median for f in found]
        below = [f.images_per_second.median - f.images_per_second.low for f in found]
        above = [f.images_per_second.high - f.images_per_second.median for f in found]
        at = [i + (k - (len(names) - 1) / 2) * width for i in range(len(found))]
        axes.bar(at, heights, width * 0.92, color=colours[name], label=result.label(name))
        axes.errorbar(at, heights, [below, above], fmt="none", ecolor=theme.text, elinewidth=0.9, capsize=2)
        for x, height, up, f in zip(at, heights, above, found, strict=True):
            axes.annotate(
                ratio_text(f.ratio.median), (x, height + up), (0, 3), textcoords="offset points",
                ha="center", fontsize=7.5, color=theme.text if k else theme.faint,
            )  # fmt: skip
    axes.set_xticks(range(len(result.offline)), [str(batch) for batch in result.offline])
    axes.set_xlabel("batch size")
    axes.set_ylabel("images per second")
    axes.set_ylim(0, axes.get_ylim()[1] * 1.08)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    style_axes(axes, theme, "Throughput (offline), and ratio to eager PyTorch")
    axes.legend(
        frameon=False, fontsize=8.5, labelcolor=theme.text, loc="upper left", ncols=3, bbox_to_anchor=(-0.01, -0.13)
    )


def _latency(axes: Any, result: BenchResult, theme: Theme) -> None:
    names, colours = list(result.single_stream), theme.colours(result)
    for k, name in enumerate(names):
        found, y, colour = result.single_stream[name], len(names) - 1 - k, colours[name]
        axes.plot([found.p50_ms, found.p99_ms], [y, y], color=colour, linewidth=7, alpha=0.35, solid_capstyle="round")
        axes.plot([found.p50_ms, found.p90_ms], [y, y], color=colour, linewidth=7, solid_capstyle="round")
        axes.plot(found.p50_ms, y, "o", color=colour, markersize=10, markeredgecolor=theme.background)
        text = f"{result.label(name)}:  {found.p50_ms:.3g} · {found.p90_ms:.3g} · {found.p99_ms:.3g} ms"
        axes.annotate(
            text, (0.0, y), (2, 13), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=8.5, color=theme.text, va="center",
        )  # fmt: skip
    axes.set_yticks([])
    axes.set_ylim(-0.6, len(names) - 0.3)
    fastest = min(found.p50_ms for found in result.single_stream.values())
    slowest = max(found.p99_ms for found in result.single_stream.values())
    if slowest / fastest > 12:
        axes.set_xscale("log")
        axes.set_xlim(fastest / 1.5, slowest * 1.3)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_xlim(0, slowest * 1.06)
    axes.set_xlabel("milliseconds for one image: p50 · p90 · p99")
    style_axes(axes, theme, "Latency (single stream)", grid="x")
