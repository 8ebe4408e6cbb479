"""`run_first`: an engine run once on every profile, where a crash in its kernels ends the builder's process only."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ganexport.tensorrt.build_failure import for_less
from ganexport.tensorrt.engine_builder import BuiltEngine
from ganexport.tensorrt.progress import OnProgress
from ganruntime.errors import EngineError
from ganruntime.sessions.cuda import use_gpu
from ganruntime.sessions.cuda_streams import DeviceBuffer
from ganruntime.sessions.tensorrt_lanes import Call, Lane, Streams, new_context
from ganruntime.sessions.tensorrt_library import captured_messages, runtime_for
from ganruntime.sessions.tensorrt_refit import refit_from_graph
from ganruntime.sizes import spec_at
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import tensorrt as trt


def run_first(
    built: BuiltEngine, spec: GeneratorSpec, model: bytes, bundle: str, on_progress: OnProgress | None = None
) -> None:
    """Runs zeros at the largest batch and size of each profile; what comes of them is for the proof to judge.

    Args:
        model: the graph that it was built from, whose weights a stripped engine takes.
        bundle: the bundle's name, for the commands in errors.
        on_progress: called before each profile, for a crash to be told of the right one.

    Raises:
        EngineError, DeviceError: it does not load, there is no room to run it, or it fails.
    """
    use_gpu(built.gpu.index)
    with captured_messages() as messages, contextlib.ExitStack() as resources:
        runtime = runtime_for(built.options.version_compatible)
        engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(built.plan)
        if engine is None:
            raise EngineError("TensorRT does not load the engine that it just built", got="; ".join(messages.errors))
        if built.options.stripped:
            refit_from_graph(engine, model, "just built", built.options.command(bundle))
        streams = Streams(resources)
        scratch = DeviceBuffer(max(1, int(engine.device_memory_size_v2)))
        resources.callback(scratch.free)
        widest = built.profiles[-1]
        lane = Lane(spec_at(spec, widest.sizes[2] if widest.sizes else None), widest.maximum, resources)
        for index, profile in enumerate(built.profiles):
            if on_progress is not None:
                on_progress(1.0, f"first run of profile {profile}")
            context = new_context(engine, index, streams.compute, scratch)
            if context is None:
                raise EngineError(
                    f"the GPU has no room to run the engine that was just built, on its profile {profile}",
                    got="; ".join(messages.errors) or None,
                    remedy="free the GPU (`nvidia-smi` says who holds it), or build for less: "
                    f"{for_less(built.options, bundle)}",
                )
            call = Call(lane, context, spec_at(spec, profile.sizes[2] if profile.sizes else None), profile.maximum)
            call.put(None, streams)
            call.take(None)
