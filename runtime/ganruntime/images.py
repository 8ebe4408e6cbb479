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


_scratch = _Scratch()


def uint8_from_output(
    output: NDArray[np.generic], tensor: TensorSpec, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """A generator's output as pixels: round((x - low) · 255 / (high - low)), clipped, half to even.

    Args:
        output: [N, C, H, W] or [N, H, W, C], as the spec's layout says; a floating dtype, or uint8 pixels already.
        tensor: the output's spec; its role must be `image`.
        out: uint8 [N, H, W, C] to fill; a new array by default.

    Returns:
        uint8 [N, H, W, C]. NaN becomes 0; whether an output is finite is the parity gate's question.

    Raises:
        InputError: the tensor is no image, or the array does not have four dimensions.
    """
    if not isinstance(tensor.role, Image):
        raise InputError(f"output {tensor.name!r} is not an image", got=tensor.role.kind, expected="image")
    if output.ndim != 4:
        raise InputError(
            f"output {tensor.name!r} has no batch of images", got=list(output.shape), expected="four dimensions"
        )
    planes_first = tensor.role.layout == "CHW"
    n = output.shape[0]
    height, width, channels = output.shape[2:] + output.shape[1:2] if planes_first else output.shape[1:]
    if out is None:
        out = np.empty((n, height, width, channels), np.uint8)
    target = out.transpose(0, 3, 1, 2) if planes_first else out
    if output.dtype == np.uint8:
        np.copyto(target, output)
        return out
    low, high = tensor.role.range
    gain, offset = np.float32(255.0 / (high - low)), np.float32(-low * 255.0 / (high - low))
    elements = height * width * channels
    rows = max(1, _PIECE_ELEMENTS // max(1, elements))
    values = _scratch.values if elements <= _PIECE_ELEMENTS else np.empty(elements, np.float32)
    for start in range(0, n if elements else 0, rows):
        count = min(rows, n - start)
        piece = values[: count * elements].reshape(count, *output.shape[1:])
        np.multiply(output[start : start + rows], gain, out=piece, casting="unsafe")
        np.add(piece, offset, out=piece)
        np.rint(piece, out=piece)
        # Looking takes three quarters of what clipping takes, and finds NaN, too: what that is cast to differs between
        # CPUs. A generator whose last step is a tanh never needs more.
        if not (piece.min() >= 0.0 and piece.max() <= 255.0):
            np.clip(piece, np.float32(0.0), np.float32(255.0), out=piece)
            piece[np.isnan(piece)] = 0.0
        np.copyto(target[start : start + rows], piece, casting="unsafe")
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
