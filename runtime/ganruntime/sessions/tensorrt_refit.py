"""New weights for an engine, out of an ONNX graph: a stripped engine needs them at every load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganruntime.errors import EngineError
from ganruntime.sessions.tensorrt_library import captured_messages, shared_logger

if TYPE_CHECKING:
    import tensorrt as trt

_SHOWN = 5


def refit_from_graph(engine: trt.ICudaEngine, graph: bytes, name: str, remedy: str) -> None:
    """Gives an engine the weights of a graph that is the one it was built from but for its weights.

    The engine must have no work under way. On an error some weights may have been exchanged: do not use it.

    Args:
        graph: the ONNX file's bytes, weights inside.
        name: the engine's name, for errors.
        remedy: the command that builds it anew.

    Raises:
        EngineError: the engine was not built to be refitted, the graph is another, or weights are left without values.
    """
    import tensorrt as trt

    if not engine.refittable:
        raise EngineError(f"the engine {name} takes no new weights", got="built without --refittable", remedy=remedy)
    with captured_messages() as messages:
        try:
            refitter = trt.Refitter(engine, shared_logger())
            parser = trt.OnnxParserRefitter(refitter, shared_logger())
        except TypeError as error:  # pybind11: "factory function returned nullptr"
            raise _failed(
                name, "TensorRT's refitter does not start", messages.errors or [str(error)], remedy
            ) from error
        # From memory and without a path, so that external data cannot be read from anywhere.
        if not parser.refit_from_bytes(graph):
            said = [" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors)]
            raise _failed(name, "the graph's weights do not fit it", said or messages.errors, remedy)
        missing = refitter.get_missing_weights()
        if missing:
            raise _failed(name, f"{len(missing)} weights are left without values", missing, remedy)
        if not refitter.refit_cuda_engine():
            raise _failed(name, "TensorRT does not take them", messages.errors, remedy)


def _failed(name: str, cause: str, said: list[str], remedy: str) -> EngineError:
    shown = said[:_SHOWN] + ([f"and {len(said) - _SHOWN} more"] if len(said) > _SHOWN else [])
    return EngineError(
        f"the engine {name} cannot be given the weights of the graph: {cause}",
        got="; ".join(shown) or None,
        remedy=remedy,
    )
