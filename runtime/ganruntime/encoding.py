"""Encodings: one image to the bytes of a PNG, JPEG or WebP file, the same bytes each time, and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import features

from ganruntime.errors import InputError
from ganruntime.images import pil_from_image

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
DEFAULT_QUALITY: Mapping[str, int | None] = {"png": None, "jpeg": 95, "webp": 90}
_LIBRARIES = {"png": "zlib", "jpeg": "jpg", "webp": "webp"}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Encoding:
    """How images become files.

    image_format: `png` (lossless), `jpeg` (without chroma subsampling) or `webp` (lossy).
    quality: 1 to 100 for the lossy ones (by default 95 and 90), None for PNG.

    Raises:
        InputError: the format is not one of these, or the quality does not go with it.
    """

    image_format: str = "png"
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.image_format not in SUFFIXES:
            raise InputError(f"{self.image_format!r} is not an image format", expected=", ".join(SUFFIXES))
        default = DEFAULT_QUALITY[self.image_format]
        if self.quality is None:
            object.__setattr__(self, "quality", default)
        elif default is None:
            raise InputError(
                "PNG has no quality: it keeps every pixel", got=self.quality, remedy="--image-format jpeg or webp"
            )
        elif isinstance(self.quality, bool) or not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise InputError("the quality is out of range", got=repr(self.quality), expected="1 to 100")

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.image_format]

    @property
    def lossless(self) -> bool:
        return self.quality is None

    def require_channels(self, channels: int | None, name: str) -> None:
        """Raises `InputError` where the format cannot hold images of so many channels."""
        fits = (1, 3) if self.image_format == "jpeg" else (1, 3, 4)
        if channels not in fits:
            text = "a PNG" if self.image_format == "png" else f"a {self.image_format.upper()}"
            raise InputError(
                f"{name} draws nothing that {text} can hold",
                got=f"{channels} channels",
                expected=f"{', '.join(map(str, fits[:-1]))} or {fits[-1]}",
                remedy="-o NAME.npz" if channels not in (1, 3, 4) else "--image-format png",
            )

    def bytes_from_image(self, image: NDArray[np.uint8]) -> bytes:
        """uint8 [H, W, C] as a file's bytes."""
        options: dict[str, Any] = {} if self.quality is None else {"quality": self.quality}
        if self.image_format == "jpeg":
            options["subsampling"] = "4:4:4"
        buffer = io.BytesIO()
        pil_from_image(image).save(buffer, self.image_format, **options)
        return buffer.getvalue()

    def versions(self) -> dict[str, str]:
        """What the bytes of a file depend on, beside its pixels."""
        library = _LIBRARIES[self.image_format]
        return {"pillow": PIL.__version__, library: str(features.version(library))}


def image_from_bytes(data: bytes, channels: int, where: str) -> NDArray[np.uint8]:
    """The pixels of a picture file, uint8 [H, W, channels]. Raises `InputError` where it is not one."""
    try:
        with PIL.Image.open(io.BytesIO(data), formats=[f.upper() for f in SUFFIXES]) as picture:
            array = np.asarray(picture.convert(_MODES[channels]))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise InputError(f"{where} is not a picture that can be read", got=str(error)[:200]) from error
    return array[..., None] if array.ndim == 2 else array
