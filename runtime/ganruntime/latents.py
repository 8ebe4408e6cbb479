"""Operations on latents, on the host: interpolation, averages, arithmetic, grids and paths that keep to their support.

A latent is one vector, whatever its shape. Where it may lie depends on the role, and the operations keep to it:

- `normal`: in many dimensions all the mass lies near a sphere of radius √d, and the straight line between two latents
  passes far inside it, where the network was never trained. So directions are interpolated on the great circle (slerp)
  and lengths linearly; an average is rescaled to the average length.
- `sphere`: the same, on the radius that the role names.
- `uniform`, `ball`: the cube and the ball are convex, so straight lines and averages stay inside; what arithmetic takes
  out of them is clipped to the cube, or scaled back to the ball.

Slerp is Shoemake's ("Animating rotation with quaternion curves", SIGGRAPH 1985, sections 3.3 and 4.2); its use for
latents is White's ("Sampling generative networks", 2016). The angle is 2·atan2(|a - b|, |a + b|) of the unit vectors
(Kahan, "How futile are mindless assessments of roundoff", 2006), which keeps its digits near 0 and π, where the arc
cosine loses them. All is computed in float64 and given as float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime.errors import InputError
from ganruntime.spec import Latent, TensorSpec

Float32 = NDArray[np.float32]
_Float64 = NDArray[np.float64]

# Two directions count as opposite where the shorter great circle is decided by float32's rounding alone.
_OPPOSITE = 1e-6
_SMALL_ANGLE = 1e-4  # below it sin x / x is 1 - x²/6 to the last bit of a float64


def lerp(a: ArrayLike, b: ArrayLike, t: ArrayLike) -> Float32:
    """(1 - t)·a + t·b.

    Args:
        a, b: [n, *shape], or one latent [*shape] each; they broadcast.
        t: a number, or [n], one per latent; 0 gives a, 1 gives b, to the last bit.

    Raises:
        InputError: the arrays do not fit each other, or hold what is not finite.
    """
    x, y, weight = _pair(a, b, t)
    return ((1.0 - weight) * x + weight * y).astype(np.float32)


def slerp(a: ArrayLike, b: ArrayLike, t: ArrayLike, *, axes: int = 1) -> Float32:
    """Along the great circle from a's direction to b's, the length changing linearly.

    With the angle ω between the directions â and b̂: sin((1-t)ω)/sin ω · â + sin(tω)/sin ω · b̂, times
    (1-t)|a| + t|b|. Equal directions give a straight line; so does ω → 0, without loss of digits.

    Args:
        a, b: [n, *shape] or [*shape], broadcast against each other.
        t: a number, or [n].
        axes: dimensions of one latent, counted from the last.

    Raises:
        InputError: two directions are opposite (every great circle joins them, and none is the shortest), a latent is
            zero and has none, or the arrays do not fit.
    """
    x, y, weight = _pair(a, b, t, axes)
    dims = tuple(range(-axes, 0))
    x_length, y_length = _lengths(x, dims), _lengths(y, dims)
    if not (x_length > 0).all() or not (y_length > 0).all():
        raise InputError("a latent of length 0 has no direction", remedy="lerp takes any latents")
    x_unit, y_unit = x / x_length, y / y_length
    apart, together = _lengths(x_unit - y_unit, dims), _lengths(x_unit + y_unit, dims)
    if (together < _OPPOSITE).any():
        raise InputError(
            "two latents are opposite: no great circle between them is the shortest",
            got=f"|â + b̂| = {float(together.min()):.1e}",
            expected=f"at least {_OPPOSITE:g}",
            remedy="go by a third latent, or use lerp",
        )
    angle = 2.0 * np.arctan2(apart, together)
    # sin(wω)/sin ω = w · sinc(wω)/sinc(ω): finite for ω → 0.
    scale = _sinc(angle)
    direction = (1 - weight) * _sinc((1 - weight) * angle) / scale * x_unit
    direction = direction + weight * _sinc(weight * angle) / scale * y_unit
    result = direction * ((1.0 - weight) * x_length + weight * y_length)
    # The ends are what was given, to the last bit.
    result = np.where(weight == 0.0, x, np.where(weight == 1.0, y, result))
    return result.astype(np.float32)


def interpolated(tensor: TensorSpec, a: ArrayLike, b: ArrayLike, t: ArrayLike) -> Float32:
    """Between two latents, as the role allows: slerp for `normal` and `sphere`, lerp for `uniform` and `ball`.

    Args:
        tensor: the latent input.
        a, b: float32 [n, *tensor.shape] or [*tensor.shape].
        t: a number or [n], in [0, 1]: beyond it there is no promise to keep to the support.

    Returns:
        float32 [n, *tensor.shape], or [*tensor.shape] for two single latents and one number.
    """
    role = _role(tensor)
    x, y = _checked(tensor, a), _checked(tensor, b)
    weight = np.asarray(t, np.float64)
    if not ((weight >= 0.0) & (weight <= 1.0)).all():
        raise InputError("t is outside [0, 1]", got=_short(weight), remedy="lerp and slerp take any t")
    if role.distribution not in ("normal", "sphere"):
        return lerp(x, y, _along(weight, len(tensor.shape)))
    result = slerp(x, y, weight, axes=len(tensor.shape))
    return _on_sphere(tensor, result) if role.distribution == "sphere" else result


def averaged(tensor: TensorSpec, latents: ArrayLike, weights: ArrayLike | None = None) -> Float32:
    """The average of latents, kept where the network expects latents.

    `normal`: the direction of the weighted mean, with the weighted mean of the lengths (the plain mean of n latents is
    √n times too short). `sphere`: the direction, on the sphere. `uniform`, `ball`: the weighted mean.

    Args:
        latents: [n, *tensor.shape], n at least 1.
        weights: [n], none negative, not all 0; equal by default.

    Returns:
        float32 [*tensor.shape].

    Raises:
        InputError: the latents cancel out, or the weights are none.
    """
    role, x = _role(tensor), _checked(tensor, latents)
    if x.ndim != len(tensor.shape) + 1 or len(x) == 0:
        raise InputError("no latents to average", got=list(x.shape), expected=["n", *tensor.shape])
    w = np.full(len(x), 1.0) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(x),) or not np.isfinite(w).all() or (w < 0).any() or w.sum() == 0:
        raise InputError("weights do not fit", got=_short(w), expected=f"{len(x)} numbers, none negative, not all 0")
    w = w / w.sum()
    flat = x.reshape(len(x), -1)
    mean: _Float64 = w @ flat  # [d]
    if role.distribution in ("normal", "sphere"):
        lengths = np.linalg.norm(flat, axis=1)
        wanted = role.scale if role.distribution == "sphere" else float(w @ lengths)
        mean = mean * (wanted / _length_that_counts(mean, float(lengths.max())))
    return mean.reshape(x.shape[1:]).astype(np.float32)


def combined(tensor: TensorSpec, a: ArrayLike, minus: ArrayLike, plus: ArrayLike) -> Float32:
    """a - minus + plus, the arithmetic of Radford, Metz and Chintala ("DCGAN", 2015), kept to the support.

    `normal`: the sum's direction, with a's length (a sum of three latents is √3 times too long). `sphere`: on the
    sphere. `uniform`: clipped to the cube. `ball`: scaled back where it lies outside.

    Args:
        a, minus, plus: [n, *tensor.shape] or [*tensor.shape], broadcast. Averages of several serve best.
    """
    role = _role(tensor)
    x, y, z = (_checked(tensor, value) for value in (a, minus, plus))
    total = x - y + z
    dims = tuple(range(-len(tensor.shape), 0))
    if role.distribution == "uniform":
        # The cube is half open: its upper end is the last float32 below it.
        high = np.nextafter(np.float32(role.scale), np.float32(0))
        clipped: Float32 = np.clip(total.astype(np.float32), np.float32(-role.scale), high)
        return clipped
    length = _lengths(total, dims)
    if role.distribution == "ball":
        return (total * np.minimum(1.0, role.scale / np.maximum(length, 1e-300))).astype(np.float32)
    if (length <= 1e-6 * _lengths(x, dims)).any():
        raise InputError("the latents cancel out: their sum has no direction", got=f"length {float(length.min()):.1e}")
    wanted = role.scale if role.distribution == "sphere" else _lengths(x, dims)
    return (total * (wanted / length)).astype(np.float32)


def grid(tensor: TensorSpec, corners: ArrayLike, rows: int, columns: int) -> Float32:
    """A sheet between four latents: down the left and the right side first, then across.

    Args:
        corners: [4, *tensor.shape]: top left, top right, bottom left, bottom right.
        rows, columns: at least 2 each.

    Returns:
        float32 [rows, columns, *tensor.shape]; its corners are the given ones, to the last bit.
    """
    x = _checked(tensor, corners)
    if x.shape != (4, *tensor.shape):
        raise InputError("a grid has four corners", got=list(x.shape), expected=[4, *tensor.shape])
    for value, name in ((rows, "rows"), (columns, "columns")):
        if not isinstance(value, int) or isinstance(value, bool) or value < 2:
            raise InputError(f"too few {name} for a grid", got=repr(value), expected="at least 2")
    down, across = np.linspace(0.0, 1.0, rows), np.linspace(0.0, 1.0, columns)
    left = interpolated(tensor, x[0], x[2], down)  # [rows, *shape]
    right = interpolated(tensor, x[1], x[3], down)
    return np.stack([interpolated(tensor, a, b, across) for a, b in zip(left, right, strict=True)])


def path(tensor: TensorSpec, anchors: ArrayLike, steps: int, *, closed: bool = False) -> Float32:
    """Through several latents, in equal steps on each leg.

    Args:
        anchors: [n, *tensor.shape], n at least 2.
        steps: from one anchor to the next, at least 1.
        closed: whether the path returns to the first anchor. The last latent is then one step before it, so that a
            film of the path loops without a stop.

    Returns:
        float32 [(n - 1) · steps + 1, *tensor.shape], or [n · steps, *tensor.shape] closed. Anchors are met to the bit.
    """
    x = _checked(tensor, anchors)
    if x.ndim != len(tensor.shape) + 1 or len(x) < 2:
        raise InputError("a path has two anchors or more", got=list(x.shape), expected=["n", *tensor.shape])
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise InputError("a path has one step or more to a leg", got=repr(steps))
    t = np.arange(steps) / steps
    ends = [*x[1:], x[0]] if closed else x[1:]
    legs = [interpolated(tensor, a, b, t) for a, b in zip(x, ends, strict=False)]
    last = [] if closed else [x[-1:].astype(np.float32)]
    return np.concatenate([*legs, *last])


def _role(tensor: TensorSpec) -> Latent:
    if not isinstance(tensor.role, Latent):
        raise InputError(f"input {tensor.name!r} is not a latent", got=tensor.role.kind, expected="latent")
    return tensor.role


def _checked(tensor: TensorSpec, value: ArrayLike) -> _Float64:
    """[*shape] or [n, *shape] in float64."""
    array = _array(value)
    if array.shape[-len(tensor.shape) :] != tensor.shape or array.ndim - len(tensor.shape) not in (0, 1):
        shape: Sequence[Any] = tensor.shape
        raise InputError(
            f"not latents of {tensor.name!r}", got=list(array.shape), expected=f"{['n', *shape]} or {[*shape]}"
        )
    return array


def _array(value: ArrayLike) -> _Float64:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("a latent is not an array of numbers", got=str(error)[:200]) from error
    if not np.isfinite(array).all():
        raise InputError("a latent holds what is not finite")
    return array


def _pair(a: ArrayLike, b: ArrayLike, t: ArrayLike, axes: int = 0) -> tuple[_Float64, _Float64, _Float64]:
    """a, b and t in float64, t with a dimension of 1 for each of a latent's."""
    x, y, weight = _array(a), _array(b), _along(_array(t), axes)
    if axes == 0 and weight.ndim == 1:
        weight = weight.reshape(-1, *[1] * (max(x.ndim, y.ndim) - 1))
    try:
        np.broadcast_shapes(x.shape, y.shape, weight.shape)
    except ValueError as error:
        raise InputError(
            "latents do not fit each other", got=f"{list(x.shape)}, {list(y.shape)}, t {list(weight.shape)}"
        ) from error
    return x, y, weight


