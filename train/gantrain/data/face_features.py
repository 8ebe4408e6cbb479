"""The features of a drawn face: eyes, brows, nose, mouth and glasses."""

from __future__ import annotations

import numpy as np

from gantrain.data.face_attributes import EYE_COLOURS, Colour, FaceAttributes, rgb_from_code
from gantrain.data.face_canvas import (
    CIRCLE,
    INK,
    WHITE,
    Canvas,
    Points,
    Strip,
    ellipse,
    loop,
    mirrored,
    mix,
    strand,
    stroke,
    table,
)
from gantrain.data.face_head import Head

_MOUTH_INSIDE, _TONGUE = rgb_from_code("7C2733"), rgb_from_code("F2767A")
_SCLERA, _SCLERA_SHADE = rgb_from_code("FFFDFA"), rgb_from_code("D6CEDA")

# An eye about its middle, x away from the nose.
_EYE = np.concatenate([
    strand([(-16, 4), (-13, -9), (-2, -18), (10, -15), (17, -1)]),
    strand([(17, -1), (13, 14), (1, 20), (-11, 16), (-16, 4)]),
])  # fmt: skip
_EYE_SHADE = table([(-20, -22), (20, -22), (20, -7), (0, -12), (-20, -4)])
_LASH_LINE = stroke([(-17, 6), (-13, -9), (-2, -18), (10, -15), (18.5, 1)], (2.2, 4.8, 6, 6.4, 3.2))
_LID_FOLD = stroke([(-8, 19), (2, 21.2), (11, 17)], (0.8, 1.8, 1))
_LASHES = tuple(
    stroke([(x0, y0), ((x0 + x1) / 2 + 1, (y0 + y1) / 2 + 1.4), (x1, y1)], (5, 4, 1))
    for x0, y0, x1, y1 in ((11.5, -13, 19, -22), (15, -8, 24, -14), (17.5, -1, 25, -4.5))
)
_BROW = stroke([(-14, 3.2), (-9, 0), (1, -2), (16, 3)], (2.4, 4.8, 5, 1.6))
_NOSE = stroke([(-3.8, -1.4), (-1.6, 1.6), (1.2, 2), (3.8, -0.6)], (1, 3, 3, 1))

# A closed mouth is a stroke, bolder where the picture is small; an open one has an outline, a tongue and, where they
# show, teeth.
_MOUTH_LINES: dict[str, tuple[Strip, tuple[float, ...]]] = {
    "smile": ([(-17, -3), (-9, 4), (0, 6.5), (9, 4), (17, -3)], (2, 4.8, 5.6, 4.8, 2)),
    "neutral": ([(-12, 0.5), (-6, 1.6), (0, 2), (6, 1.6), (12, 0.5)], (1.6, 4, 4.6, 4, 1.6)),
    "sad": ([(-15, 7), (-8, 1), (0, -1), (8, 1), (15, 7)], (2, 4.8, 5.6, 4.8, 2)),
}
_FINE_MOUTHS, _BOLD_MOUTHS = (
    {kind: stroke(line, tuple(weight * width for width in widths)) for kind, (line, widths) in _MOUTH_LINES.items()}
    for weight in (1.0, 1.45)
)
_OPEN_MOUTHS: dict[str, tuple[Points, Points, Points | None]] = {
    "laugh": (
        np.concatenate([
            strand([(-19, -5), (0, -2), (19, -5)]),
            strand([(19, -5), (13, 9), (0, 14), (-13, 9), (-19, -5)]),
        ]),
        loop([(-12, 10), (-8, 6), (0, 5), (8, 6), (12, 10), (8, 18), (-8, 18)]),
        table([(-20, -8), (20, -8), (17, 1), (0, 3.5), (-17, 1)]),
    ),
    "surprised": (
        loop([(0, -6), (7.5, -1), (8, 7), (0, 13), (-8, 7), (-7.5, -1)]),
        loop([(-7, 10), (0, 6.5), (7, 10), (0, 17)]),
        None,
    ),
}  # fmt: skip
# How the brows follow the mouth: how far they rise, and how far their inner ends do.
_BROW_MOODS = {"surprised": (5.0, 0.0), "sad": (0.0, 4.5), "laugh": (2.0, 0.0)}

_LENSES = {
    "round": CIRCLE * (28, 28),
    "square": loop([(-27, -20), (0, -22), (27, -21), (29, 0), (25, 22), (0, 24), (-24, 22), (-28, 0)]),
    "sun": loop([(-26, -17), (0, -21), (30, -20), (30, 2), (18, 24), (-4, 26), (-22, 14)]),
}
_FRAMES = {"round": rgb_from_code("12525C"), "square": rgb_from_code("23263A"), "sun": rgb_from_code("1D1A22")}
_GLINT = table([(-20, 13), (-9, 17), (11, -17), (1, -17)])


