"""The painter of the drawn faces: flat, warm cartoon portraits, layer over layer.

Everything is painted several times larger than asked and averaged down.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from gantrain.data.face_attributes import (
    BACKGROUNDS,
    HAIR_COLOURS,
    JITTER,
    OUTFIT_COLOURS,
    SKINS,
    FaceAttributes,
)
from gantrain.data.face_canvas import (
    INK,
    WHITE,
    Canvas,
    Points,
    ellipse,
    loop,
    mirrored,
    mix,
    ramp,
    shaded,
    strand,
    stroke,
    tufts,
)
from gantrain.data.face_features import Features
from gantrain.data.face_hair import Hair
from gantrain.data.face_head import Head


def _pair(points: Points) -> tuple[Points, Points]:
    """A shape given relative to the picture's middle line, on both sides of it."""
    return mirrored(points, 1.0) + _MIDDLE, mirrored(points, -1.0) + _MIDDLE


_MIDDLE = np.array([128.0, 0.0])

_SHOULDERS = loop(
    [(10, 300), (24, 252), (58, 230), (100, 218), (128, 222), (156, 218), (198, 230), (232, 252), (246, 300)]
)
_HOOD = loop([(62, 226), (78, 204), (104, 196), (128, 194), (152, 196), (178, 204), (194, 226), (128, 250)])
_NECK = strand([(105, 176), (105, 206), (98, 221), (128, 240), (158, 221), (151, 206), (151, 176)])
_TEE_COLLAR = stroke([(96, 219), (108, 232), (128, 238), (148, 232), (160, 219)], (7, 8, 8, 8, 7))
_SHIRT_FLAPS = _pair(tufts([(30, 212, -0.05), (2, 240, 0.0), (22, 258, 0.0), (44, 228, 0.0), (30, 212, 0)]))
_HOOD_RIM = stroke([(90, 219), (106, 238), (128, 246), (150, 238), (166, 219)], (13, 15, 14, 15, 13))
_CORDS = _pair(stroke([(13, 244), (16, 256), (15, 268)], (4, 4, 4)))
_SCARF = loop([(80, 216), (104, 206), (128, 218), (152, 206), (176, 216), (178, 232), (128, 248), (78, 232)])
_SCARF_FOLD = stroke([(86, 224), (128, 236), (170, 224)], (1, 3, 1))

_BALD_SHINE = loop([(-40, 68), (-27, 56), (-9, 53), (-13, 60), (-27, 66), (-36, 76)])


class _Painter:
    def __init__(self, canvas: Canvas, face: FaceAttributes) -> None:
        j = self.jitter = dict(zip(JITTER, face.jitter, strict=True))
        self.canvas, self.face = canvas, face
        self.skin = shaded(SKINS[face.skin], 0.06 * j["skin_shade"])
        self.outfit = shaded(OUTFIT_COLOURS[face.outfit_colour], 0.07 * j["outfit_shade"])
        self.head = Head(face, j)
        hair_colours = shaded(HAIR_COLOURS[face.hair_colour], 0.08 * j["hair_shade"])
        self.hair = Hair(canvas, face, j, self.head, hair_colours)
        self.features = Features(canvas, face, j, self.head, self.skin, mix(hair_colours[1], hair_colours[3], 0.6))
        tilt = 0.022 * j["tilt"]  # tangent of half the angle
        scale = 1.01 + 0.025 * j["scale"]
        cos, sin = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
        self.frame = (scale * cos, scale * sin, 3 * j["shift_x"], 3 + 2 * j["shift_y"])

    def paint(self) -> None:
        self._background()
        self.canvas.stand(*self.frame)
        self.hair.paint_behind(band=self.outfit[2], band_line=self.outfit[1])
        self.canvas.stand(1.0, 0.0, 0.0, 0.0)
        self._body()
        self.canvas.stand(*self.frame)
        self._skull()
        self.features.paint_under_hair()
        self.hair.paint_front()
        self.features.paint_over_hair()

    def _background(self) -> None:
        c, j = self.canvas, self.jitter
        top, bottom, disc = shaded(BACKGROUNDS[self.face.background], 0.06 * j["background_shade"])
        c.image.paste(ramp(top, bottom, c.side_px, c.side_px))
        c.discs(np.array([(128 + 14 * j["disc_x"], 122 + 10 * j["disc_y"])]), np.array([106.0]), disc)

    def _body(self) -> None:
        c = self.canvas
        skin, shade, line, *_ = self.skin
        cloth, cloth_shade, accent = self.outfit
        cloth_line = mix(cloth_shade, INK, 0.45)
        if self.face.outfit == "hoodie":
            c.fill(_HOOD, cloth_shade, cloth_line)
        c.fill(_SHOULDERS, cloth, cloth_line)
        with c.clipped(_NECK):
            c.fill(_NECK, skin)
            c.fill(self.head.outline * 0.93 + (9, 28), shade)
        c.contour(_NECK, line)
        match self.face.outfit:
            case "tee":
                c.fill(_TEE_COLLAR, cloth_shade, cloth_line, 1.5)
            case "shirt":
                for flap in _SHIRT_FLAPS:
                    c.fill(flap, mix(cloth, WHITE, 0.6), cloth_line, 1.5)
                c.fill(ellipse(128, 252, 3, 3), accent)
            case "hoodie":
                c.fill(_HOOD_RIM, mix(cloth, WHITE, 0.14), cloth_line, 1.5)
                for cord in _CORDS:
                    c.fill(cord, accent)
            case "scarf":
                c.fill(_SCARF, accent, mix(accent, INK, 0.4))
                c.fill(_SCARF_FOLD, mix(accent, INK, 0.22))

    def _skull(self) -> None:
        c, head = self.canvas, self.head
        skin, shade, line, blush, _ = self.skin
        if not self.hair.covers_ears:
            for side in (1.0, -1.0):
                # The far ear goes behind the head, the near one comes round to the front.
                turn = max(0.0, side * head.yaw) * 15 + max(0.0, -side * head.yaw) * 4
                x = 128 + side * (67 * head.width - turn)
                c.fill(ellipse(x, 140, 11, 16), skin, line)
                c.fill(ellipse(x + side, 141, 5, 9), shade)
        with c.clipped(head.outline):
            c.fill(head.outline, skin)
            c.fill(head.shaded_side, mix(skin, shade, 0.5))
            for side in (1.0, -1.0):
                x, y = head.turned([(side * 43, 165)])[0]
                c.glow(ellipse(x, y, 20, 14), mix(skin, blush, 0.75 + 0.2 * self.jitter["blush"]))
            if self.face.hair_style == "bald":
                c.fill(head.turned(_BALD_SHINE), mix(skin, WHITE, 0.45))
            self.hair.paint_shadow(mix(skin, shade, 0.8))
        c.contour(head.outline, line)


def picture_from_face(face: FaceAttributes, size: int) -> Image.Image:
    """RGB, size × size, at least 16. Details thinner than a pixel are left out below 96."""
    factor = max(4 if size <= 512 else 2, -(-256 // size))
    canvas = Canvas(size * factor, detail=size >= 96)
    _Painter(canvas, face).paint()
    return canvas.image.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=2.0)