def _along(weight: _Float64, axes: int) -> _Float64:
    return weight.reshape(*weight.shape, *[1] * axes) if weight.ndim else weight


def _lengths(x: _Float64, dims: tuple[int, ...]) -> _Float64:
    """Euclidean lengths, with the dimensions kept; scaled first, so that no square overflows or vanishes."""
    largest = np.abs(x).max(axis=dims, keepdims=True)
    safe = np.where(largest > 0, largest, 1.0)
    return np.asarray(safe * np.sqrt(np.square(x / safe).sum(axis=dims, keepdims=True)) * (largest > 0))


def _sinc(x: _Float64) -> _Float64:
    """sin x / x."""
    small = np.abs(x) < _SMALL_ANGLE
    safe = np.where(small, 1.0, x)
    return np.where(small, 1.0 - x * x / 6.0, np.sin(safe) / safe)


def _on_sphere(tensor: TensorSpec, latents: Float32) -> Float32:
    role, dims = _role(tensor), tuple(range(-len(tensor.shape), 0))
    x = latents.astype(np.float64)
    length = _lengths(x, dims)
    # Where it lies there already, within float32's rounding, it stays as it is: the ends of a path are what was given.
    near = np.abs(length / role.scale - 1.0) < 1e-6
    return np.where(near, latents, (x * (role.scale / length)).astype(np.float32))


def _length_that_counts(mean: _Float64, largest: float) -> float:
    length = float(np.linalg.norm(mean))
    if not math.isfinite(length) or length <= 1e-6 * largest:
        raise InputError("the latents cancel out: their average has no direction", got=f"length {length:.1e}")
    return length


def _short(value: _Float64) -> str:
    return np.array2string(value, threshold=6, precision=4)
