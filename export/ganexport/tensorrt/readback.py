"""What was built, held against what was asked: the engine inspector's word on every layer.

Asked for one precision, silently got another, is a field complaint in both directions (roboflow/rf-detr#1453,
NVIDIA/TensorRT#4492); so the plan is opened again and read, and a difference is an error.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ganexport.tensorrt.asked import Asked, asked_of_graph
from ganexport.tensorrt.engine_builder import HARDWARE_LEVELS, BuiltEngine
from ganruntime.errors import EngineError
from ganruntime.sessions.cuda import use_gpu
from ganruntime.sessions.tensorrt_engine import check_tensors
from ganruntime.sessions.tensorrt_library import captured_messages, runtime_for
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import tensorrt as trt

# The inspector's words for the type of a tensor or of weights: long ("Row major linear FP16 format") or short ("Half").
_TYPES = {
    "fp32": re.compile(r"\bfp32\b|\bfloat\b", re.I),
    "fp16": re.compile(r"\bfp16\b|\bhalf\b", re.I),
    "bf16": re.compile(r"\bbf16\b|\bbfloat16\b", re.I),
    "int8": re.compile(r"\bint8\b", re.I),
    "fp8": re.compile(r"\bfp8\w*\b", re.I),
}
# Kernels that round their factors say so: sm80_xmma_…_tf32f32_…, …_tf32gemm_…, and CUTLASS's s1688, whose shape of
# tensor core instruction takes TF32 where nothing else (f16, bf16) is named.
_TF32_KERNEL = re.compile(r"tf32|s1688(?!.*f16)", re.I)

# What the inspector names a layer's tensors' types by: one field up to TensorRT 10, two from 11 on.
_TYPE_KEYS = ("Format/Datatype", "Format", "DataType", "Datatype", "Type")
_TEXT_FIELDS = re.compile(
    r'"(Name|LayerType|Metadata|TacticName|' + "|".join(map(re.escape, _TYPE_KEYS)) + r')"\s*:\s*"([^"]*)"'
)
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
# Layers that move or convert what other layers compute: of them any precision of the graph may come.
_MOVING = ("reformat", "noop", "shuffle", "signal", "wait", "cast", "constant", "identity")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine.

    Attributes:
        precisions: those that the inspector names in it; empty where it tells nothing.
        nodes: the nodes of the graph that it is made of, as far as the inspector tells.
        asked: the precisions that the graph has at these nodes.
        products: those in which nodes that multiply must do so.
    """

    name: str
    precisions: frozenset[str]
    kernel: str
    kind: str = ""
    nodes: tuple[str, ...] = ()
    asked: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()

    def differs(self, tf32: bool) -> frozenset[str]:
        """Precisions that it got and nobody asked, or was asked to multiply in and did not get.

        Args:
            tf32: whether TF32 is allowed where FP32 is asked. It is not demanded: TensorRT takes it where it is faster.
        """
        if not self.precisions:
            return frozenset()
        extra = self.precisions - self.asked - ({"tf32"} if tf32 and "fp32" in self.asked else set())
        got = self.precisions | ({"fp32"} if "tf32" in self.precisions else set())
        return extra | (self.products - got)

    def to_json(self) -> dict[str, Any]:
        return {k: sorted(v) if isinstance(v, frozenset) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Layer:
        return cls(
            name=data["name"],
            precisions=frozenset(data["precisions"]),
            kernel=data["kernel"],
            kind=data["kind"],
            nodes=tuple(data["nodes"]),
            asked=frozenset(data["asked"]),
            products=frozenset(data["products"]),
        )


@dataclass(frozen=True)
class ReadBack:
    """What the inspector says of an engine. `unsaid` layers name no type and no kernel (shape arithmetic, mostly)."""

    layers: tuple[Layer, ...]
    device_memory_bytes: int

    def counts(self) -> dict[str, int]:
        """{precision: layers that use it}, `unsaid` for those of which the inspector tells nothing."""
        counts: Counter[str] = Counter()
        for layer in self.layers:
            counts.update(layer.precisions or {"unsaid"})
        return dict(sorted(counts.items()))

    def to_json(self) -> dict[str, Any]:
        return {"device_memory_bytes": self.device_memory_bytes, "layers": [layer.to_json() for layer in self.layers]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ReadBack:
        return cls(tuple(Layer.from_json(layer) for layer in data["layers"]), int(data["device_memory_bytes"]))


def layer_from_text(text: str, asked: Asked | None = None) -> Layer:
    """Reads the inspector's JSON of one layer, or its bare name, which is all it has of some.

    Args:
        asked: what the graph asks of its nodes; without it nothing is held against anything.
    """
    try:
        data = json.loads(text, strict=False)
        # Metadata may hold quotes that TensorRT does not escape, hence a text form of the same fields.
        pairs = _fields(data)
    except ValueError:
        pairs = _TEXT_FIELDS.findall(text)
    first = dict(reversed(pairs)) if pairs else {"Name": text.strip().strip('"')}
    name, kernel, kind = first.get("Name", ""), first.get("TacticName", ""), first.get("LayerType", "")
    types = " ".join(value for key, value in pairs if key in _TYPE_KEYS)
    precisions = {precision for precision, words in _TYPES.items() if words.search(types)}
    if _TF32_KERNEL.search(kernel):
        precisions = (precisions - {"fp32"}) | {"tf32"}
    layer = Layer(name, frozenset(precisions), kernel, kind)
    return layer if asked is None else _held_against(layer, first.get("Metadata", ""), asked)


def _held_against(layer: Layer, metadata: str, asked: Asked) -> Layer:
    nodes = tuple(dict.fromkeys(_ONNX_LAYER.findall(metadata))) or tuple(layer.name.split(" + "))
    nodes = nodes if all(name in asked.nodes for name in nodes) else ()
    # A copy into or out of a layer is named after it, and converts between its types and its neighbours'.
    moves = any(word in f"{layer.kind} {'' if nodes else layer.name}".lower() for word in _MOVING)
    products = frozenset(asked.products[name] for name in nodes if asked.products.get(name))
    return replace(
        layer,
        nodes=nodes,
        asked=asked.anywhere if moves else asked.of(nodes),
        products=frozenset() if moves else products,
    )


def _fields(data: object) -> list[tuple[str, str]]:
    """(key, text) of the fields that tell a name, a type or a kernel, at any depth, outermost first."""
    if isinstance(data, list):
        return [pair for item in data for pair in _fields(item)]
    if not isinstance(data, dict):
        return []
    own = [
        (key, value)
        for key, value in data.items()
        if key in ("Name", "LayerType", "Metadata", "TacticName", *_TYPE_KEYS) and isinstance(value, str)
    ]
    return own + [pair for value in data.values() for pair in _fields(value)]


def check_precisions(layers: tuple[Layer, ...], precision: str, command: str = "ganexport to-trt NAME.gan") -> None:
    """Raises `EngineError` where a layer got another precision than the graph asks of its nodes, or where the
    inspector tells of no layer what it got.

    Args:
        command: what builds the engine again.
    """
    if layers and not any(layer.precisions for layer in layers):
        raise EngineError(
            "TensorRT's inspector does not tell which precision the layers got, so the engine is not kept",
            got=f"{len(layers)} layers, as {layers[0].name!r}",
            remedy=f"do it again with: {command} --json",
        )
    wrong = [(layer, layer.differs(precision == "tf32")) for layer in layers]
    wrong = [(layer, differs) for layer, differs in wrong if differs]
    if wrong:
        is_tf32 = precision == "fp32" and all(differs == {"tf32"} for _, differs in wrong)
        tf32 = "ask for --precision tf32 if that precision will do; " if is_tf32 else ""
        shown = [
            f"{w.name}: {', '.join(sorted(w.precisions))}, asked {', '.join(sorted(w.products or w.asked))} {w.kernel}"
            for w, _ in wrong[:5]
        ]
        more = [f"and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        raise EngineError(
            f"TensorRT built {len(wrong)} of {len(layers)} layers in another precision than {precision}",
            got="\n            ".join(s.rstrip() for s in shown + more),
            expected="what the graph asks",
            remedy=f"this engine is not kept; {tf32}every layer is told by: {command} --json",
        )


def readback_from_engine(built: BuiltEngine, spec: GeneratorSpec, model: bytes) -> ReadBack:
    """Opens a plan that was built here a moment ago and reads it back; `check_precisions` judges what it got.

    Args:
        model: the graph that it was built from.

    Raises:
        EngineError: it does not load, or differs from what was asked in its tensors, profiles or compatibilities.
    """
    import tensorrt as trt

    name = "just built"
    asked = asked_of_graph(model)
    use_gpu(built.gpu.index)
    with captured_messages() as messages:
        runtime = runtime_for(built.options.version_compatible)
        engine = runtime.deserialize_cuda_engine(built.plan)
        if engine is None:
            raise EngineError("TensorRT does not load the engine that it just built", got="; ".join(messages.errors))
        check_tensors(engine, spec, name)
        _check_profiles(engine, built, spec)
        _check_compatibilities(engine, built)
        inspector = engine.create_engine_inspector()
        texts = [inspector.get_layer_information(i, trt.LayerInformationFormat.JSON) for i in range(engine.num_layers)]
        device_memory_bytes = int(engine.device_memory_size_v2)
    return ReadBack(tuple(layer_from_text(text, asked) for text in texts), device_memory_bytes)


def _check_compatibilities(engine: trt.ICudaEngine, built: BuiltEngine) -> None:
    level = engine.hardware_compatibility_level.name
    for what, found, wanted in (
        ("hardware compatibility", level, HARDWARE_LEVELS[built.options.hardware]),
        ("refit", engine.refittable, built.options.refittable),
    ):
        if found != wanted:
            raise EngineError(f"the engine has another {what} than was asked", got=found, expected=wanted)


def _check_profiles(engine: trt.ICudaEngine, built: BuiltEngine, spec: GeneratorSpec) -> None:
    if engine.num_optimization_profiles != len(built.profiles):
        raise EngineError(
            "the engine has another number of profiles than was asked",
            got=engine.num_optimization_profiles,
            expected=len(built.profiles),
        )
    for index, profile in enumerate(built.profiles):
        for name, wanted in profile.shapes(spec).items():
            found = [tuple(shape) for shape in engine.get_tensor_profile_shape(name, index)]
            if found != list(wanted):
                raise EngineError(
                    f"the engine's profile {index} has another range for {name!r}", got=found, expected=list(wanted)
                )
