"""The picture of a benchmark of many contenders: a row for each, a column for each batch size and for the latency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ganexport.benchmark.plot import DPI, SIZE_PIXELS, Theme, add_headline, new_figure, style_axes
from ganexport.benchmark.result import BenchResult, figure_text, milliseconds_text, ratio_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW_INCHES, _FRAME_INCHES = 0.3, 1.25
_MOST_COLUMNS = 4
_TEXT_SHARE = 0.42  # of a column of latencies, at its right, free for the figures


def figure_in_rows(result: BenchResult, theme: Theme) -> Figure:
    """As wide as the other picture, as high as it takes. Of many batch sizes the smallest and the largest are drawn."""
    batches = list(result.offline)
    if len(batches) > _MOST_COLUMNS:
        batches = sorted({batches[round(i * (len(batches) - 1) / (_MOST_COLUMNS - 1))] for i in range(_MOST_COLUMNS)})
    names = list(result.contenders)
    height = _FRAME_INCHES + _ROW_INCHES * len(names)
    figure = new_figure(SIZE_PIXELS[0] / DPI, height, theme)
    columns: Any = figure.subplots(1, len(batches) + 1, sharey=True, width_ratios=[1.0] * len(batches) + [1.55])
    colours = theme.colours(result)
    for axes, batch in zip(columns, batches, strict=False):
        _bars(axes, result, names, batch, colours, theme)
    _latencies(columns[-1], result, names, colours, theme)
    columns[0].set_yticks(range(len(names)), [result.label(name) for name in names])
    columns[0].set_ylim(len(names) - 0.4, -0.6)  # the first at the top
    columns[0].tick_params(axis="y", labelcolor=theme.text, labelsize=8.5)
    add_headline(figure, result, theme, f"medians of {result.rounds} interleaved rounds, and ratios to eager PyTorch")
    return figure


def _bars(axes: Any, result: BenchResult, names: list[str], batch: int, colours: dict[str, str], theme: Theme) -> None:
    by_name = result.offline[batch]
    longest = max(found.images_per_second.median for found in by_name.values())
    for y, name in enumerate(names):
        if name not in by_name:
            axes.annotate(
                "failed", (0, y), (3, 0), textcoords="offset points", fontsize=7.5, va="center", color=theme.faint
            )
            continue
        found = by_name[name]
        rate = found.images_per_second
        axes.barh(y, rate.median, 0.66, color=colours[name])
        text = f"{figure_text(rate.median)} · {ratio_text(found.ratio.median)}"
        axes.annotate(
            text, (rate.median, y), (4, 0), textcoords="offset points", fontsize=7.5, va="center", color=theme.text
        )  # fmt: skip
    axes.set_xlim(0, longest * 1.75)  # room for the text behind the longest bar
    axes.set_xticks([])
    axes.set_xlabel("images per second")
    style_axes(axes, theme, f"Batch {batch}", grid="x")


def _latencies(axes: Any, result: BenchResult, names: list[str], colours: dict[str, str], theme: Theme) -> None:
    rows = {
        names.index(name): ((found.p50_ms, found.p90_ms, found.p99_ms), colours[name])
        for name, found in result.single_stream.items()
    }
    latency_rows(axes, rows, theme)
    axes.set_xlabel("ms for one image: p50 · p90 · p99")
    style_axes(axes, theme, "Latency (single stream)", grid="x")


def latency_rows(
    axes: Any, rows: Mapping[int, tuple[tuple[float, float, float], str]], theme: Theme, limit_ms: float | None = None
) -> None:
    """For each row its p50 as a dot, to p90 a bar, to p99 its shadow, and the three figures at the right edge.

    Args:
        rows: y -> (p50, p90 and p99 in ms, colour).
        limit_ms: drawn as a line, where it is given.
    """
    limits = [] if limit_ms is None else [limit_ms]
    fastest = min([*limits, *(percentiles[0] for percentiles, _ in rows.values())])
    slowest = max([*limits, *(percentiles[2] for percentiles, _ in rows.values())])
    for y, ((p50_ms, p90_ms, p99_ms), colour) in rows.items():
        line = {"color": colour, "linewidth": 6, "solid_capstyle": "round"}
        axes.plot([p50_ms, p99_ms], [y, y], alpha=0.35, **line)
        axes.plot([p50_ms, p90_ms], [y, y], **line)
        axes.plot(p50_ms, y, "o", color=colour, markersize=8, markeredgecolor=theme.background)
        axes.annotate(
            " · ".join(milliseconds_text(value) for value in (p50_ms, p90_ms, p99_ms)), (1.0, y),
            xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=7.5, color=theme.text,
        )  # fmt: skip
    if slowest / fastest > 12:
        low, high = fastest / 1.5, slowest * 1.6
        axes.set_xscale("log")
        axes.set_xlim(low, low * (high / low) ** (1 / (1 - _TEXT_SHARE)))
        decades = [10.0**k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        axes.set_xticks(decades, [f"{decade:g}" for decade in decades])
        axes.minorticks_off()
    else:
        axes.set_xlim(0, slowest * 1.06 / (1 - _TEXT_SHARE))
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= slowest * 1.06])
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if limit_ms is not None:
        axes.axvline(limit_ms, color=theme.text, linewidth=1.2, linestyle=(0, (4, 3)))
