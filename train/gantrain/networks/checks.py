"""What settings of networks are checked for. A record may come from a file that somebody else wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ganruntime.errors import InputError, SpecError
from ganruntime.spec import Image, Label, Latent, TensorSpec
from gantrain.networks import checked_integer

if TYPE_CHECKING:
    from torch import Tensor

MOST_CLASSES = 100_000


def checked_flag(name: str, value: object) -> bool:
    """`value`, if it is true or false. Raises `InputError`."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is neither true nor false", got=repr(value)[:80])
    return value


def checked_number(name: str, value: object, least: float, most: float) -> float:
    """`value` as a float, if it is a finite number in [least, most]. Raises `InputError`."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:  # nor is NaN
        raise InputError(f"{name} is out of range", got=repr(value)[:80], expected=f"a number from {least} to {most}")
    return float(value)


def checked_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """`value`, if it is one of `choices`. Raises `InputError`."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} is none of its choices", got=repr(value)[:80], expected=", ".join(choices))
    return value


def checked_size(size: object, least: int = 16, most: int = 1024) -> int:
    """`size`, if it is a power of two in [least, most], pixels. Raises `InputError`."""
    if not isinstance(size, int) or isinstance(size, bool) or not least <= size <= most or size & (size - 1):
        powers = [least << i for i in range((most // least).bit_length())]
        raise InputError(
            "size is not one that this network is made for", got=repr(size)[:80], expected=", ".join(map(str, powers))
        )
    return size


def checked_widths(widths: object) -> tuple[int, ...]:
    """`widths` of hidden layers, if they are a list of 1 to 16 integers in [1, 65536]. Raises `InputError`."""
    if not isinstance(widths, (list, tuple)) or not 1 <= len(widths) <= 16:
        raise InputError("widths is not a list of 1 to 16 layer widths", got=repr(widths)[:80])
    return tuple(checked_integer("widths", width, 1, 65536) for width in widths)


def checked_classes(classes: object) -> tuple[str, ...]:
    """Names of classes, in label order; none for a network without labels. Raises `InputError`."""
    if not isinstance(classes, (list, tuple)) or len(classes) > MOST_CLASSES:
        raise InputError("classes is not a list of class names", got=repr(classes)[:80])
    try:
        return Label(tuple(classes)).classes if classes else ()
    except SpecError as error:
        raise InputError(f"classes: {error.problem}", got=error.got, expected=error.expected) from error


def halving_widths(size: int, width: object, max_width: object, last: int = 4) -> list[int]:
    """Feature planes at size, size / 2, … `last` pixels: `width`, doubled at each halving, up to `max_width`."""
    width = checked_integer("width", width, 1, 4096)
    max_width = checked_integer("max_width", max_width, width, 8192)
    return [min(width << i, max_width) for i in range((size // last).bit_length())]


def latent_and_label(z_size: int, classes: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """The inputs z float32 [N, z_size] ~ N(0, 1) and, of a network with classes, label int64 [N]."""
    z = TensorSpec("z", "float32", (z_size,), Latent())
    return (z, TensorSpec("label", "int64", (), Label(classes))) if classes else (z,)


def square_image(channels: int, size: int) -> tuple[TensorSpec, ...]:
    """The output image float32 [N, channels, size, size] in [-1, 1]."""
    return (TensorSpec("image", "float32", (channels, size, size), Image()),)


def require_label(label: Tensor | None, classes: tuple[str, ...]) -> None:
    """Raises `InputError` unless there are labels exactly where the network has classes."""
    if (label is None) == bool(classes):
        raise InputError(
            "labels do not fit the network",
            got="no labels" if label is None else "labels",
            expected=f"one of {len(classes)} classes an image" if classes else "none: it was built without classes",
        )
