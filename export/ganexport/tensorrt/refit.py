"""`engine_from_refit`: an engine with new weights, in seconds where building it takes minutes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ganexport.tensorrt.engine_builder import BuiltEngine
from ganexport.tensorrt.options import BuildOptions
from ganruntime.errors import EngineError
from ganruntime.sessions.cuda import gpu_from_index, use_gpu
from ganruntime.sessions.tensorrt_library import captured_messages, require_tensorrt, runtime_for
from ganruntime.sessions.tensorrt_refit import refit_from_graph
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import tensorrt as trt


def engine_from_refit(
    model: bytes, spec: GeneratorSpec, old_plan: bytes, options: BuildOptions, bundle: str
) -> BuiltEngine:
    """Gives a plan the weights of a graph that is the one it was built from but for its weights.

    A stripped plan comes back as it was, once it has been seen to take the weights: it holds none.

    Args:
        model: the ONNX file with the new weights.
        spec: what it takes and gives.
        old_plan: a plan that was built with `options`, by the TensorRT that is installed.

    Raises:
        MissingDependencyError, DeviceError: TensorRT, cuda-python or the GPU is not there.
        EngineError: the plan does not load, or does not take the weights.
    """
    version = require_tensorrt()
    gpu = gpu_from_index(options.device)
    use_gpu(gpu.index)
    started_s = time.monotonic()
    rebuild = options.command(bundle)
    with captured_messages() as messages:
        runtime = runtime_for(options.version_compatible)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(old_plan)
        if engine is None:
            raise EngineError(
                "TensorRT does not load the engine that is to get new weights",
                got="; ".join(messages.errors) or None,
                remedy=rebuild,
            )
        refit_from_graph(engine, model, "of before", rebuild)
        plan = old_plan if options.stripped else bytes(memoryview(engine.serialize()))
    return BuiltEngine(
        plan=plan,
        options=options,
        tensorrt_version=version,
        gpu=gpu,
        profiles=options.profiles(spec),
        seconds=time.monotonic() - started_s,
        timing_cache_hit_bytes=0,
        warnings=tuple(dict.fromkeys(messages.warnings)),
    )
