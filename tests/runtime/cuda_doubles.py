"""Doubles of the NVIDIA driver and of an ONNX Runtime with CUDA, for machines without a GPU.

The device's memory is the host's, and kernels are those of the real ONNX Runtime on the CPU. What a GPU would make of a
mistake is an error here: a graph that is replayed after its buffers are gone, a binding that changes under a captured
graph, a call from another thread, memory that is freed twice or never. Nothing that ran on it counts as a verification.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import onnxruntime as real

SUCCESS, OUT_OF_MEMORY, INVALID_VALUE = 0, 2, 1


class DriverDouble:
    """The functions of libcuda that `ganruntime.sessions.cuda_memory` and `.devices` call. `live`: pinned blocks."""

    def __init__(self, gpus: int = 2) -> None:
        self.gpus = gpus
        self.live: dict[int, Any] = {}
        self.contexts = 0
        self.copied: list[tuple[str, int]] = []
        self.pinned_left = 1 << 30
        self._current = threading.local()

    def cuInit(self, flags: int) -> int:
        return SUCCESS

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.gpus
        return SUCCESS

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return SUCCESS if index < self.gpus else 101

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        name.value = b"Double GPU"
        return SUCCESS

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        self.contexts += 1
        context._obj.value = 0x1000
        return SUCCESS

    def cuDevicePrimaryCtxRelease_v2(self, device: Any) -> int:
        self.contexts -= 1
        return SUCCESS

    def cuCtxSetCurrent(self, context: Any) -> int:
        self._current.value = context.value
        return SUCCESS

    def cuMemHostAlloc(self, address: Any, size: Any, flags: Any) -> int:
        assert self._current.value == 0x1000
        if size.value > self.pinned_left:
            return OUT_OF_MEMORY
        self.pinned_left -= size.value
        block = np.full(size.value, 0xA5, np.uint8)
        self.live[block.ctypes.data] = block
        address._obj.value = block.ctypes.data
        return SUCCESS

    def cuMemFreeHost(self, address: Any) -> int:
        assert self._current.value == 0x1000
        return INVALID_VALUE if self.live.pop(address.value, None) is None else SUCCESS

    def cuMemcpyHtoD_v2(self, device: Any, host: Any, size: Any) -> int:
        return self._copy("to device", device.value, host.value, host.value, size.value)

    def cuMemcpyDtoH_v2(self, host: Any, device: Any, size: Any) -> int:
        return self._copy("to host", host.value, device.value, host.value, size.value)

    def cuGetErrorName(self, code: int, name: Any) -> int:
        name._obj.value = {OUT_OF_MEMORY: b"CUDA_ERROR_OUT_OF_MEMORY"}.get(code, b"CUDA_ERROR_INVALID_VALUE")
        return SUCCESS

    def _copy(self, way: str, target: int, source: int, pinned: int, size: int) -> int:
        assert self._current.value == 0x1000
        if pinned not in self.live or size > len(self.live[pinned]):
            return INVALID_VALUE  # a copy of memory that is not pinned is what this is meant to avoid
        ctypes.memmove(target, source, size)
        self.copied.append((way, size))
        return SUCCESS


class OrtValue:
    """Device memory. `alive`: every value that was made, as long as somebody holds it."""

    alive: ClassVar[weakref.WeakSet[OrtValue]] = weakref.WeakSet()

    def __init__(self, array: Any) -> None:
        self.array = array
        OrtValue.alive.add(self)

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: Any, element_type: Any, device: str, index: int) -> OrtValue:
        assert device == "cuda"
        return cls(np.zeros(shape, element_type))

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)


class Binding:
    """Holds weakly what is bound: whoever captures must keep it."""

    def __init__(self) -> None:
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.binds = 0

    def bind_ortvalue_input(self, name: str, value: OrtValue) -> None:
        self.inputs[name] = weakref.ref(value)
        self.binds += 1

    def bind_ortvalue_output(self, name: str, value: OrtValue) -> None:
        self.outputs[name] = weakref.ref(value)
        self.binds += 1


class InferenceSession:
    def __init__(self, ort: OrtDouble, graph: bytes, options: Any, providers: list[tuple[str, dict[str, str]]]) -> None:
        self.ort, self.options = ort, options
        self.names = [name for name, _ in providers]
        self.provider_options = providers[0][1]
        own = self.provider_options
        self.captures = "1" in (own.get("enable_cuda_graph"), own.get("trt_cuda_graph_enable"))
        self.graphs: dict[str, tuple[Any, Any]] = {}
        self.bindings: list[Binding] = []
        self.runs: list[str] = []
        self.threads = {threading.get_ident()}
        self.inner = real.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def get_providers(self) -> list[str]:
        return self.names

    def get_inputs(self) -> Any:
        return self.inner.get_inputs()

    def get_outputs(self) -> Any:
        return self.inner.get_outputs()

    def io_binding(self) -> Binding:
        self.threads.add(threading.get_ident())
        self.bindings.append(Binding())
        return self.bindings[-1]

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        self.threads.add(threading.get_ident())
        number = options.entries.get("gpu_graph_id", "0")
        if self.ort.fails:
            raise RuntimeError("CUDA failure 700: an illegal memory access\nand a stack")
        bound = dict(binding.inputs), dict(binding.outputs)
        if self.captures and number != "-1":
            # A replay has the addresses of the capture, whatever is bound by now.
            bound = self.graphs.setdefault(number, bound)
        inputs, outputs = ({name: ref() for name, ref in side.items()} for side in bound)
        assert all(value is not None for value in (*inputs.values(), *outputs.values())), "a buffer is gone"
        self.runs.append(number)
        found = self.inner.run(list(outputs), {name: value.array for name, value in inputs.items()})
        for value, array in zip(outputs.values(), found, strict=True):
            value.array[...] = array


class OrtDouble:
    """The module `onnxruntime`, built for CUDA and TensorRT. refuses: what opening says to (option, value)."""

    __version__ = "9.9"
    OrtValue = OrtValue

    def __init__(self) -> None:
        self.sessions: list[InferenceSession] = []
        self.asked: list[list[tuple[str, dict[str, str]]]] = []
        self.refuses: dict[tuple[str, str], str] = {}
        self.fails = False
        self.preloaded = 0
        self.severity = 2  # of the process: warnings

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        self.preloaded += 1
        print("Failed to load libcudnn.so.9")

    def SessionOptions(self) -> Any:
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_session_config_entry=entries.__setitem__)

    def RunOptions(self) -> Any:
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_run_config_entry=entries.__setitem__)

    def InferenceSession(self, graph: bytes, options: Any, providers: Any) -> InferenceSession:
        self.asked.append(providers)
        for (name, value), words in self.refuses.items():
            if providers[0][1].get(name) == value:
                raise RuntimeError(words)
        assert options.entries == {"session.disable_cpu_ep_fallback": "1"}
        self.sessions.append(InferenceSession(self, graph, options, providers))
        return self.sessions[-1]
