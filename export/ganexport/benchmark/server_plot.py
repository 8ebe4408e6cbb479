"""The picture of the server scenario: the highest rate of each server, and the latency's percentiles at that rate."""

from __future__ import annotations

from typing import Any

from ganexport.benchmark.plot import (
    DPI,
    LIGHT,
    SIZE_PIXELS,
    Theme,
    add_headline,
    new_figure,
    png_from_figure,
    style_axes,
)
from ganexport.benchmark.result import BenchResult, figure_text
from ganexport.benchmark.row_plot import latency_rows

_ROW_INCHES, _FRAME_INCHES = 0.34, 1.3


def server_png_from_result(result: BenchResult, theme: Theme = LIGHT) -> bytes:
    """A PNG, a row for each server; the limit is a line. A server that kept it at no rate has no bar, and says so."""
    assert result.slo_ms is not None
    names = list(result.server)
    figure = new_figure(SIZE_PIXELS[0] / DPI, _FRAME_INCHES + _ROW_INCHES * len(names), theme)
    axes: Any = figure.subplots(1, 2, sharey=True)
    left, right = axes
    colours = theme.colours(result)
    fastest = max(found.rate_per_second for found in result.server.values())
    for y, name in enumerate(names):
        found = result.server[name]
        left.barh(y, found.rate_per_second, 0.66, color=colours[name])
        text = figure_text(found.rate_per_second) if found.trial is not None else "none within the limit"
        if found.trial is not None and found.images_per_batch > 1:
            text += f" · {found.images_per_batch:.1f} a batch"
        left.annotate(
            text, (found.rate_per_second, y), (4, 0), textcoords="offset points", fontsize=7.5, va="center",
            color=theme.text,
        )  # fmt: skip
    rows = {
        y: ((trial.p50_ms, trial.p90_ms, trial.p99_ms), colours[name])
        for y, name in enumerate(names)
        if (trial := result.server[name].trial) is not None
        and trial.p50_ms is not None
        and trial.p90_ms is not None
        and trial.p99_ms is not None
    }
    left.set_xlim(0, (fastest or 1.0) * 1.5)
    left.set_xlabel("requests per second")
    left.set_xticks([tick for tick in left.get_xticks() if 0 <= tick <= fastest * 1.05])
    left.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    style_axes(left, theme, "Highest rate within the limit", grid="x")
    left.set_yticks(range(len(names)), [result.server[name].label for name in names])
    left.set_ylim(len(names) - 0.4, -0.6)  # the first at the top
    left.tick_params(axis="y", labelcolor=theme.text, labelsize=8.5)
    if rows:
        latency_rows(right, rows, theme, result.slo_ms)
    right.set_xlabel("ms from the scheduled time: p50 · p90 · p99")
    style_axes(right, theme, f"Latency at that rate; limit {result.slo_ms:g} ms", grid="x")
    add_headline(figure, result, theme, "Poisson arrivals of single latents")
    return png_from_figure(figure)
