"""Sizes: height and width of images where they vary, what fits a spec, and the spec at one size.

A size is the (height, width) of the first image input whose own vary. All others follow it, those of outputs too: an
input is `multiple` · d high, with a d that all share, and an output is its own `multiple` · d + `offset` high; the same
with another d for the width (`ganruntime.roles.Image`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ganruntime.errors import InputError
from ganruntime.spec import GeneratorSpec, Image, TensorSpec

Size = tuple[int, int]
DEFAULT_SIDE = 64


def varying_inputs(spec: GeneratorSpec) -> tuple[TensorSpec, ...]:
    """The image inputs whose height or width varies."""
    return tuple(t for t in spec.inputs if isinstance(t.role, Image) and None in t.shape)


def default_size(spec: GeneratorSpec) -> Size | None:
    """What warm-ups and proofs start with: 64 × 64, or the next size above it that fits; None where nothing varies."""
    varying = varying_inputs(spec)
    if not varying:
        return None
    role = _image(varying[0])
    side = -(-max(DEFAULT_SIDE, role.minimum) // role.multiple) * role.multiple
    return side, side


def size_of(spec: GeneratorSpec, rows: Mapping[str, NDArray[np.generic]]) -> Size | None:
    """The size of inputs [n, *shape] that fit; None where nothing varies, or the input is not among them."""
    for tensor in spec.inputs:
        if None in tensor.shape and isinstance(tensor.role, Image):
            return _sides(tensor, rows[tensor.name].shape[1:]) if tensor.name in rows else None
    return None


def spec_at(spec: GeneratorSpec, size: Size | None) -> GeneratorSpec:
    """The spec with fixed shapes, as it is at a size; at None, the spec itself.

    Raises:
        InputError: the size is no multiple, or too small.
    """
    varying = varying_inputs(spec)
    if size is None or not varying:
        return spec
    _require_fits(varying[0], size)
    role = _image(varying[0])
    steps = size[0] // role.multiple, size[1] // role.multiple
    return replace(
        spec,
        inputs=tuple(_at(t, steps) for t in spec.inputs),
        outputs=tuple(_at(t, steps) for t in spec.outputs),
    )


def require_sizes(spec: GeneratorSpec, rows: Mapping[str, NDArray[np.generic]]) -> None:
    """Raises `InputError`, which says what fits, unless the images among the inputs have sizes that fit the spec and
    each other."""
    varying = [t for t in varying_inputs(spec) if t.name in rows]
    for tensor in varying:
        _require_fits(tensor, _sides(tensor, rows[tensor.name].shape[1:]))
    for tensor in varying[1:]:
        first, own = (_sides(t, rows[t.name].shape[1:]) for t in (varying[0], tensor))
        factors = _image(varying[0]).multiple, _image(tensor).multiple
        expected = first[0] // factors[0] * factors[1], first[1] // factors[0] * factors[1]
        if own != expected:
            raise InputError(
                f"input {tensor.name!r} has another size than {varying[0].name!r}",
                got=size_text(own),
                expected=f"{size_text(expected)}, as {varying[0].name!r} has {size_text(first)}",
            )


def size_text(size: Size) -> str:
    """`height 48, width 64`."""
    return f"height {size[0]}, width {size[1]}"


def size_option(sizes: Iterable[Size]) -> str:
    """`64x64,256x128`: sizes as options of the command line take them, HEIGHTxWIDTH."""
    return ",".join(f"{height}x{width}" for height, width in sizes)


def _require_fits(tensor: TensorSpec, size: Size) -> None:
    role = _image(tensor)
    fits = all(side >= role.minimum and side % role.multiple == 0 for side in size)
    if not fits:
        least = -(-role.minimum // role.multiple) * role.multiple
        near = [max(least, side // role.multiple * role.multiple) for side in size]
        what = f"multiples of {role.multiple}, " if role.multiple > 1 else ""
        raise InputError(
            f"input {tensor.name!r} has a size that the network does not take",
            got=size_text(size),
            expected=f"height and width {what}at least {least}",
            remedy=f"crop, pad or scale it, such as to {size_text((near[0], near[1]))}",
        )


def _at(tensor: TensorSpec, steps: Size) -> TensorSpec:
    role = tensor.role
    if not isinstance(role, Image) or None not in tensor.shape:
        return tensor
    shape = list(tensor.shape)
    for axis, step in zip(role.height_and_width, steps, strict=True):
        if shape[axis] is None:
            shape[axis] = role.multiple * step + role.offset
    return replace(tensor, shape=tuple(shape), role=replace(role, multiple=1, minimum=1, offset=0))


def _sides(tensor: TensorSpec, shape: tuple[int, ...]) -> Size:
    height, width = _image(tensor).height_and_width
    return shape[height], shape[width]


def _image(tensor: TensorSpec) -> Image:
    assert isinstance(tensor.role, Image)
    return tensor.role
