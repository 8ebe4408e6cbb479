"""The enums and plain objects of the double of TensorRT, those that need no machine."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import onnx


class PybindEnum(enum.Enum):
    """pybind11's enums are no ints, and turn into one."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)


class BuilderFlag(PybindEnum):
    REFIT = 4
    TF32 = 7
    VERSION_COMPATIBLE = 13
    STRIP_PLAN = 19


class HardwareCompatibilityLevel(PybindEnum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class NetworkDefinitionCreationFlag(PybindEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(PybindEnum):
    WORKSPACE = 0


class ProfilingVerbosity(PybindEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 1


class LayerInformationFormat(PybindEnum):
    ONELINE = 0
    JSON = 1


class ExecutionContextAllocationStrategy(PybindEnum):
    STATIC = 0
    USER_MANAGED = 2


class TensorIOMode(PybindEnum):
    INPUT = 1
    OUTPUT = 2


class ErrorCode(PybindEnum):
    INVALID_GRAPH = 5
    REFIT_FAILED = 14
    UNSUPPORTED_NODE = 8


class DataType(PybindEnum):
    FLOAT = 0
    HALF = 1
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


_DATA_TYPES = {
    "FLOAT": DataType.FLOAT,
    "FLOAT16": DataType.HALF,
    "INT32": DataType.INT32,
    "BOOL": DataType.BOOL,
    "UINT8": DataType.UINT8,
    "INT64": DataType.INT64,
}
NUMPY = {
    DataType.FLOAT: "float32",
    DataType.HALF: "float16",
    DataType.INT32: "int32",
    DataType.BOOL: "bool",
    DataType.UINT8: "uint8",
    DataType.INT64: "int64",
}


class ILogger:
    class Severity(PybindEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        self._is_initialised = True  # the real base must be, too, or every use of it raises

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self._is_initialised = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError


class IHostMemory(bytes):
    """bytes, because a Python class gives no buffer of its own before 3.12."""

    @property
    def nbytes(self) -> int:
        return len(self)


class Dims(Sequence[int]):
    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(int(d) for d in shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, index: Any) -> Any:
        return self._shape[index]


@dataclass
class ParserError:
    _node: int
    _name: str
    _operator: str
    _code: ErrorCode
    _desc: str

    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator

    def code(self) -> ErrorCode:
        return self._code

    def desc(self) -> str:
        return self._desc


@dataclass
class ITensor:
    name: str
    dtype: DataType
    shape: Dims


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, list[Dims]] = {}

    def set_shape(self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int]) -> None:
        self._shapes[input] = [Dims(min), Dims(opt), Dims(max)]


class ITimingCache:
    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(json.dumps(self._content).encode())

    def combine(self, input_cache: ITimingCache, ignore_mismatch: bool) -> bool:
        ours, theirs = ({**c._content, "timings": None} for c in (self, input_cache))
        if not ignore_mismatch and ours != theirs:
            return False
        self._content["timings"] = input_cache._content["timings"] | self._content["timings"]
        return True


class INetworkDefinition:
    def __init__(self, strongly_typed: bool) -> None:
        self._strongly_typed = strongly_typed
        self._model = b""
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


def tensors_of(values: Any) -> Iterator[ITensor]:
    for value in values:
        kind = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        yield ITensor(value.name, _DATA_TYPES[onnx.TensorProto.DataType.Name(kind.elem_type)], Dims(shape))
