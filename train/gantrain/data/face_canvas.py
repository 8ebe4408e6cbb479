"""What the drawn faces are painted with: colours, curves, and a canvas over Pillow.

Shapes are splines through control points in design units, 256 to the picture's side, x to the right and y down.
Coordinates come from +, ×, ÷ and √ alone, so that they are the same numbers on every platform.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gantrain.data.face_attributes import Colour, rgb_from_code

Points = NDArray[np.float64]  # [N, 2]
Strip = list[tuple[float, float]]
Corners = list[tuple[float, float, float]]

WHITE, INK = (255, 255, 255), rgb_from_code("2A1E28")


def mix(a: Colour, b: Colour, part: float) -> Colour:
    """`part` of b in a, in 1/1024ths: integers round the same everywhere."""
    p = round(part * 1024)
    return tuple((x * (1024 - p) + y * p + 512) >> 10 for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def shaded(colours: tuple[Colour, ...], amount: float) -> tuple[Colour, ...]:
    """Lighter (amount > 0) or darker together."""
    return tuple(mix(colour, WHITE if amount > 0 else (20, 10, 30), abs(amount)) for colour in colours)


# --- curves -----------------------------------------------------------------------------------------------------

_STEPS = 8
_t = np.arange(_STEPS)[:, None] / _STEPS
_t2, _t3 = _t * _t, _t * _t * _t
# Uniform Catmull-Rom (Catmull and Rom, "A class of local interpolating splines", 1974): four weights, [steps, 1] each.
_BASIS = (
    (2 * _t2 - _t - _t3) / 2,
    (2 - 5 * _t2 + 3 * _t3) / 2,
    (_t + 4 * _t2 - 3 * _t3) / 2,
    (_t3 - _t2) / 2,
)
_q = np.arange(10)[:, None] / 10
_quarter = np.concatenate([(1 - _q * _q) / (1 + _q * _q), 2 * _q / (1 + _q * _q)], axis=1)
_half = np.concatenate([_quarter, np.stack([-_quarter[:, 1], _quarter[:, 0]], axis=1)])
CIRCLE = np.concatenate([_half, -_half])  # [40, 2]


def _spline(padded: Points) -> Points:
    """[N + 3, 2] -> [N · steps, 2], from the second point to the last but one."""
    a, b, c, d = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]  # [N, 1, 2]
    return (a * _BASIS[0] + b * _BASIS[1] + c * _BASIS[2] + d * _BASIS[3]).reshape(-1, 2)


def loop(points: Strip | Points) -> Points:
    """A smooth closed curve through all points."""
    p = np.asarray(points, np.float64)
    return _spline(np.concatenate([p[-1:], p, p[:2]]))


def strand(points: Strip | Points) -> Points:
    """A smooth open curve through all points, ends included."""
    p = np.asarray(points, np.float64)
    return np.concatenate([_spline(np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])), p[-1:]])


def tufts(corners: Corners) -> Points:
    """Corners (x, y, bulge): the way to the next corner bows to its left by `bulge` of its length."""
    c = np.asarray(corners, np.float64)
    a, b = c[:-1, :2], c[1:, :2]
    way = b - a
    # The pull of a quadratic Bézier curve goes twice as far from the chord as the curve does.
    pull = (a + b) / 2 + np.stack([way[:, 1], -way[:, 0]], axis=1) * (2 * c[:-1, 2:])
    t = _t[None]  # [1, steps, 1]
    curve = (1 - t) * (1 - t) * a[:, None] + 2 * t * (1 - t) * pull[:, None] + t * t * b[:, None]
    return np.concatenate([curve.reshape(-1, 2), b[-1:]])


def stroke(points: Strip | Points, widths: tuple[float, ...]) -> Points:
    """A brush stroke: a curve through the points, as wide at each as `widths` says."""
    p = strand(points)
    way = np.empty_like(p)
    way[1:-1] = p[2:] - p[:-2]
    way[0], way[-1] = p[1] - p[0], p[-1] - p[-2]
    length = np.sqrt(way[:, 0] * way[:, 0] + way[:, 1] * way[:, 1]) + 1e-9
    w = np.array(widths)
    half = np.empty(len(p))
    half[:-1] = (w[:-1, None] + (w[1:] - w[:-1])[:, None] * _t[:, 0]).ravel()
    half[-1] = w[-1]
    normal = way[:, ::-1] * (half / (2 * length))[:, None] * _LEFT
    return np.concatenate([p + normal, (p - normal)[::-1]])


_LEFT = np.array([-1.0, 1.0])


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """About (x, y), [40, 2]."""
    return CIRCLE * (rx, ry) + (x, y)


def mirrored(points: Points, side: float) -> Points:
    """On the other side of x = 0 where `side` is -1, a copy where it is 1."""
    return points * (side, 1.0)


def table(points: Sequence[tuple[float, ...]]) -> Points:
    """Rows of numbers -> float64 [N, columns]."""
    return np.array(points, np.float64)


# --- canvas -----------------------------------------------------------------------------------------------------

_r2 = ((np.arange(64) - 31.5) / 32) ** 2
_SPOT = Image.fromarray(np.rint(255 * np.maximum(1 - _r2[:, None] - _r2, 0.0) ** 2).astype(np.uint8))


class Canvas:
    """A square RGB picture addressed in design units, through a frame: the head's turn, scale and shift.

    detail: whether lines thinner than a pixel of the small pictures are worth their time.
    """

    def __init__(self, side_px: int, *, detail: bool) -> None:
        self.side_px, self.detail = side_px, detail
        self.image = Image.new("RGB", (side_px, side_px))
        self.pen = ImageDraw.Draw(self.image)
        self.unit = side_px / 256
        self.stand(1.0, 0.0, 0.0, 0.0)

    def stand(self, cos: float, sin: float, dx: float, dy: float) -> None:
        """Sets the frame: scale · cos and scale · sin of a turn about the top of the neck, (128, 200), then a shift."""
        self._size = math.sqrt(cos * cos + sin * sin) * self.unit
        self._along = cos * self.unit
        self._across = np.array([-sin, sin]) * self.unit
        self._shift = np.array([128 + dx - cos * 128 + sin * 200, 200 + dy - sin * 128 - cos * 200]) * self.unit

    def pixels(self, points: Points) -> list[float]:
        """[N, 2] -> flat x, y, x, y … in whole pixels."""
        if not self.detail and len(points) > 16:
            points = points[::2]  # every curve has its corners at even places, or rounds them by an eighth of a step
        flat: list[float] = (
            np.rint(points * self._along + points[:, ::-1] * self._across + self._shift).ravel().tolist()
        )
        return flat

    def fill(self, points: Points, colour: Colour, line: Colour | None = None, width: float = 2.0) -> None:
        """A filled shape, with a contour if `line` is given."""
        flat = self.pixels(points)
        self.pen.polygon(flat, fill=colour)
        if line is not None:
            self.pen.line(flat + flat[:4], fill=line, width=max(1, round(width * self.unit)))

    def contour(self, points: Points, colour: Colour, width: float = 2.0, *, closed: bool = True) -> None:
        """A line through the points, and back to the first of them if `closed`."""
        flat = self.pixels(points)
        self.pen.line(flat + flat[:4] if closed else flat, fill=colour, width=max(1, round(width * self.unit)))

    def ring(self, outer: Points, inner: Points, colour: Colour) -> None:
        """What lies between two loops that start side by side, as one polygon with a seam."""
        out, back = self.pixels(outer), self.pixels(np.concatenate([inner[:1], inner[:0:-1]]))
        self.pen.polygon(out + out[:2] + back + back[:2], fill=colour)

    def discs(self, middles: Points, radii: Points, colour: Colour) -> None:
        """Circles: middles [N, 2], radii [N]."""
        flat = self.pixels(middles)
        for x, y, radius in zip(flat[0::2], flat[1::2], np.rint(radii * self._size).tolist(), strict=True):
            self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    @contextmanager
    def clipped(self, shape: Points) -> Iterator[None]:
        """What is painted inside this context is seen only inside the shape."""
        flat = self.pixels(shape)
        box = self._box(flat)
        image, pen, shift = self.image, self.pen, self._shift
        self.image = image.crop(box)
        self.pen = ImageDraw.Draw(self.image)
        self._shift = shift - box[:2]
        yield
        layer, self.image, self.pen, self._shift = self.image, image, pen, shift
        image.paste(layer, box[:2], self._stencil(flat, box))

    def veil(self, points: Points, colour: Colour, opacity: float) -> None:
        """A translucent shape."""
        flat = self.pixels(points)
        box = self._box(flat)
        self.image.paste(colour, box, self._stencil(flat, box, round(255 * opacity)))

    def glow(self, points: Points, colour: Colour) -> None:
        """A soft round spot that fills the points' box and fades to its edge."""
        box = self._box(self.pixels(points))
        spot = _SPOT.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR)
        self.image.paste(colour, box, spot)

    def blend(self, points: Points, top: Colour, bottom: Colour) -> None:
        """A shape that goes from one colour to another, top to bottom."""
        flat = self.pixels(points)
        box = self._box(flat)
        colours = ramp(top, bottom, box[2] - box[0], box[3] - box[1])
        self.image.paste(colours, box[:2], self._stencil(flat, box))

    @staticmethod
    def _stencil(flat: list[float], box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
        left, top, right, bottom = box
        stencil = Image.new("L", (right - left, bottom - top))
        moved = flat.copy()
        moved[0::2] = [x - left for x in flat[0::2]]
        moved[1::2] = [y - top for y in flat[1::2]]
        ImageDraw.Draw(stencil).polygon(moved, fill=value)
        return stencil

    def _box(self, flat: list[float]) -> tuple[int, int, int, int]:
        """The points' box within the picture, at least a pixel wide and high."""
        width, height = self.image.size
        left, top = min(max(0, int(min(flat[0::2]))), width - 1), min(max(0, int(min(flat[1::2]))), height - 1)
        right, bottom = min(width, int(max(flat[0::2])) + 1), min(height, int(max(flat[1::2])) + 1)
        return left, top, max(right, left + 1), max(bottom, top + 1)


def ramp(top: Colour, bottom: Colour, width: int, height: int) -> Image.Image:
    """From one colour to another, top to bottom."""
    row = np.arange(height)[:, None]
    steps = max(1, height - 1)
    column = (np.array(top) * (steps - row) + np.array(bottom) * row) // steps  # [H, 3]
    return Image.fromarray(column.astype(np.uint8)[:, None]).resize((width, height), Image.Resampling.NEAREST)
