"""Pixels in the graph: an image output as uint8 [N, H, W, C], so that a quarter of the bytes leaves the device.

The same numbers as `ganruntime.images.uint8_from_output` gives: round((x - low) · 255 / (high - low)), half to even,
in [0, 255], in float32, in the same order of operations. NaN is not defined here (Cast leaves it open).

1. Every image output of the spec, float32, in either layout: Clip, Mul, Add, Round, Cast, and a Transpose for CHW.
2. The output keeps its name; its dtype is uint8 and its shape [N, H, W, C].
3. The Clip comes first, to [low, high], where the runtime clips last: the rounding between is monotonic, so that is the
   same. A Mul behind a Conv would be folded into its weights by ONNX Runtime, and then rounds otherwise.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ganexport.passes.constants import new_initializer
from ganexport.passes.report import PassReport
from ganruntime.spec import GeneratorSpec, Image


def add_uint8_head(model: ir.Model, spec: GeneratorSpec) -> PassReport:
    report = PassReport("uint8_head")
    graph = model.graph
    for index, value in enumerate(list(graph.outputs)):
        tensor = next((t for t in spec.outputs if t.name == value.name), None)
        if tensor is None or not isinstance(tensor.role, Image):
            continue
        if value.dtype != ir.DataType.FLOAT:
            report.refuse(
                str(value.name), f"it is {value.dtype.name if value.dtype else 'of unknown dtype'}, not float32"
            )
            continue
        low, high = tensor.role.range
        name = tensor.name
        gain = new_initializer(graph, f"{name}_gain", np.array(255.0 / (high - low), np.float32))
        offset = new_initializer(graph, f"{name}_offset", np.array(-low * 255.0 / (high - low), np.float32))
        black = new_initializer(graph, f"{name}_black", np.array(low, np.float32))
        white = new_initializer(graph, f"{name}_white", np.array(high, np.float32))
        value.name = f"{name}_float"
        clipped = ir.node("Clip", [value, black, white], name=f"{name}_clip")
        scaled = ir.node("Mul", [clipped.outputs[0], gain], name=f"{name}_scale")
        shifted = ir.node("Add", [scaled.outputs[0], offset], name=f"{name}_shift")
        rounded = ir.node("Round", [shifted.outputs[0]], name=f"{name}_round")
        cast = ir.node("Cast", [rounded.outputs[0]], {"to": ir.DataType.UINT8.value}, name=f"{name}_pixels")
        nodes = [clipped, scaled, shifted, rounded, cast]
        if tensor.role.layout == "CHW":
            # After the Cast: a quarter of the bytes to move.
            nodes.append(ir.node("Transpose", [cast.outputs[0]], {"perm": [0, 2, 3, 1]}, name=f"{name}_channels_last"))
        for node in nodes[:-1]:
            node.outputs[0].name = f"{node.name}_out"
        graph.extend(nodes)
        pixels = nodes[-1].outputs[0]
        pixels.name = name
        pixels.type = ir.TensorType(ir.DataType.UINT8)
        if value.shape is not None:
            order = (0, 2, 3, 1) if tensor.role.layout == "CHW" else (0, 1, 2, 3)
            pixels.shape = ir.Shape([value.shape[i] for i in order])
        graph.outputs[index] = pixels
        report.changed.append(f"{name}: uint8 [N, H, W, C] from {tensor.role.layout} in [{low:g}, {high:g}]")
    return report
