"""One graph for a whole search: which layers are in int8, and where each value saturates, are inputs of it.

It gives what the Q/DQ graph of `quantised_graph` gives with the same choice: the same nodes on the same numbers. What
that one joins as integers behind a Concat or pairs before a ReLU is left out, because it changes no number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ganexport.passes.constants import constant_of
from ganexport.precision.bias_correction import corrected_bias
from ganexport.precision.int8_layers import Layer
from ganexport.precision.integer_weights import IntegerWeights
from ganexport.precision.quantised_graph import grid_of
from ganexport.precision.traced import Arrays, plain_session

Float32 = NDArray[np.float32]


class SwitchedGraph:
    """Opens a graph once and runs it in int8 as far as is asked."""

    def __init__(
        self,
        base: bytes,
        layers: Sequence[Layer],
        weights: Mapping[str, IntegerWeights],
        means: Mapping[str, NDArray[np.float64]],
        *,
        symmetric: bool,
    ) -> None:
        """Opens a graph.

        Args:
            base: the fp32 graph.
            layers: those that can be switched.
            weights: {layer: its weights as integers}.
            means: {value that a layer reads: [C]}, for the correction of biases.
            symmetric: as for `quantise`.

        Raises:
            BackendError: ONNX Runtime refuses the graph.
        """
        model = ir.from_proto(onnx.load_model_from_string(base))
        self._layers = {layer.node: layer for layer in layers}
        self._symmetric = symmetric
        # What is fed where a layer is in fp32, and where it is in int8.
        self._plain: dict[str, dict[str, Float32]] = {}
        self._int8: dict[str, dict[str, Float32]] = {}
        nodes = {str(node.name): node for node in model.graph}
        for layer in layers:
            node = nodes[layer.node]
            lost, mean = weights[layer.node].lost, means[layer.reads]
            self._plain[layer.node], self._int8[layer.node] = {}, {}
            bias = corrected_bias(node, lost, mean)
            self._feed_input(model.graph, node, 1, weights[layer.node].rounded)
            if bias is not None:
                self._feed_input(model.graph, node, 2, bias)
            self._switch_activation(model.graph, node, layer)
        proto = ir.to_proto(model)
        del proto.graph.value_info[:]
        self._session: Any = plain_session(proto.SerializeToString())

    def run(
        self, outputs: Sequence[str], inputs: Arrays, on: Collection[str], thresholds: Mapping[str, float]
    ) -> list[Float32]:
        """The outputs, [n, …] each.

        Args:
            on: names of the layers in int8.
            thresholds: {value: where it saturates}, for all that those layers read.
        """
        feeds: dict[str, Any] = dict(inputs)
        for name, layer in self._layers.items():
            is_on = name in on
            feeds |= self._int8[name] if is_on else self._plain[name]
            feeds[_on(name)] = np.array(is_on)
            is_one_sign = layer.reads_one_sign and not self._symmetric
            feeds[_scale(name)] = grid_of(thresholds[layer.reads] if is_on else 1.0, is_one_sign)[0]
        found: list[Float32] = self._session.run(list(outputs), feeds)
        return found

    def _feed_input(self, graph: ir.Graph, node: ir.Node, index: int, int8: Float32) -> None:
        """Makes an input of a layer one of the graph."""
        value = node.inputs[index] if index < len(node.inputs) else None
        plain = np.zeros_like(int8) if value is None else constant_of(value)
        assert plain is not None
        made = ir.Value(name=f"{node.name}/{index}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(int8.shape))
        graph.inputs.append(made)
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        node.replace_input_with(index, made)
        self._plain[str(node.name)][str(made.name)] = np.ascontiguousarray(plain, np.float32)
        self._int8[str(node.name)][str(made.name)] = np.ascontiguousarray(int8)
        if value is not None and not value.uses() and str(value.name) in graph.initializers:
            del graph.initializers[str(value.name)]

    def _switch_activation(self, graph: ir.Graph, node: ir.Node, layer: Layer) -> None:
        source = node.inputs[0]
        assert source is not None
        name = str(node.name)
        zero = grid_of(1.0, layer.reads_one_sign and not self._symmetric)[1]
        on = ir.Value(name=_on(name), type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape(()))
        scale = ir.Value(name=_scale(name), type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(()))
        graph.inputs.extend((on, scale))
        lowest = ir.Value(name=f"{name}/zero", const_value=ir.tensor(zero, name=f"{name}/zero"))
        graph.register_initializer(lowest)
        integers = ir.node("QuantizeLinear", [source, scale, lowest], name=f"{name}/quantise")
        back = ir.node("DequantizeLinear", [integers.outputs[0], scale, lowest], name=f"{name}/dequantise")
        chosen = ir.node("Where", [on, back.outputs[0], source], name=f"{name}/switch")
        for made in (integers, back, chosen):
            made.outputs[0].name = f"{made.name}/out"
        graph.insert_before(node, [integers, back, chosen])
        node.replace_input_with(0, chosen.outputs[0])


def _on(layer: str) -> str:
    return f"{layer}/on"


def _scale(layer: str) -> str:
    return f"{layer}/scale"
