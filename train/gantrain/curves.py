"""Curves as inline SVG in the colours of the page: lines over steps, with the range that each stroke spans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from gantrain.history import Float64

_HEIGHT = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 24
_BINS = 240  # strokes of a line: as many as there are pixels to tell them apart on a small screen
_TICKS = 4
_KINDS = ("line-1", "line-2")

STYLE = """
.chart { display: block; width: 100%; height: auto; }
.chart text { font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--faint); }
.chart text { paint-order: stroke; stroke: var(--card); stroke-width: 3px; }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .mark { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 4 4; }
.chart polyline { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.chart path { stroke: none; fill-opacity: .16; }
.chart circle { stroke: var(--card); stroke-width: 2; }
:root { --one: #2868c7; --two: #d9691a; }
@media (prefers-color-scheme: dark) { :root { --one: #6ea8ff; --two: #f0924c; } }
.line-1 polyline { stroke: var(--one); } .line-1 path, .line-1 circle { fill: var(--one); }
.line-2 polyline { stroke: var(--two); } .line-2 path, .line-2 circle { fill: var(--two); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; margin: -6px 0 8px; color: var(--faint); font-size: 13px; }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px; }
.legend i { margin-right: 7px; vertical-align: 3px; }
.legend .line-1 { background: var(--one); } .legend .line-2 { background: var(--two); }
.legend b { color: var(--text); font-weight: 600; font-variant-numeric: tabular-nums; }
"""


@dataclass(frozen=True)
class Curve:
    """A line: its name in the legend, and float64 [N] each of steps, increasing, and of finite values."""

    name: str
    steps: Float64
    values: Float64


def chart(
    curves: Sequence[Curve],
    steps: int,
    *,
    logarithmic: bool = False,
    least: float | None = None,
    most: float | None = None,
    mark: tuple[float, str] | None = None,
    best_step: int | None = None,
    dots: bool = False,
    width: int = 520,
) -> str:
    """One or two curves over steps 0 … `steps`, with a legend that has their last values; "" where there are none.

    Args:
        logarithmic: of the values, of which those above 0 are drawn.
        least, most: ends of the values' axis at the least; None for what the curves have.
        mark: a value that means something, and what, for a dashed line.
        best_step: where the first curve gets a dot.
        dots: whether each value gets a small dot: where they are few.
        width: in units of which a letter takes 11.
    """
    shown = [_positive(curve) if logarithmic else curve for curve in curves]
    shown = [curve for curve in shown if len(curve.values)]
    if not shown:
        return ""
    low, high = _span([curve.values for curve in shown], least, most, mark, logarithmic)
    ticks = _powers(low, high) if logarithmic else _round_numbers(low, high)

    def x(step: float) -> float:
        return _LEFT + (width - _LEFT - _RIGHT) * step / max(1, steps)

    def y(value: float) -> float:
        share = (math.log(value / low) / math.log(high / low)) if logarithmic else (value - low) / (high - low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = [f'<svg class="chart" viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{escape(_words(shown))}">']
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in _round_numbers(0, max(1, steps)):
        anchor = "end" if x(tick) > width - 40 else "middle"
        at = min(x(tick), width - _RIGHT) if anchor == "end" else x(tick)
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{number(tick)}</text>')
    if mark is not None:
        at = y(mark[0])
        parts.append(f'<line class="mark" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
    for curve, kind in zip(shown, _KINDS, strict=False):
        place, mean, bottom, top = _binned(curve, steps)
        points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(place, mean, strict=True))
        parts.append(f'<g class="{kind}">')
        if (top > bottom).any():
            there = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(place, top, strict=True))
            back = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(place[::-1], bottom[::-1], strict=True))
            parts.append(f'<path d="M{there} L{back} Z"/>')
        parts.append(f'<polyline points="{points}"/>')
        if dots or len(place) == 1:
            parts += [f'<circle cx="{x(s):.1f}" cy="{y(v):.1f}" r="3.5"/>' for s, v in zip(place, mean, strict=True)]
        parts.append("</g>")
    if mark is not None:
        parts.append(f'<text x="{width - _RIGHT}" y="{y(mark[0]) - 5:.1f}" text-anchor="end">{escape(mark[1])}</text>')
    first = shown[0]
    if best_step is not None and best_step in first.steps:
        value = float(first.values[np.searchsorted(first.steps, best_step)])
        left = x(best_step) > width / 2
        above = y(value) > _TOP + 26
        parts.append(f'<g class="line-2"><circle cx="{x(best_step):.1f}" cy="{y(value):.1f}" r="5.5"/></g>')
        parts.append(
            f'<text x="{x(best_step) + (-9 if left else 9):.1f}" y="{y(value) + (-9 if above else 18):.1f}" '
            f'text-anchor="{"end" if left else "start"}">best: {number(value)}</text>'
        )
    parts.append("</svg>")
    return _legend(shown) + "".join(parts)


def _legend(curves: Sequence[Curve]) -> str:
    items = (
        f'<span><i class="{kind}"></i>{escape(curve.name)} <b>{number(float(curve.values[-1]))}</b></span>'
        for curve, kind in zip(curves, _KINDS, strict=False)
    )
    return f'<div class="legend">{"".join(items)}</div>'


def _words(curves: Sequence[Curve]) -> str:
    return "; ".join(f"{c.name}: {number(float(c.values[-1]))} at step {c.steps[-1]:.0f}" for c in curves)


def _binned(curve: Curve, steps: int) -> tuple[Float64, Float64, Float64, Float64]:
    """Places, means, least and largest values [B] of the curve in at most `_BINS` equal parts of the steps."""
    if len(curve.steps) <= _BINS:
        return curve.steps, curve.values, curve.values, curve.values
    part = np.minimum((curve.steps * _BINS / max(1, steps)).astype(np.int64), _BINS - 1)
    starts = np.flatnonzero(np.r_[True, part[1:] != part[:-1]])
    counts = np.diff(np.r_[starts, len(part)])
    return (
        np.add.reduceat(curve.steps, starts) / counts,
        np.add.reduceat(curve.values, starts) / counts,
        np.minimum.reduceat(curve.values, starts),
        np.maximum.reduceat(curve.values, starts),
    )


def _positive(curve: Curve) -> Curve:
    above = curve.values > 0
    return Curve(curve.name, curve.steps[above], curve.values[above])


def _span(
    values: Sequence[Float64], least: float | None, most: float | None, mark: tuple[float, str] | None, powers: bool
) -> tuple[float, float]:
    """The ends of the axis. One odd batch in a thousand may leave the picture: it must not flatten the rest."""
    joined = np.concatenate(values)
    low, high = (float(v) for v in np.quantile(joined, (0.001, 0.999)))
    for known in (least, most, None if mark is None else mark[0]):
        if known is not None:
            low, high = min(low, known), max(high, known)
    if powers:
        return (low / 1.3, high * 1.3)
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return (low if low == least else low - room, high if high == most else high + room)


def _round_numbers(low: float, high: float) -> list[float]:
    """About `_TICKS` multiples of 1, 2 or 5 times a power of ten between two values."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
    return [round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten between two values, at most `_TICKS` + 1; where there are not two, round numbers."""
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    if last - first < 1:
        return [tick for tick in _round_numbers(low, high) if tick > 0]
    every = -(-(last - first + 1) // (_TICKS + 1))
    return [10.0**k for k in range(first, last + 1, every)]


def number(value: float) -> str:
    """Three digits, more of a whole number."""
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.0f}" if abs(value) >= 1000 or value == round(value) else f"{value:.3g}"
