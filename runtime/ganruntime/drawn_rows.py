"""What a generator draws, as callers get it: uint8 images [n, H, W, C], or rows of its first output."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganruntime.buckets import Piece
from ganruntime.errors import InputError
from ganruntime.images import uint8_from_output
from ganruntime.roles import Image
from ganruntime.sessions.base import Arrays, fixed_shape
from ganruntime.sizes import Size, spec_at, varying_inputs
from ganruntime.spec import GeneratorSpec


class DrawnRows:
    """Makes and fills arrays of what is drawn."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._spec = spec
        self._image = spec.image
        self._tensor = self._image or spec.outputs[0]
        # Asked of every request. Where sizes vary, a row has a shape only at one of them.
        self._fixed = None if varying_inputs(spec) else _row_of(spec)

    def empty(self, n: int, size: Size | None) -> NDArray[Any]:
        """[n, *row] to fill, at a size of images that vary. Raises `InputError` where the memory does not hold it."""
        shape, dtype = self._fixed or _row_of(spec_at(self._spec, size))
        try:
            return np.empty((n, *shape), dtype)
        except (MemoryError, ValueError) as error:  # ValueError: more bytes than an address has bits
            raise InputError(
                f"{n:,} outputs do not fit the memory", got=str(error), remedy="Generator.stream gives them in chunks"
            ) from error

    def put(self, piece: Piece, outputs: Arrays, result: NDArray[Any]) -> None:
        """Fills a piece's rows of the result with what it gave. The outputs may be overwritten."""
        output, target = outputs[self._tensor.name], result[piece.start : piece.start + piece.rows]
        if self._image is not None:
            uint8_from_output(output[: piece.rows], self._image, out=target, overwrite=True)
        else:
            np.copyto(target, output[: piece.rows])


def _row_of(spec: GeneratorSpec) -> tuple[tuple[int, ...], str]:
    image = spec.image
    if image is None:
        return fixed_shape(spec.outputs[0]), spec.outputs[0].dtype
    assert isinstance(image.role, Image)
    shape = fixed_shape(image)
    return shape[1:] + shape[:1] if image.role.layout == "CHW" else shape, "uint8"
