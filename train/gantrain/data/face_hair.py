"""The hair of a drawn face: for each style what is behind the head, what hangs over it, and how it is painted."""

from __future__ import annotations

import numpy as np

from gantrain.data.face_attributes import Colour, FaceAttributes
from gantrain.data.face_canvas import (
    Canvas,
    Corners,
    Points,
    Strip,
    ellipse,
    loop,
    mirrored,
    mix,
    strand,
    stroke,
    table,
    tufts,
)
from gantrain.data.face_head import Head

# Control points of the cap's outside from the right ear over the top to the left ear.
_CAP = table([(73, 128), (76, 98), (63, 61), (35, 37), (0, 29), (-35, 37), (-63, 61), (-76, 98), (-73, 128)])

# The edge of the front hair over the face, from the cap's left end to its right end, for hair parted on the left:
# corners (x, y, bulge).
_FRINGE: dict[str, Corners] = {
    "short": [
        (-73, 128, 0.1), (-61, 142, 0.1), (-58, 100, 0.1), (-46, 104, 0.1), (-30, 74, -0.15), (-9, 99, 0.12),
        (-2, 82, -0.1), (21, 105, 0.12), (27, 86, -0.1), (48, 108, 0.15), (58, 98, 0.1), (61, 142, 0.1), (73, 128, 0),
    ],
    "spiky": [
        (-73, 128, 0.1), (-61, 146, 0.05), (-59, 98, 0.05), (-46, 110, 0.05), (-36, 82, -0.05), (-19, 108, 0.05),
        (-10, 80, -0.05), (5, 112, 0.05), (16, 82, -0.05), (31, 107, 0.05), (40, 84, -0.05), (51, 109, 0.05),
        (59, 98, 0.05), (61, 146, 0.05), (73, 128, 0),
    ],
    "curly": [(-72, 120, 0.1), (-60, 110, 0.25), (0, 72, 0.25), (60, 110, 0.1), (72, 120, 0)],
    "bob": [
        (-77, 168, 0.08), (-61, 186, 0.1), (-60, 101, 0.02), (-36, 106, 0.1), (-33, 94, -0.1), (-8, 107, 0.05),
        (-4, 95, -0.05), (20, 107, 0.05), (25, 95, -0.05), (40, 106, 0.05), (60, 101, 0.05), (61, 186, 0.1),
        (77, 168, 0),
    ],
    "long": [
        (-76, 150, 0.05), (-66, 180, 0.06), (-60, 124, 0.1), (-16, 62, -0.1), (-2, 80, 0.05), (31, 95, 0.1),
        (60, 120, 0.1), (66, 180, 0.06), (76, 150, 0),
    ],
    "ponytail": [
        (-72, 122, 0.1), (-62, 144, 0.1), (-59, 104, 0.1), (-22, 64, -0.2), (4, 90, 0.08), (34, 101, 0.08),
        (59, 102, 0.1), (62, 144, 0.1), (72, 122, 0),
    ],
    "bun": [
        (-72, 122, 0.1), (-62, 134, 0.1), (-59, 102, 0.2), (0, 64, 0.2), (59, 102, 0.1), (62, 134, 0.1), (72, 122, 0),
    ],
    "twintails": [
        (-73, 128, 0.08), (-63, 164, 0.08), (-59, 102, 0.05), (-39, 107, 0.05), (-32, 88, -0.05), (-14, 107, 0.05),
        (0, 85, -0.05), (14, 107, 0.05), (32, 88, -0.05), (39, 107, 0.05), (59, 102, 0.05), (63, 164, 0.08),
        (73, 128, 0),
    ],
}  # fmt: skip


def _front(corners: Corners) -> tuple[Points, Points, int]:
    """A fringe closed by the cap; how far each point follows the fringe's length; how many points are the fringe."""
    edge = tufts(corners)
    cap = strand(np.concatenate([edge[-1:], _CAP[1:-1], edge[:1]]))
    moves = np.minimum(np.maximum((58 - np.abs(edge[:, 0])) / 12, 0.0), 1.0)
    return np.concatenate([edge, cap[1:-1]]), np.concatenate([moves, np.zeros(len(cap) - 2)]), len(edge)


_FRONTS = {style: _front(corners) for style, corners in _FRINGE.items()}