class Features:
    """The features of one face, painted in its head's frame.

    skin: base, shade, line, blush, lips.
    """

    def __init__(
        self,
        canvas: Canvas,
        face: FaceAttributes,
        jitter: dict[str, float],
        head: Head,
        skin: tuple[Colour, ...],
        brow: Colour,
    ) -> None:
        self.canvas, self.face, self.jitter, self.head = canvas, face, jitter, head
        self.skin, self.brow_colour = skin, brow
        self.eyes = (33 + 1.6 * jitter["eye_spacing"], 134.0)

    def paint_under_hair(self) -> None:
        """What the fringe falls over: nose, mouth, eyes and the arms of the glasses."""
        self._nose()
        self._mouth()
        for side in (-1.0, 1.0):
            self._eye(side)
        if self.face.glasses != "none":
            self._temples()

    def paint_over_hair(self) -> None:
        """What shows through the fringe: brows and glasses."""
        for side in (-1.0, 1.0):
            self._brow(side)
        if self.face.glasses != "none":
            self._glasses()

    def _nose(self) -> None:
        yaw = self.head.yaw
        place = (5.5 * yaw, 159 + 2 * self.jitter["nose"])
        shape = self.head.turned(mirrored(_NOSE, -1.0 if yaw > 0.5 else 1.0) + place)
        self.canvas.fill(shape, mix(self.skin[1], self.skin[2], 0.4))

    def _mouth(self) -> None:
        c, j, lips, kind = self.canvas, self.jitter, self.skin[4], self.face.mouth
        size = (1.16 + 0.13 * j["mouth_width"], 1.14 + 0.14 * j["mouth_height"])
        place = (2 * self.head.yaw, 176.0)

        def at(points: Points) -> Points:
            return self.head.turned(points * size + place)

        if kind in _MOUTH_LINES:
            c.fill(at((_FINE_MOUTHS if c.detail else _BOLD_MOUTHS)[kind]), lips)
            return
        outline, tongue, teeth = _OPEN_MOUTHS[kind]
        shape = at(outline)
        with c.clipped(shape):
            c.fill(shape, _MOUTH_INSIDE)
            c.fill(at(tongue), _TONGUE)
            if teeth is not None:
                c.fill(at(teeth), WHITE)
        c.contour(shape, lips, 2.8)

    def _eye(self, side: float) -> None:
        c, head, j = self.canvas, self.head, self.jitter
        ex, ey = self.eyes
        w, h = 1 + 0.07 * j["eye_width"], 1 + 0.1 * j["eye_height"]
        slant = (2.2 * j["eye_slant"] - 0.6) / 17

        def at(points: Points) -> Points:
            placed = points * (side * w, h) + (side * ex, ey)
            placed[:, 1] -= slant * points[:, 0]
            return head.turned(placed)

        top, bottom, line = EYE_COLOURS[self.face.eye_colour]
        x, y = head.turned([(side * ex + 1.5 * head.yaw + 2 * j["gaze"], ey + 1.5)])[0]
        # Foreshortening of the iris: the derivative of `turned` at the eye.
        u = (ex / 70) ** 2
        squeeze = 1 - side * head.yaw * 17 * (1 + 2 * u) * ex / 4900
        rx, ry = 11.8 * w * squeeze, 15.8 * h
        white = at(_EYE)
        with c.clipped(white):
            c.fill(white, _SCLERA)
            c.fill(at(_EYE_SHADE), _SCLERA_SHADE)
            c.fill(ellipse(x, y, rx + 1.2, ry + 1.2), line)
            c.blend(ellipse(x, y, rx - 0.6, ry - 0.6), top, bottom)
            c.fill(ellipse(x, y - 0.5, rx * 0.46, ry * 0.48), line)
        c.fill(ellipse(x - 0.36 * rx, y - 0.42 * ry, rx * 0.36, ry * 0.32), WHITE)
        ink = mix(INK, self.skin[2], 0.15)
        c.fill(at(_LASH_LINE), ink)
        if c.detail:
            c.fill(ellipse(x + 0.4 * rx, y + 0.5 * ry, rx * 0.19, ry * 0.16), WHITE)
            c.fill(at(_LID_FOLD), mix(self.skin[1], self.skin[2], 0.6))
        if self.face.lashes == "long":
            # On the far side they would leave the face.
            reach = 1 - 0.08 * max(0.0, side * head.yaw)
            for lash in _LASHES:
                c.fill(at(lash * (reach, 1)), ink)

    def _brow(self, side: float) -> None:
        j = self.jitter
        ex, ey = self.eyes
        lift, inner = _BROW_MOODS.get(self.face.mouth, (0.0, 0.0))
        inner += 2 * j["brow_angle"]
        shape = _BROW * (side, 1 + 0.25 * j["brow_weight"]) + (side * ex, ey - 31 - 2 * j["brow_height"] - lift)
        shape[:, 1] += inner * (0.05 * _BROW[:, 0] - 0.3)
        self.canvas.fill(self.head.turned(shape), self.brow_colour)

    def _temples(self) -> None:
        ex, ey = self.eyes
        for side in (1.0, -1.0):
            if side * self.head.yaw < 0.5:  # the far one is behind the face
                x, y = self.head.turned([(side * (ex + 27), ey - 5)])[0]
                end = 128 + side * 68 * self.head.width
                arm = stroke([(x, y), ((x + end) / 2, ey - 4), (end, ey - 2)], (5, 4.5, 4))
                self.canvas.fill(arm, _FRAMES[self.face.glasses])

    def _glasses(self) -> None:
        c, head, kind = self.canvas, self.head, self.face.glasses
        ex, ey = self.eyes
        for side in (1.0, -1.0):
            middle = (side * ex, ey + 1)
            lens = mirrored(_LENSES[kind], side)
            inner, outer = head.turned(lens * 0.93 + middle), head.turned(lens * 1.07 + middle)
            if kind == "sun":
                c.veil(inner, rgb_from_code("2B2438"), 0.84)
                c.veil(head.turned(_GLINT + middle), WHITE, 0.24)
            else:
                c.veil(inner, WHITE, 0.1)
            c.ring(outer, inner, _FRAMES[kind])
        c.fill(stroke(head.turned([(27 - ex, ey - 4), (0, ey - 8), (ex - 27, ey - 4)]), (5, 5, 5)), _FRAMES[kind])
