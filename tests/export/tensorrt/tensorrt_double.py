"""A behavioural double of `tensorrt`: exactly the calls that we make, on any machine.

Its engine is the ONNX graph run by ONNX Runtime on host memory that stands for the GPU's. It is strict where the real
one is: a profile's range holds, a plan knows its version and its GPU, callbacks come from another thread. Its version
carries the local label `+double`, so that nothing it built or ran is ever taken for TensorRT's. The conformance test
holds its signatures against the real bindings.
"""

from __future__ import annotations

import hashlib
import json
import threading
import types
from typing import Any

import numpy as np
import onnx
import onnxruntime
from cuda_double_device import Access, Work
from imaginary_machine import Machine
from tensorrt_double_types import (
    NUMPY,
    BuilderFlag,
    DataType,
    Dims,
    ErrorCode,
    ExecutionContextAllocationStrategy,
    HardwareCompatibilityLevel,
    IHostMemory,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    IProgressMonitor,
    ITensor,
    ITimingCache,
    LayerInformationFormat,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    ParserError,
    ProfilingVerbosity,
    TensorIOMode,
    tensors_of,
)
from tensorrt_double_weights import multiplies_integers, round_weights_to_tf32, types_of, weights_of, zero_weights

from ganexport.precision.reference import emulated

PLAN_MAGIC = b"a plan of the double\n"