_NAPE = loop([(0, 34), (60, 62), (72, 110), (62, 150), (0, 170), (-62, 150), (-72, 110), (-60, 62)])
_BOB = loop([
    (0, 30), (62, 58), (80, 112), (85, 160), (72, 192), (0, 196), (-72, 192), (-85, 160), (-80, 112), (-62, 58),
])  # fmt: skip
_LONG = loop([
    (0, 30), (62, 58), (80, 112), (87, 170), (95, 232), (88, 290), (0, 300), (-88, 290), (-95, 232), (-87, 170),
    (-80, 112), (-62, 58),
])  # fmt: skip
_LOCK = np.concatenate([strand([(69, 124), (66, 190), (80, 268)]), strand([(80, 268), (94, 200), (80, 130)])])
_PONYTAIL = tufts([
    (50, 52, 0.3), (98, 100, 0.12), (90, 208, 0.05), (82, 178, -0.06), (70, 198, -0.12), (62, 90, 0.0), (50, 52, 0),
])  # fmt: skip
_TWINTAIL = tufts([
    (58, 62, 0.3), (102, 104, 0.1), (101, 226, 0.05), (92, 196, -0.05), (79, 218, -0.12), (70, 110, 0), (58, 62, 0),
])  # fmt: skip
_SPIKES = tufts([
    (66, 150, 0.08), (96, 132, -0.08), (78, 108, 0.08), (103, 86, -0.08), (77, 73, 0.08), (88, 40, -0.08),
    (55, 49, 0.08), (50, 14, -0.08), (25, 36, 0.08), (6, 6, -0.08), (-14, 35, 0.08), (-41, 11, -0.08),
    (-48, 47, 0.08), (-83, 34, -0.08), (-74, 71, 0.08), (-103, 80, -0.08), (-78, 106, 0.08), (-97, 128, -0.08),
    (-66, 150, 0),
])  # fmt: skip
# Locks of curly hair: x, y, radius. The back ones make the silhouette, the front ones frame the forehead.
_CURLS_BACK = table([
    (-70, 150, 22), (-80, 120, 24), (-76, 88, 25), (-57, 58, 26), (-30, 40, 26), (0, 34, 27), (30, 40, 26),
    (57, 58, 26), (76, 88, 25), (80, 120, 24), (70, 150, 22), (-62, 172, 17), (62, 172, 17), (0, 100, 70),
])  # fmt: skip
_CURLS_FRONT = table([
    (-69, 118, 12), (-64, 98, 14), (-52, 80, 16), (-30, 69, 16), (-5, 71, 17), (19, 66, 16), (43, 74, 16),
    (60, 92, 14), (69, 114, 12), (-50, 56, 18), (-22, 48, 19), (8, 46, 19), (36, 52, 18),
])  # fmt: skip
_SHINE = loop([
    (-60, 82), (-48, 62), (-24, 50), (0, 47), (24, 50), (48, 62), (60, 82), (45, 69), (24, 59), (0, 56), (-24, 59),
    (-45, 69),
])  # fmt: skip
_CAP_SHADE = loop([(74, 124), (74, 98), (61, 63), (36, 40), (22, 35), (46, 56), (60, 80), (66, 104)])
# The lower right rim of a curl of radius 1.
_CURL_ARC = stroke([(0.72, -0.2), (0.54, 0.54), (-0.2, 0.72)], (0.04, 0.17, 0.04))
_SHADOW = np.array([1.0, 7.0])  # how far the hair's shadow falls


