"""Second moments of what a layer multiplies its weights with: which numbers move together, measured over latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of, integer_of, integers_of, string_of
from ganexport.precision.traced import Array, Arrays, TracedGraph

Float64 = NDArray[np.float64]
# Of one moment, [256, 256] at most: whole channels of a convolution. What moves together most are the taps of one
# channel, and of the thousands of inputs of a wide layer a calibration does not show which others do: runs of 144 to
# 600 gave up to 1 dB more than all inputs at once, in a hundredth of the time.
_WIDTH = 256
_PLACES = 8192
_PLACES_PER_WEIGHT = 2
_SEED = 0x6D6F6D65  # "mome": which places of an image are looked at


def moments_from_graph(graph: bytes, inputs: Arrays, nodes: Sequence[ir.Node]) -> dict[str, list[Float64]]:
    """{node: E[x xᵀ] of one run of its inputs after the other, [D, D] each, D ≤ 256}, over all rows of `inputs`.

    In the order of the weights of one output channel in memory: of a convolution [C, kernel height, kernel width], as
    many whole channels in a run as fit. Over 8,192 places drawn at random, evenly over the images.

    Args:
        nodes: Conv, Gemm and MatMul with constant weights. Left out of the result are convolutions in groups, of other
            than two dimensions, or with automatic padding; and layers of which fewer than twice as many places were
            seen as a run is wide: what moves together there by chance does not do so elsewhere.
    """
    looks = {str(node.name): look for node in nodes if (look := _look_of(node)) is not None}
    reads = {str(node.name): str(node.inputs[0].name) for node in nodes if node.inputs[0] is not None}
    rows = len(next(iter(inputs.values())))
    per_image = -(-_PLACES // rows)
    random = np.random.default_rng(_SEED)
    sums: dict[str, list[Float64]] = {}
    counts: dict[str, int] = {}

    def add(values: Mapping[str, Array]) -> None:
        for name, look in looks.items():
            if reads[name] not in values:
                continue
            array = values[reads[name]].astype(np.float32)
            for number, (count, moment) in enumerate(look(array, per_image, random)):
                runs = sums.setdefault(name, [])
                if number == len(runs):
                    runs.append(np.zeros_like(moment))
                runs[number] += moment
                if number == 0:
                    counts[name] = counts.get(name, 0) + count

    wanted = {reads[name] for name in looks}
    add({name: array for name, array in inputs.items() if name in wanted})
    TracedGraph(graph, [name for name in wanted if name not in inputs]).stream(inputs, add)
    return {
        name: [moment / counts[name] for moment in runs]
        for name, runs in sums.items()
        if counts[name] >= _PLACES_PER_WEIGHT * len(runs[0])
    }


# [n, …], places per image -> (how many places, their sum of x xᵀ) for one run after the other.
_Look = Callable[[NDArray[np.float32], int, np.random.Generator], Iterator[tuple[int, Float64]]]


def _look_of(node: ir.Node) -> _Look | None:
    if node.op_type != "Conv":
        return _rows
    weight = constant_of(node.inputs[1])
    automatic = string_of(node, "auto_pad", "NOTSET") != "NOTSET"
    if weight is None or weight.ndim != 4 or integer_of(node, "group", 1) != 1 or automatic:
        return None
    return _Windows(
        (weight.shape[2], weight.shape[3]),
        integers_of(node, "strides", [1, 1]),
        integers_of(node, "dilations", [1, 1]),
        integers_of(node, "pads", [0, 0, 0, 0]),
    )


def _rows(array: NDArray[np.float32], _: int, __: np.random.Generator) -> Iterator[tuple[int, Float64]]:
    """Of a dense layer: all rows, [n, …, inputs]."""
    rows = array.reshape(-1, array.shape[-1])
    for start in range(0, rows.shape[1], _WIDTH):
        run = rows[:, start : start + _WIDTH]
        yield len(run), (run.T @ run).astype(np.float64)


@dataclass(frozen=True)
class _Windows:
    """Of a convolution: what its kernel covers at some places of each image. pads: top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]

    def __call__(
        self, array: NDArray[np.float32], per_image: int, random: np.random.Generator
    ) -> Iterator[tuple[int, Float64]]:
        top, left, bottom, right = self.pads
        padded = np.pad(array, ((0, 0), (0, 0), (top, bottom), (left, right)))  # [n, C, H, W]
        n, channels, height, width = padded.shape
        high, wide = (
            (length - dilation * (kernel - 1) - 1) // stride + 1
            for length, dilation, kernel, stride in zip(
                (height, width), self.dilations, self.kernel, self.strides, strict=True
            )
        )
        taps = self.kernel[0] * self.kernel[1]
        down, along = (np.arange(k) * d for k, d in zip(self.kernel, self.dilations, strict=True))
        covered = (down[:, None] * width + along).reshape(-1)  # [taps], from the window's first pixel
        flat = padded.reshape(n, channels, -1)
        places = []
        for image in flat:
            chosen = random.permutation(high * wide)[:per_image]
            first = chosen // wide * (self.strides[0] * width) + chosen % wide * self.strides[1]
            places.append(image[:, first[:, None] + covered])  # [C, places, taps]
        windows = np.concatenate(places, axis=1)
        step = max(1, _WIDTH // taps)
        for start in range(0, channels, step):
            run = windows[start : start + step].transpose(1, 0, 2).reshape(windows.shape[1], -1)  # [places, D]
            yield len(run), (run.T @ run).astype(np.float64)
