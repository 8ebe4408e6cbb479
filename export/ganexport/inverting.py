"""Around an inversion: the picture that is asked for, and the files that are left of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ganruntime.errors import DataError, InputError
from ganruntime.images import sheet_from_images
from ganruntime.spec import GeneratorSpec, Label, TensorSpec

if TYPE_CHECKING:
    from gantrain.inversion import Inversion

_SHOWN_SIDE = 256


def target_from_picture(path: Path, image: TensorSpec) -> NDArray[np.uint8]:
    """A picture file as uint8 [H, W, C] of the generator's size and channels: its central square, reduced.

    Raises:
        DataError: it cannot be read, or is smaller than that.
    """
    from gantrain.data.picture import image_from_bytes

    channels, size = image.channels or 1, image.shape[1] or 0
    try:
        pixels = image_from_bytes(path.read_bytes(), str(path), size)  # [size, size, 1 or 3]
    except OSError as error:
        raise DataError(
            f"{path} cannot be read", got=error.strerror or str(error), expected="a picture file"
        ) from error
    except DataError as error:
        raise DataError(
            f"{path} cannot be inverted",
            got=f"{error.problem}: {error.got}",
            expected=f"a picture of at least {size}×{size} pixels",
            remedy="give a whole and larger picture",
        ) from error
    if pixels.shape[2] == channels:
        return pixels
    mode = "L" if channels == 1 else "RGB"
    plain = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert(mode)
    return np.asarray(plain, np.uint8).reshape(size, size, channels)


def class_index(label: str | int | None, spec: GeneratorSpec) -> int | None:
    """A class of the generator by its name or index, as an index. Raises `InputError` where there is none."""
    if label is None:
        return None
    classes = next((t.role.classes for t in spec.inputs if isinstance(t.role, Label)), ())
    if isinstance(label, int) and label < len(classes):
        return label
    if label not in classes:
        expected = ", ".join(classes) if classes else "no label: it draws without"
        raise InputError(f"{spec.name} draws no such class", got=repr(label), expected=expected)
    return classes.index(str(label))


def npz_from_inversion(found: Inversion, spec: GeneratorSpec) -> bytes:
    """An .npz file: every input that the image was drawn with by its name, [1, …] each, which `generate --input` takes.

    The latent is called as the generator's input is, or `w`.
    """
    latent = spec.latent
    name = "w" if found.space == "w" or latent is None else latent.name
    arrays = {key: values[None] for key, values in found.inputs.items()} | {name: found.latent[None]}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def png_from_inversion(found: Inversion, target: NDArray[np.uint8]) -> bytes:
    """The target on the left, the reconstruction on the right."""
    scale = max(1, _SHOWN_SIDE // target.shape[0])
    sheet = sheet_from_images(np.stack([target, found.image]), columns=2, padding=4, scale=scale)
    file = io.BytesIO()
    sheet.save(file, "png")
    return file.getvalue()