class Hair:
    """The hair of one head: its shapes, placed and ready to fill, and their painting in the head's frame.

    colours: base, shade, light, line.
    """

    def __init__(
        self,
        canvas: Canvas,
        face: FaceAttributes,
        jitter: dict[str, float],
        head: Head,
        colours: tuple[Colour, ...],
    ) -> None:
        self.canvas, self.style, self.head, self.colours = canvas, face.hair_style, head, colours
        self.volume = 1 + 0.05 * jitter["volume"]
        self.part = 1.0 if jitter["part"] >= 0 else -1.0
        self.drop = 4 * jitter["fringe"]
        self.covers_ears = self.style in ("long", "bob", "curly")
        self.front, self.fringe_points = self._front() if self.style != "bald" else (np.empty((0, 2)), 0)

    def _front(self) -> tuple[Points, int]:
        """What hangs over the face, and how many of its points are the fringe and not the cap."""
        points, moves, edge = _FRONTS[self.style]
        points = mirrored(points, self.part)
        points[:, 1] += self.drop * moves
        return self._placed(points), edge

    def _placed(self, points: Strip | Points, depth: float | None = None) -> Points:
        grown = (np.asarray(points, np.float64) - (0, 110)) * self.volume + (0, 110)
        return self.head.turned(grown, depth)

    def _strands(self) -> list[Points]:
        """Thin lines that run up from the fringe's notches."""
        corners = _FRINGE[self.style]
        lines = []
        for (_, before, _), (x, y, _), (_, after, _) in zip(corners, corners[1:], corners[2:], strict=False):
            if abs(x) < 50 and y < before and y < after:
                x, y = x * self.part, y + self.drop
                lines.append(stroke(self._placed([(x, y), (0.9 * x, y - 12), (0.74 * x, y - 22)]), (2.4, 1.6, 0.4)))
        return lines

    def _back(self) -> Points | None:
        """Behind the head and the neck."""
        match self.style:
            case "bald" | "curly":
                return None
            case "spiky":
                return self._placed(_SPIKES, -0.2)
            case "bob":
                return self._placed(_BOB, -0.2)
            case "long":
                return self._placed(_LONG, -0.2)
        return self._placed(_NAPE, -0.08)

    def _tails(self) -> list[Points]:
        """Behind everything: tails and buns."""
        match self.style:
            case "ponytail":
                return [self._placed(mirrored(_PONYTAIL, self.part), -0.55)]
            case "twintails":
                return [self._placed(mirrored(_TWINTAIL, side), -0.3) for side in (1.0, -1.0)]
            case "bun":
                return [self._placed(ellipse(0, 33, 31, 25), -0.6)]
        return []

    def _ties(self) -> list[Points]:
        """Bands that hold tails and buns."""
        match self.style:
            case "ponytail":
                return [self._placed(ellipse(67 * self.part, 63, 9, 10), -0.4)]
            case "twintails":
                return [self._placed(ellipse(72 * side, 70, 9, 10), -0.1) for side in (1, -1)]
        return []

    def _locks(self) -> list[Points]:
        """In front of the shoulders."""
        return [self._placed(mirrored(_LOCK, side)) for side in (1.0, -1.0)] if self.style == "long" else []

    def _curls(self, locks: Points, depth: float | None = None) -> tuple[Points, Points]:
        """Middles [N, 2] and radii [N]."""
        return self._placed(locks[:, :2], depth), locks[:, 2]

    def paint_behind(self, band: Colour, band_line: Colour) -> None:
        """What is behind the head: tails, the bands that tie them, the back of the hair."""
        c = self.canvas
        base, shade, _, line = self.colours
        for tail in self._tails():
            c.fill(tail, base, line)
        for tie in self._ties():
            c.fill(tie, band, band_line)
        if self.style == "curly":
            middles, radii = self._curls(_CURLS_BACK, -0.2)
            c.discs(middles, radii + 1.0, line)
            c.discs(middles, radii - 1.0, shade)
        back = self._back()
        if back is not None:
            c.fill(back, base if self.style == "spiky" else shade, line)

    def paint_shadow(self, colour: Colour) -> None:
        """The shadow on the forehead."""
        if self.style == "bald":
            return
        if self.style == "curly":
            middles, radii = self._curls(_CURLS_FRONT)
            self.canvas.discs(middles + _SHADOW, radii, colour)
        self.canvas.fill(self.front + _SHADOW, colour)

    def paint_front(self) -> None:
        """What hangs over the face, with its shine and its shade."""
        c, front = self.canvas, self.front
        base, shade, light, line = self.colours
        if self.style == "bald":
            return
        for lock in self._locks():
            c.fill(lock, base, line)
        if self.style == "curly":
            middles, radii = self._curls(_CURLS_FRONT)
            c.discs(middles, radii + 1.0, line)
            c.fill(front, base)
            c.discs(middles, radii - 1.0, base)
            if c.detail:
                for middle, radius in zip(middles, radii, strict=True):
                    c.fill(_CURL_ARC * radius + middle, shade)
            for middle, radius in zip(middles[9:], radii[9:], strict=True):
                c.fill(-_CURL_ARC * radius + middle, light)
            return
        c.fill(front, base)
        c.fill(self._placed(_CAP_SHADE), mix(base, shade, 0.7))
        c.fill(self._placed(_SHINE), light)
        if self.style == "spiky":
            # The spikes behind go on from the cap: no line between them.
            c.contour(front[: self.fringe_points], line, closed=False)
        else:
            c.contour(front, line)
        if c.detail:
            for thin in self._strands():
                c.fill(thin, mix(base, line, 0.6))
