"""The two half types: their limits, and rounding to them."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class HalfType:
    """A 16-bit float type.

    name: the rung. onnx_name: in `onnx.TensorProto` and `onnx_ir.DataType`. type_text: as operator schemas write it.
    largest: the largest finite value. smallest_normal: below it, digits are lost one by one.
    digits: binary digits of the significand, the implicit one included; rounding is off by at most 2^-digits, relative.
    opset: the oldest operator set in which the operators of a generator take the type.
    """

    name: str
    onnx_name: str
    type_text: str
    largest: float
    smallest_normal: float
    digits: int
    opset: int

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(np.float16) if self.name == "fp16" else np.dtype(ml_dtypes.bfloat16)


FP16 = HalfType("fp16", "FLOAT16", "tensor(float16)", 65504.0, 2.0**-14, 11, 18)
# Conv, ConvTranspose, InstanceNormalization and others take bfloat16 from operator set 22 on.
BF16 = HalfType("bf16", "BFLOAT16", "tensor(bfloat16)", (2 - 2.0**-7) * 2.0**127, 2.0**-126, 8, 22)
HALF_TYPES = {half.name: half for half in (FP16, BF16)}


def rounded(array: NDArray[np.float32], half: HalfType) -> NDArray[np.float32]:
    """Every value rounded to the half type, to nearest and ties to even, and back: float32 of the same shape."""
    with np.errstate(over="ignore"):
        back: NDArray[np.float32] = array.astype(half.dtype).astype(np.float32)
    return back
