"""What was built, held against what was asked: the engine inspector's word on every layer.

Asked for one precision, silently got another, is a field complaint in both directions (roboflow/rf-detr#1453,
NVIDIA/TensorRT#4492); so the plan is opened again and read, and a difference is an error.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ganexport.tensorrt.engine_builder import BuiltEngine
from ganruntime.errors import EngineError
from ganruntime.sessions.cuda import use_gpu
from ganruntime.sessions.tensorrt import check_tensors
from ganruntime.sessions.tensorrt_library import captured_messages, shared_logger
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
_TEXT_FIELDS = re.compile(r'"(Name|Format/Datatype|Type|TacticName)"\s*:\s*"([^"]*)"')


@dataclass(frozen=True)
class Layer:
    """One layer of an engine: its name, the precisions that the inspector names in it, and its kernel."""

    name: str
    precisions: frozenset[str]
    kernel: str


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


def layer_from_text(text: str) -> Layer:
    """Reads the inspector's JSON of one layer, or its bare name, which is all it has of some."""
    try:
        data = json.loads(text, strict=False)
        # Metadata may hold quotes that TensorRT does not escape, hence a text form of the same fields.
        pairs = _fields(data)
    except ValueError:
        pairs = _TEXT_FIELDS.findall(text)
    if not pairs:
        return Layer(text.strip().strip('"'), frozenset(), "")
    first = dict(reversed(pairs))
    kernel = first.get("TacticName", "")
    types = " ".join(value for key, value in pairs if key in ("Format/Datatype", "Type"))
    precisions = {name for name, words in _TYPES.items() if words.search(types)}
    if _TF32_KERNEL.search(kernel):
        precisions = (precisions - {"fp32"}) | {"tf32"}
    return Layer(first.get("Name", ""), frozenset(precisions), kernel)


def _fields(data: object) -> list[tuple[str, str]]:
    """(key, text) of the fields that tell a name, a type or a kernel, at any depth, outermost first."""
    if isinstance(data, list):
        return [pair for item in data for pair in _fields(item)]
    if not isinstance(data, dict):
        return []
    own = [
        (key, value)
        for key, value in data.items()
        if key in ("Name", "Format/Datatype", "Type", "TacticName") and isinstance(value, str)
    ]
    return own + [pair for value in data.values() for pair in _fields(value)]


def check_precisions(layers: tuple[Layer, ...], precision: str) -> None:
    """Raises `EngineError` where a layer computes in less than `precision` (`fp32` or `tf32`) allows.

    `tf32` allows TF32 and does not demand it: TensorRT takes it where it is faster.
    """
    allowed = {"fp32"} | ({"tf32"} if precision == "tf32" else set())
    wrong = [layer for layer in layers if layer.precisions - allowed]
    if wrong:
        shown = [f"{w.name}: {', '.join(sorted(w.precisions - allowed))} {w.kernel}".rstrip() for w in wrong[:5]]
        more = [f"and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        raise EngineError(
            f"TensorRT built {len(wrong)} of {len(layers)} layers in another precision than {precision}",
            got="\n            ".join(shown + more),
            expected=", ".join(sorted(allowed)),
            remedy="this engine is not kept; ask for --precision tf32 if that precision will do"
            if precision == "fp32" and all(w.precisions <= {"fp32", "tf32"} for w in wrong)
            else "this engine is not kept",
        )


def readback_from_engine(built: BuiltEngine, spec: GeneratorSpec) -> ReadBack:
    """Opens a plan that was built here a moment ago and reads it back.

    Raises:
        EngineError: it does not load, or differs from what was asked in its tensors, profiles or precisions.
    """
    import tensorrt as trt

    name = "just built"
    use_gpu(built.gpu.index)
    with captured_messages() as messages:
        runtime = trt.Runtime(shared_logger())
        engine = runtime.deserialize_cuda_engine(built.plan)
        if engine is None:
            raise EngineError("TensorRT does not load the engine that it just built", got="; ".join(messages.errors))
        check_tensors(engine, spec, name)
        _check_profiles(engine, built, spec)
        inspector = engine.create_engine_inspector()
        texts = [inspector.get_layer_information(i, trt.LayerInformationFormat.JSON) for i in range(engine.num_layers)]
        device_memory_bytes = int(engine.device_memory_size_v2)
    layers = tuple(layer_from_text(text) for text in texts)
    check_precisions(layers, built.options.precision)
    return ReadBack(layers, device_memory_bytes)


def _check_profiles(engine: trt.ICudaEngine, built: BuiltEngine, spec: GeneratorSpec) -> None:
    if engine.num_optimization_profiles != len(built.profiles):
        raise EngineError(
            "the engine has another number of profiles than was asked",
            got=engine.num_optimization_profiles,
            expected=len(built.profiles),
        )
    for index, profile in enumerate(built.profiles):
        for tensor in spec.inputs:
            found = [tuple(shape) for shape in engine.get_tensor_profile_shape(tensor.name, index)]
            if found != list(profile.shapes(tensor)):
                raise EngineError(
                    f"the engine's profile {index} has another range for {tensor.name!r}",
                    got=found,
                    expected=list(profile.shapes(tensor)),
                )