def tensorrt(machine: Machine) -> types.ModuleType:
    module = types.ModuleType("tensorrt")
    module.__version__ = machine.version

    def identity() -> dict[str, Any]:
        gpu = machine.gpus[0]
        return {"version": machine.version, "capability": [gpu.major, gpu.minor]}

    class Logged:
        """What holds a logger. It is called as C++ does: from any thread, and it must not raise."""

        def __init__(self, logger: ILogger) -> None:
            if not getattr(logger, "_is_initialised", False):
                raise TypeError("ILogger.__init__() must be called when overriding __init__")
            self._logger = logger

        def _error(self, text: str) -> None:
            self._logger.log(ILogger.Severity.ERROR, text)

    class OnnxParser(Logged):
        def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
            super().__init__(logger)
            self._network = network
            self._errors: list[ParserError] = []

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def parse(self, model: bytes, path: str | None = None) -> bool:
            try:
                graph = onnx.load_from_string(model).graph
            except Exception:
                self._errors.append(ParserError(-1, "", "", ErrorCode.INVALID_GRAPH, "Failed to parse the ONNX model"))
                return False
            for index, node in enumerate(graph.node):
                if node.op_type in machine.unsupported:
                    said = machine.unsupported[node.op_type]
                    code = ErrorCode.UNSUPPORTED_NODE
                    self._errors.append(ParserError(index, node.name, node.op_type, code, said))
            self._network._model = model
            self._network._inputs = list(tensors_of(graph.input))
            self._network._outputs = list(tensors_of(graph.output))
            return not self._errors

    class IBuilderConfig:
        def __init__(self) -> None:
            self._flags = {BuilderFlag.TF32}
            self._pools: dict[MemoryPoolType, int] = {}
            self._profiles: list[IOptimizationProfile] = []
            self._timings: ITimingCache | None = None
            self.progress_monitor: IProgressMonitor | None = None
            self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
            self.builder_optimization_level = 3
            self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE

        def set_flag(self, flag: BuilderFlag) -> None:
            self._flags.add(flag)

        def clear_flag(self, flag: BuilderFlag) -> None:
            self._flags.discard(flag)

        def get_flag(self, flag: BuilderFlag) -> bool:
            return flag in self._flags

        def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
            self._pools[pool] = pool_size

        def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
            self._profiles.append(profile)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
            if not serialized_timing_cache:
                return ITimingCache(identity() | {"timings": {}})
            try:
                return ITimingCache(json.loads(bytes(serialized_timing_cache)))
            except ValueError:
                return None

        def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
            if not ignore_mismatch and {k: cache._content.get(k) for k in identity()} != identity():
                return False
            self._timings = cache
            return True

    class Builder(Logged):
        def __init__(self, logger: ILogger) -> None:
            if not machine.builder_starts:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            super().__init__(logger)

        def create_network(self, flags: int = 0) -> INetworkDefinition:
            strongly_typed = bool(flags & 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            return INetworkDefinition(strongly_typed or machine.version.startswith("11."))

        def create_builder_config(self) -> IBuilderConfig:
            return IBuilderConfig()

        def create_optimization_profile(self) -> IOptimizationProfile:
            return IOptimizationProfile()

        def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
            results: list[IHostMemory | None] = []
            # The real builder calls back from threads of its own.
            worker = threading.Thread(target=lambda: results.append(self._build(network, config)))
            worker.start()
            worker.join()
            return results[0] if results else None

        def _build(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
            graph = onnx.load_from_string(network._model)
            if not network._strongly_typed:
                self._error("the network is not strongly typed")
                return None
            for profile in config._profiles:
                if set(profile._shapes) != {t.name for t in network._inputs}:
                    self._error("Network has dynamic or shape inputs, but no optimization profile has been defined.")
                    return None
            timings = config._timings._content["timings"] if config._timings else {}
            timed = 0
            monitor = config.progress_monitor
            if monitor is not None:
                monitor.phase_start("Building Engine", None, 2)
                monitor.step_complete("Building Engine", 0)
                monitor.phase_start("Timing", "Building Engine", len(graph.graph.node))
            for step, node in enumerate(graph.graph.node):
                if machine.at_step is not None:
                    machine.at_step(step)
                key = hashlib.sha256(node.SerializeToString()).hexdigest()
                timed += key not in timings
                timings[key] = 1.0
                if monitor is not None and not monitor.step_complete("Timing", step):
                    return None
            if monitor is not None:
                monitor.phase_finish("Timing")
                monitor.step_complete("Building Engine", 1)
                monitor.phase_finish("Building Engine")
            if machine.build_errors:
                for text in machine.build_errors:
                    self._error(text)
                return None
            tf32 = BuilderFlag.TF32 in config._flags or machine.forces_tf32
            if tf32:
                round_weights_to_tf32(graph)
            profiles = [{k: [list(d) for d in v] for k, v in p._shapes.items()} for p in config._profiles]
            if machine.drops_dynamic_profile:
                profiles.pop()
            level = config.hardware_compatibility_level
            if machine.ignores_hardware_level:
                level = HardwareCompatibilityLevel.NONE
            refittable, stripped = BuilderFlag.REFIT in config._flags, BuilderFlag.STRIP_PLAN in config._flags
            if refittable:
                zero_weights(graph, machine.refit_drops)
            if stripped:
                zero_weights(graph, None)
            header = identity() | {
                "hardware": level.name,
                "version_compatible": BuilderFlag.VERSION_COMPATIBLE in config._flags,
                "refittable": refittable,
                "weights_missing": stripped,
                "tf32": tf32,
                "half": machine.forces_half,
                "detailed": config.profiling_verbosity is ProfilingVerbosity.DETAILED,
                "profiles": profiles,
            }
            machine.builds.append(
                header
                | {
                    "timed": timed,
                    "level": config.builder_optimization_level,
                    "workspace": config._pools.get(MemoryPoolType.WORKSPACE),
                    "strongly_typed": network._strongly_typed,
                }
            )
            return IHostMemory(_plan(header, graph))

    class EngineInspector:
        def __init__(self, engine: ICudaEngine) -> None:
            self._engine = engine

        def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str:
            graph = self._engine._model.graph
            node = graph.node[layer_index]
            if not self._engine._header["detailed"] or format is not LayerInformationFormat.JSON:
                return f'"{node.name}"'
            kind = "Half" if self._engine._header["half"] else "Float"
            factors = "tf32f32_tf32f32_f32" if self._engine._header["tf32"] else "f32f32_f32f32_f32"
            types = self._engine._types
            if not machine.forces_half:
                kind = {"float16": "Half", "bfloat16": "BF16", "int64": "Int64"}.get(
                    types.get(node.output[0], ""), kind
                )
            if machine.says_no_types:
                kind, factors = "N/A due to dynamic shapes", "unknown"
            heavy = node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
            if heavy and multiplies_integers(graph, node) and not machine.loses_int8:
                kind, factors = "Int8", "i8i8_i8i32_f32"  # as TensorRT fuses the Q/DQ nodes around it
            if kind == "Half":
                factors = "f16f16_f16f16_f16"
            layer = {
                "Name": node.name + ("" if heavy else " + something fused"),
                "LayerType": node.op_type,
                "Inputs": [{"Name": n, "Format/Datatype": "N/A due to dynamic shapes"} for n in node.input],
                "Outputs": [{"Name": n, **_typed(kind)} for n in node.output],
                "Metadata": f"[ONNX Layer: {node.name}]",
                "TacticName": f"sm80_xmma_fprop_implicit_gemm_{factors}_nhwckrsc" if heavy else "",
            }
            return json.dumps(layer | ({"Weights": {"Type": kind, "Count": 1}} if heavy else {}))

    class ICudaEngine(Logged):
        def __init__(self, header: dict[str, Any], model: bytes, logger: ILogger) -> None:
            super().__init__(logger)
            self._header = header
            self._model = onnx.load_from_string(model)
            self._inputs = {t.name: t for t in tensors_of(self._model.graph.input)}
            self._outputs = {t.name: t for t in tensors_of(self._model.graph.output)}
            self._types = types_of(self._model)
            self._sizes: dict[Any, dict[str, int]] = {}
            self._take_weights()
            machine.engines.add(self)

        def _size_at(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
            """{tensor: its bytes}, for inputs of these shapes: TensorRT knows them before it runs."""
            key = tuple(sorted(shapes.items()))
            if key not in self._sizes:
                inputs = {n: np.zeros(shapes[n], NUMPY[t.dtype]) for n, t in self._inputs.items()}
                outputs = zip(self._outputs, self._session.run(list(self._outputs), inputs), strict=True)
                self._sizes[key] = {name: array.nbytes for name, array in (*inputs.items(), *outputs)}
            return self._sizes[key]

        def _take_weights(self) -> None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            model = self._model.SerializeToString()
            if "bfloat16" in self._types.values():
                model = emulated(model)  # ONNX Runtime has no kernels for it on the CPU
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        @property
        def refittable(self) -> bool:
            return bool(self._header["refittable"])

        @property
        def hardware_compatibility_level(self) -> HardwareCompatibilityLevel:
            return HardwareCompatibilityLevel[self._header["hardware"]]

        def serialize(self) -> IHostMemory:
            return IHostMemory(_plan(self._header, self._model))

        @property
        def num_io_tensors(self) -> int:
            return len(self._inputs) + len(self._outputs)

        @property
        def num_optimization_profiles(self) -> int:
            return len(self._header["profiles"])

        @property
        def num_layers(self) -> int:
            return len(self._model.graph.node)

        @property
        def device_memory_size_v2(self) -> int:
            return 1 << 12

        def get_tensor_name(self, index: int) -> str:
            return [*self._inputs, *self._outputs][index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return (self._inputs | self._outputs)[name].dtype

        def get_tensor_shape(self, name: str) -> Dims:
            return (self._inputs | self._outputs)[name].shape

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
            return [Dims(d) for d in self._header["profiles"][profile_index][name]]

        def create_execution_context(
            self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
        ) -> IExecutionContext | None:
            if not machine.context_fits:
                self._error("Error Code 1: Cuda Runtime (out of memory)")
                return None
            return IExecutionContext(self, strategy)

        def create_engine_inspector(self) -> EngineInspector:
            return EngineInspector(self)

    class IExecutionContext:
        def __init__(self, engine: ICudaEngine, strategy: ExecutionContextAllocationStrategy) -> None:
            self._engine = engine
            self._strategy = strategy
            self._serial = machine.device.new_handle()
            self._profile = -1
            self._shapes: dict[str, tuple[int, ...]] = {}
            self._addresses: dict[str, int] = {}
            self._scratch: tuple[int, int] | None = None
            self._met: object = None  # the state in which it has run, after which it may be captured

        def _state(self) -> tuple[object, ...]:
            shapes, addresses = tuple(sorted(self._shapes.items())), tuple(sorted(self._addresses.items()))
            return self._profile, shapes, addresses, self._scratch

        def set_device_memory(self, memory: int, size: int) -> None:
            assert self._strategy is ExecutionContextAllocationStrategy.USER_MANAGED
            assert size >= self._engine.device_memory_size_v2
            assert memory % 256 == 0
            self._scratch = memory, size

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            known = 0 <= profile_index < self._engine.num_optimization_profiles
            if not known or stream_handle not in machine.device.streams:
                return False
            with machine.device.lock:
                if machine.device.streams[stream_handle].captured is not None:
                    machine.device.streams[stream_handle].broken = True
                    return False
                machine.device.put(stream_handle, Work("switch profile", [Access(self._serial, 0, 1, True)]))
            self._profile = profile_index
            self._shapes.clear()
            machine.profile_switches.append(profile_index)
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            if self._profile < 0:
                self._engine._error("no optimization profile is set: other contexts took the first one")
                return False
            low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
            inside = len(shape) == len(low) and all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True))
            if not inside:
                self._engine._error(f"{name}: {shape} does not satisfy any optimization profile in [{low}, {high}]")
                return False
            self._shapes[name] = tuple(shape)
            return True

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            with machine.device.lock:
                return self._execute(stream_handle)

        def _execute(self, stream_handle: int) -> bool:
            engine, stream = self._engine, machine.device.streams[stream_handle]
            if machine.execute_fails or set(self._shapes) != set(engine._inputs):
                engine._error("enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
                return False
            if self._scratch is None and self._strategy is ExecutionContextAllocationStrategy.USER_MANAGED:
                engine._error("enqueueV3: Error Code 3: API Usage Error (device memory is not set)")
                return False
            state = self._state()
            if stream.captured is not None and (not machine.captures or state != self._met):
                stream.broken = True
                said = "operation not permitted when stream is capturing"
                engine._error(f"enqueueV3: Error Code 1: Cuda Runtime ({said})")
                return False
            machine.device.put(stream_handle, self._work(state))
            self._met = state
            return True

        def _work(self, state: tuple[object, ...]) -> Work:
            engine = self._engine
            shapes, addresses, scratch = dict(self._shapes), dict(self._addresses), self._scratch
            size = engine._size_at(shapes)
            memory = {name: machine.device.memory.get(address) for name, address in addresses.items()}
            space = None if scratch is None else machine.device.memory.get(scratch[0])

            def check() -> None:
                if self._state() != state:
                    machine.device.wrong("a graph is launched whose context was changed after it was captured")
                for name, address in addresses.items():
                    if memory[name] is None or machine.device.memory.get(address) is not memory[name]:
                        machine.device.wrong(f"the memory of {name!r} is not there, or no more")
                if scratch is not None and machine.device.memory.get(scratch[0]) is not space:
                    machine.device.wrong("the scratch memory is not there, or no more")

            accesses = [Access(self._serial, 0, 1, True)]
            if scratch is not None:
                accesses.append(Access(scratch[0], 0, scratch[1], True))
            for name in (*engine._inputs, *engine._outputs):
                bound = memory[name]
                if bound is not None and bound.nbytes < size[name]:
                    machine.device.wrong(f"the memory of {name!r} is too small")
                accesses.append(Access(addresses[name], 0, size[name], name in engine._outputs))
            return Work("execute", accesses, lambda: self._run(shapes, addresses, scratch), check)

        def _run(
            self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], scratch: tuple[int, int] | None
        ) -> None:
            exec(machine.run_code, {"shapes": shapes})
            engine, memory = self._engine, machine.device.memory
            feed = {}
            for name, tensor in engine._inputs.items():
                dtype = np.dtype(NUMPY[tensor.dtype])
                count = int(np.prod(shapes[name]))
                feed[name] = memory[addresses[name]][: count * dtype.itemsize].view(dtype).reshape(shapes[name])
            if scratch is not None:
                memory[scratch[0]].fill(len(feed))
            wrong = next(iter(shapes.values()))[0] == machine.wrong_at_batch or shapes in machine.wrong_at_shapes
            for name, value in zip(engine._outputs, engine._session.run(list(engine._outputs), feed), strict=True):
                result = np.ascontiguousarray(value * 0.9 if wrong else value)
                raw = result.view(np.uint8).reshape(-1)
                memory[addresses[name]][: raw.nbytes] = raw

    class Runtime(Logged):
        def __init__(self, logger: ILogger) -> None:
            if not machine.builder_starts:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            super().__init__(logger)
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
            machine.deserialised += 1
            data = bytes(serialized_engine)
            if not data.startswith(PLAN_MAGIC):
                self._error("Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match")
                return None
            line, _, model = data[len(PLAN_MAGIC) :].partition(b"\n")
            header = json.loads(line)
            gpu = machine.gpus[0]
            built, here = (
                tuple(int(n) for n in v.split("+")[0].split(".")) for v in (header["version"], machine.version)
            )
            if header["version_compatible"]:
                if not self.engine_host_code_allowed:
                    self._error("Plan has host code, and engineHostCodeAllowed is false")
                    return None
                fits = built <= here and here[0] - built[0] in (0, 1)
            else:
                fits = header["version"] == machine.version
            same_gpu = header["capability"] == [gpu.major, gpu.minor]
            if not fits or not (same_gpu or (header["hardware"] == "AMPERE_PLUS" and gpu.major >= 8)):
                self._error("The engine plan file is generated on an incompatible device or version")
                return None
            return ICudaEngine(header, model, self._logger)

    class Refitter(Logged):
        def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
            if not machine.refitter_starts:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            super().__init__(logger)
            self._engine = engine
            self._new: dict[str, Any] = {}

        def get_missing_weights(self) -> list[str]:
            weights = weights_of(self._engine._model)
            return [name for name in weights if name not in self._new or name in machine.refit_leaves]

        def refit_cuda_engine(self) -> bool:
            if self.get_missing_weights():
                return False
            model = self._engine._model
            for tensor in model.graph.initializer:
                if tensor.name in self._new and tensor.name not in machine.refit_drops:
                    tensor.CopyFrom(self._new[tensor.name])
            if self._engine._header["tf32"]:
                round_weights_to_tf32(model)
            self._engine._take_weights()
            return True

    class OnnxParserRefitter(Logged):
        def __init__(self, refitter: Refitter, logger: ILogger) -> None:
            super().__init__(logger)
            self._refitter = refitter
            self._errors: list[ParserError] = []

        # In this class's own body, where the conformance test looks.
        num_errors = OnnxParser.num_errors
        get_error = OnnxParser.get_error

        def refit_from_bytes(self, model: bytes, path: str | None = None) -> bool:
            new = {t.name: t for t in onnx.load_from_string(model).graph.initializer}
            for name, old in weights_of(self._refitter._engine._model).items():
                if name not in new or list(new[name].dims) != list(old.dims):
                    said = f"{name} has {list(new[name].dims) if name in new else 'gone'}, not {list(old.dims)}"
                    self._errors.append(ParserError(-1, "", "", ErrorCode.REFIT_FAILED, said))
            self._refitter._new = new
            return not self._errors

    def _typed(kind: str) -> dict[str, str]:
        # One field up to TensorRT 10, two from 11 on.
        if machine.version.startswith("10."):
            return {"Format/Datatype": kind}
        return {"Format": "kLINEAR", "DataType": kind}

    for thing in (
        Refitter,
        OnnxParserRefitter,
        BuilderFlag,
        NetworkDefinitionCreationFlag,
        MemoryPoolType,
        ProfilingVerbosity,
        LayerInformationFormat,
        TensorIOMode,
        ErrorCode,
        ExecutionContextAllocationStrategy,
        HardwareCompatibilityLevel,
        DataType,
        ILogger,
        IProgressMonitor,
        IHostMemory,
        Dims,
        ParserError,
        ITensor,
        IOptimizationProfile,
        ITimingCache,
        INetworkDefinition,
        OnnxParser,
        IBuilderConfig,
        Builder,
        EngineInspector,
        ICudaEngine,
        IExecutionContext,
        Runtime,
    ):
        setattr(module, thing.__name__, thing)
    return module


def _plan(header: dict[str, Any], model: Any) -> bytes:
    return PLAN_MAGIC + json.dumps(header).encode() + b"\n" + model.SerializeToString()
