"""Pictures for an image input: PNG, JPEG and WebP files as the values that a spec asks for, checked before they are."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageOps

from ganruntime.errors import InputError
from ganruntime.images import values_from_uint8
from ganruntime.sizes import Size, size_text
from ganruntime.spec import Image, TensorSpec

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# What becomes 8-bit grey, RGB or RGBA and loses nothing.
_LOSSLESS_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_ORIENTATION = 0x0112
_SIDES_SWAPPED = (5, 6, 7, 8)


def size_of_picture(data: bytes, tensor: TensorSpec, where: str) -> Size:
    """(height, width) of a picture's pixels as they are shown, by its header where that says it.

    Raises:
        InputError: it is no picture, of a kind that this input does not take, or of another size than its spec's.
    """
    role = _image(tensor)
    if tensor.channels not in _MODES:
        raise InputError(
            f"input {tensor.name!r} takes no pictures",
            got=where,
            expected=f"an array with {tensor.channels} channels",
            remedy=f"--input {tensor.name}=FILE.npy",
        )
    with _opened(data, where) as picture:
        if picture.mode not in _LOSSLESS_MODES:
            raise InputError(
                f"{where} holds another kind of pixels than input {tensor.name!r} takes",
                got=f"Pillow's mode {picture.mode!r}",
                expected="8 bits of grey, RGB or RGBA",
                remedy="save it as an 8-bit PNG, or give its values as FILE.npy",
            )
        width, height = picture.size
        try:
            # A PNG may say it behind its pixels, so that this decodes it.
            swapped = picture.getexif().get(_ORIENTATION) in _SIDES_SWAPPED
        except (OSError, SyntaxError, ValueError) as error:
            raise _not_a_picture(where, error) from error
        if swapped:
            width, height = height, width
    axes = role.height_and_width
    asked = tensor.shape[axes[0]], tensor.shape[axes[1]]
    if any(want not in (None, side) for want, side in zip(asked, (height, width), strict=True)):
        fixed = (asked[0] or height, asked[1] or width)
        raise InputError(
            f"{where} has another size than input {tensor.name!r}",
            got=size_text((height, width)),
            expected=size_text(fixed),
            remedy=f"crop or scale it to {size_text(fixed)}",
        )
    return height, width


def values_from_picture(data: bytes, tensor: TensorSpec, where: str) -> NDArray[np.generic]:
    """A picture file's bytes as one row of an image input: [C, H, W] or [H, W, C] in its dtype and range.

    A grey picture fits an input with three channels, and one without transparency an input with four. What would lose
    something is refused: colours for a grey input, transparency for one that knows none.

    Raises:
        InputError: it is no picture, or does not fit.
    """
    channels = tensor.channels
    assert channels is not None
    with _opened(data, where) as picture:
        try:
            pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGBA"))  # [H, W, 4]
        except (OSError, SyntaxError, ValueError) as error:
            raise _not_a_picture(where, error) from error
    if channels != 4 and (pixels[..., 3] != 255).any():
        raise InputError(
            f"{where} is transparent in places, and input {tensor.name!r} knows no transparency",
            expected=f"{channels} channels",
            remedy="save it on a background, without an alpha channel",
        )
    if channels == 1:
        if (pixels[..., :1] != pixels[..., 1:3]).any():
            raise InputError(
                f"{where} has colours, and input {tensor.name!r} is grey",
                got="RGB",
                expected="1 channel",
                remedy="save it as a grey picture",
            )
        pixels = pixels[..., :1]
    return values_from_uint8(pixels[..., :channels], tensor)


@contextmanager
def _opened(data: bytes, where: str) -> Iterator[PIL.Image.Image]:
    with warnings.catch_warnings():
        # A picture beyond Pillow's limit is an error either way; a warning between other output says nothing of use.
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        try:
            picture = PIL.Image.open(io.BytesIO(data), formats=_FORMATS)
        except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError, Warning) as error:
            raise _not_a_picture(where, error) from error
        with picture:
            yield picture


def _not_a_picture(where: str, error: BaseException) -> InputError:
    got = "bytes that are none of these" if isinstance(error, PIL.UnidentifiedImageError) else str(error)[:200]
    return InputError(f"{where} is not a picture that can be read", got=got, expected="PNG, JPEG or WebP")


def _image(tensor: TensorSpec) -> Image:
    assert isinstance(tensor.role, Image)
    return tensor.role
