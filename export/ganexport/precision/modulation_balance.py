"""Balance of modulated layers: what a style scales differently in each channel is evened out before it is quantised.

A modulated convolution (StyleGAN2) reads x · s, with a style s per sample and channel. Each channel has its own range
over latents, all of them share one int8 scale, and the weak ones are rounded as coarsely as the strongest. With a
constant g per channel, (x · (s · g)) ∗ (w / g) is the same function. g is the inverse of what a channel reaches on
average, to the power 0.4: with 1 the activations would be even, and the weights as uneven as those were (SmoothQuant,
Xiao et al. 2023, has the same trade). In StyleGAN2 64 with random weights the input of a layer gains 2 to 4 dB, and its
weights lose 1.

Scaling s touches [N, C, 1, 1] numbers. A layer without a style has no such place where it is free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of, integer_of, is_used_once, new_initializer
from ganexport.precision.int8_layers import Layer
from ganexport.precision.ranges import ValueRange
from ganexport.precision.traced import Array, Arrays, TracedGraph

_POWER = 0.4
Float64 = NDArray[np.float64]


def balance_modulated(
    model: ir.Model, graph: bytes, layers: Sequence[Layer], ranges: Mapping[str, ValueRange], inputs: Arrays
) -> list[str]:
    """Balances the layers that read a modulated value, in place, and returns their names.

    Args:
        graph: the model as a file, which is run.
        layers: those that may become int8; all others stay as they are.
        ranges: from `ranges_from_graph`, of the same graph.
        inputs: what the strength of channels is measured on.
    """
    names = {layer.node for layer in layers}
    found = [(node, style) for node in model.graph if node.name in names and (style := _style_of(node, ranges))]
    strengths = _strengths(graph, inputs, [str(node.inputs[0].name) for node, _ in found if node.inputs[0] is not None])
    for node, style in found:
        modulated, weight = node.inputs[0], constant_of(node.inputs[1])
        assert modulated is not None
        assert weight is not None
        strength = strengths[str(modulated.name)]  # [C]
        lit = strength > 0
        gains = np.ones(len(strength))
        gains[lit] = strength[lit] ** -_POWER
        gains[lit] /= np.exp(np.log(gains[lit]).mean()) if lit.any() else 1.0
        _scale_style(model.graph, node, style, gains.astype(np.float32))
        per_input = gains.astype(np.float32).reshape(1, -1, *[1] * (weight.ndim - 2))
        node.replace_input_with(
            1, new_initializer(model.graph, f"{node.name}_balanced", weight.astype(np.float32) / per_input)
        )
    return [str(node.name) for node, _ in found]


def _style_of(node: ir.Node, ranges: Mapping[str, ValueRange]) -> ir.Value | None:
    """The style that scales what a layer reads, [N, C, 1, …], or None where there is none."""
    modulated = node.inputs[0]
    if node.op_type != "Conv" or integer_of(node, "group", 1) != 1 or modulated is None or not is_used_once(modulated):
        return None
    product = modulated.producer()
    if product is None or product.op_type != "Mul":
        return None
    for style, other in (product.inputs, reversed(product.inputs)):
        if style is None or other is None or constant_of(style) is not None or constant_of(other) is not None:
            continue
        known, whole = ranges.get(str(style.name)), ranges.get(str(modulated.name))
        if known is None or whole is None or len(known.shape) != len(whole.shape) or known.shape == whole.shape:
            continue
        if known.shape[1] == whole.shape[1] and set(known.shape[2:]) == {1}:
            return style
    return None


def _strengths(graph: bytes, inputs: Arrays, values: Sequence[str]) -> dict[str, Float64]:
    """{value: [C], the root of the mean square of each channel} over all rows of `inputs`."""
    sums: dict[str, Float64] = {}

    def add(arrays: Mapping[str, Array]) -> None:
        for name in values:
            flat = arrays[name].reshape(*arrays[name].shape[:2], -1).astype(np.float64)  # [n, C, places]
            sums[name] = sums.get(name, 0.0) + np.square(flat).mean(axis=2).sum(axis=0)

    TracedGraph(graph, values).stream(inputs, add)
    return {name: np.sqrt(total / len(next(iter(inputs.values())))) for name, total in sums.items()}


def _scale_style(graph: ir.Graph, layer: ir.Node, style: ir.Value, gains: NDArray[np.float32]) -> None:
    """Puts the gains between the style and the product that the layer reads, and nowhere else."""
    product = layer.inputs[0].producer() if layer.inputs[0] is not None else None
    assert product is not None
    known = style.shape
    constant = new_initializer(graph, f"{layer.name}_gains", gains.reshape(1, -1, *[1] * (_rank_of(layer) - 2)))
    scaled = ir.node("Mul", [style, constant], name=f"{layer.name}_balance")
    scaled.outputs[0].name = f"{style.name}_balanced_for_{layer.name}"
    scaled.outputs[0].type, scaled.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), known
    graph.insert_before(product, scaled)
    product.replace_input_with(list(product.inputs).index(style), scaled.outputs[0])


def _rank_of(layer: ir.Node) -> int:
    weight = constant_of(layer.inputs[1])
    assert weight is not None
    return weight.ndim
