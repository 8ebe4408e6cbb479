"""What an output means as a picture: values to uint8, layouts to [H, W, C], many images to one sheet."""

from __future__ import annotations

import math
import threading

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ganruntime.errors import InputError
from ganruntime.spec import Image, TensorSpec

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_PIECE_ELEMENTS = 1 << 16  # float32 pieces of 256 KiB stay in the second-level cache


class _Scratch(threading.local):
    """Work space of a piece, one per thread, made once: fresh pages for every batch would cost as much as the work."""

    def __init__(self) -> None:
        self.values = np.empty(_PIECE_ELEMENTS, np.float32)
        self.pixels = np.empty(_PIECE_ELEMENTS, np.uint8)


_scratch = _Scratch()


def uint8_from_output(
    output: NDArray[np.generic], tensor: TensorSpec, out: NDArray[np.uint8] | None = None, *, overwrite: bool = False
) -> NDArray[np.uint8]:
    """A generator's output as pixels: round((x - low) · 255 / (high - low)), clipped, half to even.

    Args:
        output: [N, C, H, W] or [N, H, W, C], as the spec's layout says; a floating dtype, or uint8 pixels already.
        tensor: the output's spec; its role must be `image`.
        out: uint8 [N, H, W, C] to fill; a new array by default.
        overwrite: whether the values of `output` may be lost: float32 is then worked on where it is, which spares the
            time of touching other memory.

    Returns:
        uint8 [N, H, W, C]. NaN becomes 0; whether an output is finite is the parity gate's question.

    Raises:
        InputError: the tensor is no image, or the array does not have four dimensions.
    """
    role = tensor.role
    if not isinstance(role, Image):
        raise InputError(f"output {tensor.name!r} is not an image", got=role.kind, expected="image")
    if output.ndim != 4:
        raise InputError(
            f"output {tensor.name!r} has no batch of images", got=list(output.shape), expected="four dimensions"
        )
    n, *image = output.shape
    planes_first = role.layout == "CHW"
    height, width, channels = (*image[1:], image[0]) if planes_first else image
    if out is None:
        out = np.empty((n, height, width, channels), np.uint8)
    if output.dtype == np.uint8:
        np.copyto(out.transpose(0, 3, 1, 2) if planes_first else out, output)
        return out
    elements = height * width * channels
    low, high = role.range
    gain, offset = np.float32(255.0 / (high - low)), np.float32(-low * 255.0 / (high - low))
    rows = max(1, _PIECE_ELEMENTS // max(1, elements))
    fits = elements <= _PIECE_ELEMENTS
    scratch = _scratch.values if fits else np.empty(elements, np.float32)
    pixels = _scratch.pixels if fits else np.empty(elements, np.uint8)
    in_place = overwrite and output.dtype == np.float32 and output.flags.c_contiguous and output.flags.writeable
    for start in range(0, n if elements else 0, rows):
        given = output[start : start + rows]
        count = len(given)
        if in_place:
            values = given.reshape(-1)
            np.multiply(values, gain, out=values)
        else:
            values = scratch[: count * elements]
            np.multiply(given, gain, out=values.reshape(given.shape), casting="unsafe")
        # Flat, and the ufuncs' own reductions: after a batch the caches are the network's, and the layers of Python
        # below `ndarray.min` take as long as the pass over the values.
        np.add(values, offset, out=values)
        np.rint(values, out=values)
        # Looking takes three quarters of what clipping takes, and finds NaN, too: what that is cast to differs between
        # CPUs. A generator whose last step is a tanh never needs more.
        if not (np.minimum.reduce(values) >= 0.0 and np.maximum.reduce(values) <= 255.0):
            np.clip(values, np.float32(0.0), np.float32(255.0), out=values)
            values[np.isnan(values)] = 0.0
        target = out[start : start + count]
        if planes_first and channels > 1:
            # As bytes first, and plane by plane: interleaving floats takes three times as long.
            planes = pixels[: count * elements]
            np.copyto(planes, values, casting="unsafe")
            planes = planes.reshape(given.shape)
            for channel in range(channels):
                np.copyto(target[..., channel], planes[:, channel])
        else:
            np.copyto(target, values.reshape(target.shape), casting="unsafe")
    return out


def values_from_uint8(pixels: NDArray[np.uint8], tensor: TensorSpec) -> NDArray[np.generic]:
    """Pixels as an image tensor's values, `uint8_from_output` the other way round: low + p · (high - low) / 255.

    Args:
        pixels: uint8 [..., H, W, C].
        tensor: its role must be `image`.

    Returns:
        [..., C, H, W] or [..., H, W, C], as the spec's layout says, in the tensor's range and dtype; integers are
        rounded.
    """
    assert isinstance(tensor.role, Image)
    low, high = tensor.role.range
    values = low + pixels.astype(np.float64) * ((high - low) / 255.0)
    if np.dtype(tensor.dtype).kind in "iu":
        values = np.rint(values)
    return np.ascontiguousarray(np.moveaxis(values, -1, -3) if tensor.role.layout == "CHW" else values, tensor.dtype)


def pil_from_image(image: NDArray[np.uint8]) -> PIL.Image.Image:
    """uint8 [H, W, C] as a Pillow image: C 1 is grey, 3 is RGB, 4 is RGBA. Any other C raises `InputError`."""
    if image.ndim != 3 or image.shape[2] not in _MODES:
        raise InputError(
            "not an image that a picture file can hold", got=list(image.shape), expected="[H, W, 1, 3 or 4]"
        )
    mode = _MODES[image.shape[2]]
    return PIL.Image.fromarray(np.ascontiguousarray(image[..., 0] if mode == "L" else image), mode)


def columns_for(count: int) -> int:
    """Columns of a sheet that is about square and never taller than wide."""
    return max(1, math.ceil(math.sqrt(count)))


def sheet_from_images(
    images: NDArray[np.uint8], columns: int | None = None, padding: int = 2, scale: int = 1, background: int = 255
) -> PIL.Image.Image:
    """One picture of many.

    Args:
        images: uint8 [N, H, W, C], N at least 1.
        columns: images in a row; about the square root of N by default.
        padding: pixels between images and around them.
        scale: each pixel becomes scale × scale pixels, without smoothing.
        background: grey value of the padding, 0 to 255.
    """
    if images.ndim != 4 or len(images) == 0:
        raise InputError("a sheet needs images", got=list(images.shape), expected="[N, H, W, C] with N at least 1")
    n, height, width, channels = images.shape
    columns = columns_for(n) if columns is None else columns
    for value, name, least in ((columns, "columns", 1), (padding, "padding", 0), (scale, "scale", 1)):
        if value < least:
            raise InputError(f"{name} of a sheet is too small", got=value, expected=f"at least {least}")
    rows = -(-n // columns)
    tall, wide = height * scale, width * scale
    sheet = np.full(
        (rows * (tall + padding) + padding, columns * (wide + padding) + padding, channels), background, np.uint8
    )
    for i, image in enumerate(images):
        top = padding + (i // columns) * (tall + padding)
        left = padding + (i % columns) * (wide + padding)
        sheet[top : top + tall, left : left + wide] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return pil_from_image(sheet)
