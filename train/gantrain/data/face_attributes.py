"""What a drawn face can look like: its attributes and their classes, the palettes, and the jitter in between."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ganruntime.errors import InputError

Colour = tuple[int, int, int]

# The continuous part of a face, each in [-1, 1], in the order of `FaceAttributes.jitter`.
JITTER = (
    "yaw", "tilt", "shift_x", "shift_y", "scale", "face_width", "chin", "eye_width", "eye_height", "eye_spacing",
    "eye_slant", "gaze", "brow_angle", "brow_height", "brow_weight", "nose", "mouth_width", "mouth_height", "volume",
    "fringe", "part", "blush", "skin_shade", "hair_shade", "outfit_shade", "background_shade", "disc_x", "disc_y",
)  # fmt: skip


def rgb_from_code(code: str) -> Colour:
    """`RRGGBB` in hexadecimal -> 0 … 255 each."""
    return int(code[0:2], 16), int(code[2:4], 16), int(code[4:6], 16)


def _palette(table: dict[str, str]) -> dict[str, tuple[Colour, ...]]:
    return {name: tuple(rgb_from_code(code) for code in codes.split()) for name, codes in table.items()}


# base, shade, line, blush, lips
SKINS = _palette({
    "porcelain": "FFE6D8 F5C3B2 B9776A FF9C98 B4474B",
    "light": "FFD9BD F0B292 A9684F FF8F80 A93F42",
    "golden": "F3C394 DB9D6C 94603A F4846A 95352F",
    "tan": "D99F70 BB7C50 7A4A2C E4694F 74221F",
    "brown": "AE7249 8B5434 57321F C8523F 4C1416",
    "deep": "80503A 613828 3A2018 A8443A 2C090D",
})  # fmt: skip
# base, shade, light, line
HAIR_COLOURS = _palette({
    "black": "35303F 231F2C 5F5A78 14111B",
    "brown": "6A4029 4C2B1B 99643F 2E190F",
    "blond": "F4C95D D89D38 FFE9A3 94621C",
    "red": "D4542C A83A1E F58A55 6B2110",
    "silver": "D3D8E5 A3ABC2 F4F6FB 5C637C",
    "blue": "4474CE 2F53A2 7FA9F0 1D3368",
    "pink": "F283AC D25A8C FFB9D2 8C2F58",
    "teal": "2FA79A 1D7D77 74D6C4 0F4B4A",
})  # fmt: skip
# top, bottom, line
EYE_COLOURS = _palette({
    "brown": "5A3220 B06C38 331A10",
    "amber": "9A5A10 F2B63C 5A3008",
    "green": "1F6B4A 72CE84 0F3D2B",
    "blue": "1F4FA6 6FBEF5 122D66",
    "violet": "55309E B58BF0 301A60",
    "grey": "4A5566 A9B8C8 2A313D",
})  # fmt: skip
# base, shade, accent
OUTFIT_COLOURS = _palette({
    "white": "F7F4EE D8D3CC E2725B",
    "navy": "33466F 243355 F2C14E",
    "coral": "EF7A66 CB5848 FFF1DF",
    "mustard": "E9B23C C48D25 5B4636",
    "forest": "4B8B6A 356B50 F6E7C8",
    "plum": "7D5290 5E3A70 F4C9D6",
})  # fmt: skip
# top, bottom, disc
BACKGROUNDS = _palette({
    "cream": "FCEBCB F6D7A4 FFF8E8",
    "rose": "FAD0CF F2ABB0 FFE7E4",
    "mint": "C9EBD8 9AD4BB E8F9EF",
    "sky": "BFE3F7 8CC6EC E6F6FF",
    "lilac": "DDD2F5 B9A6E6 F1ECFD",
    "slate": "8794AE 64718F A1AEC6",
})  # fmt: skip

HAIR_STYLES = ("bald", "short", "spiky", "curly", "bob", "long", "ponytail", "bun", "twintails")

# Attribute -> (class name, weight). A weight is relative; where all are 1 the classes are equally likely.
CLASS_WEIGHTS: dict[str, dict[str, float]] = {
    "skin": dict.fromkeys(SKINS, 1.0),
    "hair_colour": dict.fromkeys(HAIR_COLOURS, 1.0),
    "hair_style": dict.fromkeys(HAIR_STYLES, 1.0) | {"bald": 0.5},
    "eye_colour": dict.fromkeys(EYE_COLOURS, 1.0),
    "lashes": {"plain": 1.0, "long": 1.0},
    "glasses": {"none": 2.5, "round": 1.0, "square": 1.0, "sun": 0.7},
    "mouth": {"smile": 1.5, "laugh": 1.5, "neutral": 1.0, "sad": 0.8, "surprised": 0.8},
    "pose": {"left": 1.0, "front": 1.3, "right": 1.0},
    "outfit": {"tee": 1.0, "shirt": 1.0, "hoodie": 1.0, "scarf": 1.0},
    "outfit_colour": dict.fromkeys(OUTFIT_COLOURS, 1.0),
    "background": dict.fromkeys(BACKGROUNDS, 1.0),
}

# Attribute -> its class names, in label order.
FACE_ATTRIBUTES: dict[str, tuple[str, ...]] = {name: tuple(weights) for name, weights in CLASS_WEIGHTS.items()}


@dataclass(frozen=True)
class FaceAttributes:
    """What one face looks like. Every field but `jitter` is a class name from `FACE_ATTRIBUTES`.

    jitter: one number in [-1, 1] for each name of `JITTER`.

    Raises:
        InputError: a class is unknown, or the jitter does not fit.
    """

    skin: str
    hair_colour: str
    hair_style: str
    eye_colour: str
    lashes: str
    glasses: str
    mouth: str
    pose: str
    outfit: str
    outfit_colour: str
    background: str
    jitter: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, classes in FACE_ATTRIBUTES.items():
            value = getattr(self, name)
            if value not in classes:
                raise InputError(f"{name} of a face is not known", got=repr(value), expected=", ".join(classes))
        if len(self.jitter) != len(JITTER) or not all(-1.0 <= value <= 1.0 for value in self.jitter):
            raise InputError(
                "the jitter of a face does not fit",
                got=self.jitter,
                expected=f"{len(JITTER)} numbers in [-1, 1]",
            )

    def labels(self) -> dict[str, int]:
        """Attribute -> index into `FACE_ATTRIBUTES[attribute]`."""
        return {name: classes.index(getattr(self, name)) for name, classes in FACE_ATTRIBUTES.items()}


def with_attributes(attributes: FaceAttributes, **changes: str) -> FaceAttributes:
    """The same face with some classes changed: its counterfactual, alike in everything else.

    Raises:
        InputError: an attribute or a class is unknown.
    """
    for name in changes:
        if name not in FACE_ATTRIBUTES:
            raise InputError("a face has no such attribute", got=name, expected=", ".join(FACE_ATTRIBUTES))
    return replace(attributes, **changes)  # type: ignore[arg-type]
