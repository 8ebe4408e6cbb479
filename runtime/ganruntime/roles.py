"""Roles: what a tensor of a generator means, and the parameters that go with each meaning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ganruntime.errors import SpecError

DISTRIBUTIONS = ("normal", "uniform", "sphere", "ball")
NOISE_DISTRIBUTIONS = ("normal", "uniform")
LAYOUTS = ("CHW", "HWC")
SIZE_LIMIT = (1 << 31) - 1  # backends count elements in 32 bits
SIDE_LIMIT = 65_536
SIZE_FIELDS = ("multiple", "minimum", "offset")  # of images whose height and width vary


def require(holds: bool, where: str, problem: str, *, got: object = None, expected: object = None) -> None:
    if not holds:
        raise SpecError(f"{where}: {problem}", got=got, expected=expected)


def number(value: object, where: str) -> float:
    try:
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        ok = False
    require(ok, where, "is not a finite number", got=repr(value)[:80])
    return float(value)  # type: ignore[arg-type]


def interval(value: object, where: str) -> tuple[float, float]:
    require(
        isinstance(value, (list, tuple)) and len(value) == 2,
        where,
        "is not a pair",
        got=repr(value),
        expected="[low, high]",
    )
    low, high = (number(v, where) for v in value)  # type: ignore[attr-defined]
    require(low < high, where, "is empty", got=[low, high], expected="low < high")
    return low, high


def integer(value: object, where: str, *, least: int = 1, most: int = SIZE_LIMIT) -> int:
    require(
        isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
        where,
        f"is not an integer in [{least}, {most}]",
        got=repr(value)[:80],
    )
    return value  # type: ignore[return-value]


def is_text(value: object) -> bool:
    """Whether `value` is a string that UTF-8 can hold: half of a surrogate pair cannot be written again."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


@dataclass(frozen=True)
class Role:
    """What a tensor means. `kind` is the JSON discriminator; each subclass lists its own parameters."""

    kind: ClassVar[str] = ""


@dataclass(frozen=True)
class Latent(Role):
    """z, drawn by `ganruntime.noise`.

    distribution: `normal` N(0, scale²); `uniform` on [-scale, scale); `sphere` of radius scale; `ball` of radius scale.
    """

    kind: ClassVar[str] = "latent"
    distribution: str = "normal"
    scale: float = 1.0

    def __post_init__(self) -> None:
        require(
            self.distribution in DISTRIBUTIONS,
            "latent.distribution",
            "is not known",
            got=repr(self.distribution),
            expected=", ".join(DISTRIBUTIONS),
        )
        object.__setattr__(self, "scale", number(self.scale, "latent.scale"))
        require(self.scale > 0, "latent.scale", "is not positive", got=self.scale)


@dataclass(frozen=True)
class Noise(Role):
    """Per-layer noise (StyleGAN) or a sampling ε (VAE): drawn like a latent, never truncated.

    distribution: `normal` N(0, scale²); `uniform` on [-scale, scale).
    """

    kind: ClassVar[str] = "noise"
    scale: float = 1.0
    distribution: str = "normal"

    def __post_init__(self) -> None:
        require(
            self.distribution in NOISE_DISTRIBUTIONS,
            "noise.distribution",
            "is not known",
            got=repr(self.distribution),
            expected=", ".join(NOISE_DISTRIBUTIONS),
        )
        object.__setattr__(self, "scale", number(self.scale, "noise.scale"))
        require(self.scale > 0, "noise.scale", "is not positive", got=self.scale)


@dataclass(frozen=True)
class Label(Role):
    """A class index in [0, len(classes)); `classes` are their names, in order."""

    kind: ClassVar[str] = "label"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ok = (
            isinstance(self.classes, (list, tuple))
            and len(self.classes) > 0
            and all(is_text(c) and c for c in self.classes)
        )
        require(ok, "label.classes", "is not a list of names", got=repr(self.classes)[:200])
        object.__setattr__(self, "classes", tuple(self.classes))
        require(
            len(set(self.classes)) == len(self.classes), "label.classes", "has a name twice", got=list(self.classes)
        )


@dataclass(frozen=True)
class Tokens(Role):
    """Token ids in [0, vocabulary_size), padded with `padding` to the input's length."""

    kind: ClassVar[str] = "tokens"
    vocabulary_size: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        integer(self.vocabulary_size, "tokens.vocabulary_size")
        integer(self.padding, "tokens.padding", least=0)
        require(self.padding < self.vocabulary_size, "tokens.padding", "is not in the vocabulary", got=self.padding)


@dataclass(frozen=True)
class Image(Role):
    """An image. `range` is the value of black and of white; `layout` is CHW or HWC, the batch dimension before it.

    The others are of images whose height and width vary; JSON has them only where they are not the default.

    multiple: an input's height and width are multiples of it; where they are d times as much, an output's are d times
        its own `multiple`, plus `offset`. All inputs and outputs of a generator share the d of their heights, and that
        of their widths.
    minimum: an input's height and width are at least that.
    offset: of an output: what unpadded convolutions take away is below 0.
    """

    kind: ClassVar[str] = "image"
    layout: str = "CHW"
    range: tuple[float, float] = (-1.0, 1.0)
    multiple: int = 1
    minimum: int = 1
    offset: int = 0

    def __post_init__(self) -> None:
        require(
            self.layout in LAYOUTS, "image.layout", "is not known", got=repr(self.layout), expected=", ".join(LAYOUTS)
        )
        object.__setattr__(self, "range", interval(self.range, "image.range"))
        integer(self.multiple, "image.multiple", most=SIDE_LIMIT)
        integer(self.minimum, "image.minimum", most=SIDE_LIMIT)
        integer(self.offset, "image.offset", least=-SIDE_LIMIT, most=SIDE_LIMIT)

    @property
    def height_and_width(self) -> tuple[int, int]:
        """Which dimensions of the shape, the batch left out, are height and width."""
        return (1, 2) if self.layout == "CHW" else (0, 1)


@dataclass(frozen=True)
class Scalar(Role):
    """A number per image, such as the truncation ψ: its default and the range it is meant for."""

    kind: ClassVar[str] = "scalar"
    default: float = 1.0
    range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "default", number(self.default, "scalar.default"))
        object.__setattr__(self, "range", interval(self.range, "scalar.range"))
        require(
            self.range[0] <= self.default <= self.range[1],
            "scalar.default",
            "is outside its range",
            got=self.default,
            expected=list(self.range),
        )


@dataclass(frozen=True)
class Keypoints(Role):
    """Points [K, 2] as (x, y) in `range`, where the range spans the image's width and height."""

    kind: ClassVar[str] = "keypoints"
    range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "range", interval(self.range, "keypoints.range"))


@dataclass(frozen=True)
class Vector(Role):
    """A vector without further meaning: a curve, a code, a style."""

    kind: ClassVar[str] = "vector"


@dataclass(frozen=True)
class Mask(Role):
    """One plane of probabilities per class, [classes, H, W], each in [0, 1]."""

    kind: ClassVar[str] = "mask"


@dataclass(frozen=True)
class Logits(Role):
    """Unnormalised log-probabilities over classes in the last dimension (or the first, for maps)."""

    kind: ClassVar[str] = "logits"


INPUT_ROLES: dict[str, type[Role]] = {
    r.kind: r for r in (Latent, Noise, Label, Tokens, Image, Scalar, Keypoints, Vector)
}
OUTPUT_ROLES: dict[str, type[Role]] = {r.kind: r for r in (Image, Vector, Mask, Keypoints, Logits)}
