"""Optimisation profiles: the batches and sizes that an engine is tuned for, and the range that it takes beside them.

Kernels are tuned at a profile's optimum only. So every batch bucket, and where height and width vary every size with
every bucket, is a profile of its own with least = tuned-for = largest; one dynamic profile takes the rest of the range.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ganruntime.errors import InputError
from ganruntime.roles import SIDE_LIMIT
from ganruntime.sizes import Size, size_option, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec, Image

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
_SIZE = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})", re.ASCII)
_EXAMPLE = "ganexport to-trt NAME.gan --size 64x64,256x256"


@dataclass(frozen=True)
class Profile:
    """One optimisation profile: the least, the tuned-for and the largest batch, and where height and width vary the
    least, the tuned-for and the largest size."""

    minimum: int
    optimum: int
    maximum: int
    sizes: tuple[Size, Size, Size] | None = None

    @property
    def static(self) -> bool:
        return self.minimum == self.optimum == self.maximum and (self.sizes is None or len(set(self.sizes)) == 1)

    def shapes(self, spec: GeneratorSpec) -> dict[str, Shapes]:
        """{input: its shapes [N, …] at the least, the tuned-for and the largest batch and size}."""
        batches = (self.minimum, self.optimum, self.maximum)
        specs = [spec_at(spec, size) for size in self.sizes or (None, None, None)]
        found: dict[str, Shapes] = {}
        for position, tensor in enumerate(spec.inputs):
            least, tuned, most = (
                (batch, *(d for d in at.inputs[position].shape if d is not None))
                for batch, at in zip(batches, specs, strict=True)
            )
            found[tensor.name] = (least, tuned, most)
        return found

    def __str__(self) -> str:
        """`8`, `1..64`; with sizes `8@64x64`, `1..64@16x16..256x256`."""
        batches = f"{self.minimum}..{self.maximum}" if self.minimum < self.maximum else f"{self.maximum}"
        if self.sizes is None:
            return batches
        least, _, most = self.sizes
        return f"{batches}@{size_option((least,))}" + (f"..{size_option((most,))}" if least != most else "")


def profiles_from_buckets(
    buckets: tuple[int, ...], sizes: tuple[Size, ...] = (), least: Size | None = None
) -> tuple[Profile, ...]:
    """A static profile for each bucket (at each size), then a dynamic one for all that lies between.

    Where nothing is left to a dynamic one, there is none: (1,) needs none.

    Args:
        sizes: where height and width vary, those to tune for; none elsewhere.
        least: the smallest size that the generator takes, where the dynamic profile begins. It ends at the largest
            height and the largest width of `sizes`.
    """
    if not sizes:
        static = [Profile(b, b, b) for b in buckets]
        rest = Profile(1, buckets[-1], buckets[-1])
    else:
        static = [Profile(b, b, b, (size, size, size)) for size in sizes for b in buckets]
        low, high = size_range(sizes, least)
        rest = Profile(1, buckets[-1], buckets[-1], (low, high, high))
    return tuple(static) if rest in static else (*static, rest)


def size_range(sizes: tuple[Size, ...], least: Size | None) -> tuple[Size, Size]:
    """The smallest and the largest size that an engine tuned for `sizes` takes."""
    high = max(h for h, _ in sizes), max(w for _, w in sizes)
    return least or high, high


def smallest_size(spec: GeneratorSpec) -> Size | None:
    """The smallest size that a generator takes; None where height and width do not vary."""
    varying = varying_inputs(spec)
    if not varying:
        return None
    role = varying[0].role
    assert isinstance(role, Image)
    side = -(-role.minimum // role.multiple) * role.multiple
    return side, side


def sizes_from_text(text: str) -> tuple[Size, ...]:
    """((64, 64), (256, 256)) of `64x64,256x256`, each HEIGHTxWIDTH, from small to large whatever the order given.

    Raises:
        InputError: nothing is given, a part is not a size, or stands there twice.
    """
    sizes: list[Size] = []
    for part in text.split(","):
        match = _SIZE.fullmatch(part.strip())
        size = (int(match[1]), int(match[2])) if match else None
        if size is None or max(size) > SIDE_LIMIT:
            raise InputError(
                f"--size: {part.strip()!r} is not a height and a width",
                got=text,
                expected=f"HEIGHTxWIDTH, each from 1 to {SIDE_LIMIT}, with commas between, as in 64x64,256x256",
                remedy=_EXAMPLE,
            )
        if size in sizes:
            raise InputError(
                f"--size: {size_option((size,))} stands there twice",
                got=text,
                remedy=f"--size {size_option(sorted_sizes(set(sizes)))}",
            )
        sizes.append(size)
    return sorted_sizes(sizes)


def sorted_sizes(sizes: Iterable[Size]) -> tuple[Size, ...]:
    """From small to large: by area, then by height."""
    return tuple(sorted(sizes, key=lambda size: (size[0] * size[1], size)))
