"""What a table of operators cannot say: how a node may be used, and where TensorRT is known to compute something else.

Each rule is a function of a node in its graph and a release, and names its source. `fails`: the engine cannot be
built; `wrong`: it is built, and computes something else; `caution`: it has gone wrong in the field, or nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ganexport.tensorrt.graph_nodes import Graph, Model, Node, Tensor
from ganexport.tensorrt.operator_support import Version, text_from_version

OPERATORS_MD = "onnx/onnx-tensorrt docs/operators.md"


@dataclass(frozen=True)
class Finding:
    """One thing that will go wrong, or may.

    Args:
        severity: `fails`, `wrong` or `caution`.
        rule: a short name, for machines.
        node: which node; the graph itself where it is about no node.
        source: who says so.
    """

    severity: str
    rule: str
    node: str
    operator: str
    problem: str
    remedy: str
    source: str

    @property
    def stops(self) -> bool:
        return self.severity in ("fails", "wrong")


@dataclass(frozen=True)
class Place:
    """A node, and what is needed to judge it."""

    node: Node
    graph: Graph
    model: Model
    types: Mapping[str, str]
    version: Version

    def find(self, severity: str, rule: str, problem: str, remedy: str, source: str = OPERATORS_MD) -> Finding:
        return Finding(severity, rule, str(self.node), self.node.operator, problem, remedy, source)

    def rank(self, name: str) -> int | None:
        known = self.graph.known.get(name)
        if known is not None and known[1] is not None:
            return len(known[1])
        constant = self.graph.constant(name)
        return None if constant is None else len(constant.shape)

    @property
    def release(self) -> str:
        return f"TensorRT {text_from_version(self.version)}"


Rule = Callable[[Place], Iterator[Finding]]


def grid_sample(at: Place) -> Iterator[Finding]:
    """3-D from 11.2.1 on. At opset 20 the modes have other names, which older parsers take for `nearest`, silently."""
    if at.node.operator != "GridSample":
        return
    rank = at.rank(at.node.input(0)) or at.rank(at.node.input(1))
    if at.version < (11, 2, 1) and rank is not None and rank > 4:
        yield at.find(
            "fails",
            "grid-sample-3d",
            f"GridSample of a tensor of {rank} dimensions; {at.release} takes 4",
            "TensorRT 11.2.1 or later, or serve with ONNX Runtime",
            "TensorRT 11.2.1 release notes",
        )
    mode = at.node.attributes.get("mode", "linear" if at.model.opset >= 20 else "bilinear")
    if at.model.opset >= 20 and mode in ("linear", "cubic"):
        known = at.version < (11, 2, 1)
        yield at.find(
            "wrong" if known else "caution",
            "grid-sample-opset-20",
            f"GridSample with mode {mode!r} at opset {at.model.opset} is computed as `nearest`"
            + ("" if known else "; seen on 10.13 and 11.1, and not known to be mended"),
            "export with opset 18, where the mode has the name that TensorRT knows",
            "NVIDIA/TensorRT#4646, onnx/onnx-tensorrt#1060",
        )


def random_nodes(at: Place) -> Iterator[Finding]:
    """TensorRT ignores seeds: image i of seed s would not be the same twice."""
    if at.node.operator in ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"):
        yield at.find(
            "wrong",
            "random-node",
            f"{at.node.operator} draws in the graph, and TensorRT ignores its seed: no image could be drawn again",
            "make the noise an input of the generator, or freeze it to a constant",
            "NVIDIA/TensorRT#4497, onnx/onnx-tensorrt#1029",
        )


def dropout(at: Place) -> Iterator[Finding]:
    if at.node.operator != "Dropout" or not at.node.input(2):
        return
    mode = at.graph.constant(at.node.input(2))
    values = None if mode is None else mode.values()
    if values is None or bool(np.any(values)):
        yield at.find(
            "fails", "dropout", "Dropout that is, or may be, left on", "export in evaluation mode: module.eval()"
        )


def half_norms(at: Place) -> Iterator[Finding]:
    """Norms in fp16: sums of squares leave its range, and epsilons of 1e-8 vanish in it."""
    if at.types.get(at.node.input(0)) != "float16":
        return
    if at.node.operator == "InstanceNormalization":
        yield at.find(
            "wrong",
            "instance-norm-fp16",
            "InstanceNormalization in float16 is known to give garbage",
            "keep it in float32: `ganexport to-onnx` does so in the fp16 graphs that it makes",
            "onnxruntime#10079",
        )
    elif at.node.operator in (
        "LayerNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization", "MeanVarianceNormalization",
        "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp",
    ):  # fmt: skip
        yield at.find(
            "caution",
            "norm-fp16",
            f"{at.node.operator} in float16 may overflow: NaN and black images",
            "keep it in float32, or use bf16",
            "NVIDIA/TensorRT#3921, NVIDIA/TensorRT#1954",
        )


def resize(at: Place) -> Iterator[Finding]:
    if at.node.operator != "Resize":
        return
    attributes = at.node.attributes
    for name, default, allowed in (
        ("mode", "nearest", ("nearest", "linear")),
        (
            "coordinate_transformation_mode",
            "half_pixel",
            ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"),
        ),
        ("nearest_mode", "round_prefer_floor", ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
        ("keep_aspect_ratio_policy", "stretch", ("stretch",)),
        ("antialias", 0, (0,)),
    ):
        value = attributes.get(name, default)
        if value not in allowed:
            yield at.find(
                "fails",
                "resize",
                f"Resize with {name}={value!r}",
                f"resize with {name} one of {', '.join(map(repr, allowed))}",
            )


def constant_inputs(at: Place) -> Iterator[Finding]:
    """Inputs that must be known when the engine is built; whether arithmetic folds to a constant is not seen here."""
    position = _CONSTANT_INPUTS.get(at.node.operator)
    if position is None or at.graph.is_constant(at.node.input(position[0])):
        return
    yield at.find(
        "caution" if at.node.input(position[0]) in at.graph.producers else "fails",
        "constant-input",
        f"{at.node.operator}: its input {position[1]!r} must be known when the engine is built",
        "make it a constant of the graph",
    )


_BY_AXES = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "Squeeze", "Unsqueeze",
)  # fmt: skip
_CONSTANT_INPUTS = dict.fromkeys(_BY_AXES, (1, "axes")) | {"CumSum": (1, "axis"), "OneHot": (1, "depth")}


def attributes(at: Place) -> Iterator[Finding]:
    """Single attributes that TensorRT takes one value of."""
    for name, default, allowed in _ATTRIBUTES.get(at.node.operator, ()):
        value = at.node.attributes.get(name, default)
        value = 1 if isinstance(value, tuple) and set(value) <= {1} else value  # dilations: empty, or all ones
        if value != allowed:
            yield at.find(
                "fails", "attribute", f"{at.node.operator} with {name}={value!r}", f"TensorRT takes {name}={allowed!r}"
            )


_ATTRIBUTES: dict[str, tuple[tuple[str, object, object], ...]] = {
    "AveragePool": (("dilations", (), 1),),
    "LpPool": (("dilations", (), 1),),
    "MaxPool": (("dilations", (), 1),),
    "TopK": (("sorted", 1, 1),),
    "ScatterND": (("reduction", "none", "none"),),
    "LSTM": (("input_forget", 0, 0), ("layout", 0, 0)),
    "TensorScatter": (("axis", -2, -2),),
}


def outputs(at: Place) -> Iterator[Finding]:
    """Outputs beyond the first, of operators of which TensorRT gives only that one."""
    if at.node.operator in ("MaxPool", "LayerNormalization"):
        used = [name for name in at.node.outputs[1:] if name and _is_used(at.graph, name)]
        if used:
            yield at.find(
                "fails",
                "output",
                f"{at.node.operator}: its output {used[0]!r} is used, and TensorRT gives the first only",
                "compute it in another way",
            )


def zero_points(at: Place) -> Iterator[Finding]:
    """Quantisation is symmetric."""
    if at.node.operator not in ("QuantizeLinear", "DequantizeLinear") or not at.node.input(2):
        return
    zero = at.graph.constant(at.node.input(2))
    values = zero.values() if isinstance(zero, Tensor) else None
    if values is None or bool(np.any(values)):
        yield at.find(
            "fails",
            "zero-point",
            f"{at.node.operator} with a zero point that is not 0, or not known",
            "quantise symmetrically to int8: `ganexport precision NAME.gan int8-symmetric` does",
        )


def control_flow(at: Place) -> Iterator[Finding]:
    if at.node.operator in ("If", "Loop", "Scan"):
        yield at.find(
            "caution",
            "control-flow",
            f"{at.node.operator} keeps kernels from being fused, and its branches must give tensors of the same rank",
            "export with fixed conditions, so that no control flow is left",
        )
    if at.node.operator == "If" and (11, 1) <= at.version < (11, 3):
        for transpose in (n for name in at.node.outputs for n in at.graph.consumers.get(name, ())):
            resized = (n for name in transpose.outputs for n in at.graph.consumers.get(name, ()))
            if transpose.operator == "Transpose" and any(n.operator == "Resize" for n in resized):
                yield at.find(
                    "wrong",
                    "if-transpose-resize",
                    "If, then Transpose, then Resize: TensorRT 11.1 and 11.2 compute something else",
                    "TensorRT 11.3 or later, or 10",
                    "NVIDIA/TensorRT#4846",
                )


def pooling(at: Place) -> Iterator[Finding]:
    if at.node.operator in ("AveragePool", "MaxPool"):
        dimensions = len(at.node.attributes.get("kernel_shape", (0, 0)))
        if dimensions not in (2, 3):
            yield at.find(
                "fails", "pooling", f"{at.node.operator} over {dimensions} dimensions", "pool over 2 or 3 dimensions"
            )


def deform_conv(at: Place) -> Iterator[Finding]:
    if at.node.operator == "DeformConv":
        pads = at.node.attributes.get("pads", ())
        half = len(pads) // 2
        if pads[:half] != pads[half:] or half > 2:
            yield at.find(
                "fails", "deform-conv", f"DeformConv with pads={list(pads)}", "pad alike on both sides, in 1-D or 2-D"
            )


def _is_used(graph: Graph, name: str) -> bool:
    return name in graph.consumers or name in graph.outputs


RULES: tuple[Rule, ...] = (
    grid_sample, random_nodes, dropout, half_norms, resize, constant_inputs, attributes, outputs, zero_points,
    control_flow, pooling, deform_conv,
)  # fmt: skip
