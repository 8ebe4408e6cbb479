"""Ranges: what every value of a graph reaches over latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ganexport.passes.constants import constant_of
from ganexport.precision.traced import Array, Arrays, TracedGraph


@dataclass(frozen=True)
class ValueRange:
    """What was seen of one value.

    dtype: NumPy's name. row_elements: elements per image. shape: of the last rows that ran, batch included.
    abs_max: the largest magnitude; infinity where a value was not finite. abs_min: the smallest that is not 0, or 0
    where all are. Both are 0 for values that are not float.
    """

    dtype: str
    shape: tuple[int, ...]
    abs_max: float
    abs_min: float

    @property
    def is_float(self) -> bool:
        return self.dtype == "float32"

    @property
    def row_elements(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) if len(self.shape) > 1 else 1


def ranges_from_graph(graph: bytes, inputs: Arrays) -> dict[str, ValueRange]:
    """{value name: its range} over all rows of `inputs`, for every value that a node makes, and the inputs."""
    found: dict[str, ValueRange] = {}

    def look(values: dict[str, Array]) -> None:
        for name, array in values.items():
            found[name] = _joined(found.get(name), array)

    traced = TracedGraph(graph)
    for name in traced.inputs:
        found[name] = _joined(None, inputs[name])
    traced.stream(inputs, look)
    return found


def is_float_value(value: ir.Value, ranges: Mapping[str, ValueRange]) -> bool:
    """Whether a value of the graph that was measured is float32; constants are told by what they hold."""
    known = ranges.get(str(value.name))
    if known is not None:
        return known.is_float
    constant = constant_of(value)
    return constant is not None and constant.dtype == np.float32


def touches_float(node: ir.Node, ranges: Mapping[str, ValueRange]) -> bool:
    """Whether a node reads or makes such a value."""
    return any(is_float_value(v, ranges) for v in (*node.inputs, *node.outputs) if v is not None)


def _joined(before: ValueRange | None, array: Array) -> ValueRange:
    largest = smallest = 0.0
    if array.dtype == np.float32 and array.size:
        magnitudes = np.abs(array)
        largest = float(magnitudes.max())
        largest = largest if np.isfinite(largest) else float("inf")
        nonzero = magnitudes[magnitudes > 0]
        smallest = float(nonzero.min()) if nonzero.size else 0.0
    if before is not None:
        largest = max(largest, before.abs_max)
        smallest = min(smallest or before.abs_min, before.abs_min or smallest)
    return ValueRange(str(array.dtype), tuple(array.shape), largest, smallest)
