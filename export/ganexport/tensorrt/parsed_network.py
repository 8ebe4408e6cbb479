"""The network that TensorRT's parser makes of an ONNX file, and whether it is the one that the spec tells of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ganexport.tensorrt.build_failure import NodeError, error_from_parser
from ganruntime.errors import EngineError
from ganruntime.sessions.tensorrt_library import captured_messages, dtype_from_tensorrt, shared_logger
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import tensorrt as trt


def network_from_onnx(builder: trt.Builder, model: bytes, version: str, bundle: str) -> trt.INetworkDefinition:
    """The network of an ONNX file.

    Args:
        version: of TensorRT, for errors; bundle: what their remedies are called with.

    Raises:
        EngineError: the parser refuses it; names the nodes.
    """
    import tensorrt as trt

    # On 11 the flag is deprecated, still there, and without effect: every network is strongly typed.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    with captured_messages() as messages:
        parser = trt.OnnxParser(network, shared_logger())
        # Parsed from memory and without a path, so that external data cannot be read from anywhere.
        if not parser.parse(model):
            nodes = [_node_error(parser.get_error(i)) for i in range(parser.num_errors)]
            raise error_from_parser(nodes, messages.errors, version, bundle)
    return network


def require_spec(network: trt.INetworkDefinition, spec: GeneratorSpec) -> None:
    """Raises `EngineError` where names, dtypes, shapes or a fixed batch are not what the spec says."""
    parsed_inputs = [network.get_input(i) for i in range(network.num_inputs)]
    parsed_outputs = [network.get_output(i) for i in range(network.num_outputs)]
    for side, parsed, wanted in (("input", parsed_inputs, spec.inputs), ("output", parsed_outputs, spec.outputs)):
        found = {t.name: t for t in parsed}
        if set(found) != {w.name for w in wanted}:
            raise EngineError(
                f"the graph's {side}s are not those of the spec", got=sorted(found), expected=[w.name for w in wanted]
            )
        for want in wanted:
            tensor = found[want.name]
            dtype = dtype_from_tensorrt(tensor.dtype)
            if dtype != want.dtype:
                raise EngineError(
                    f"{side} {want.name!r} has another dtype in the graph", got=dtype, expected=want.dtype
                )
            shape = tuple(tensor.shape)  # [N, …], -1 where it is free
            if shape[:1] != (-1,):
                raise EngineError(
                    f"{side} {want.name!r} has a fixed batch in the graph",
                    got=list(shape),
                    expected=[-1, *want.shape],
                    remedy="export again: ganexport to-onnx makes the batch dynamic",
                )
            # TensorRT may not know an output's size before the profile does; -1 is then no contradiction. Where the
            # spec says that a side varies it must be free: a fixed one would take no other size.
            if len(shape) != 1 + len(want.shape) or any(
                s != -1 if w is None else s not in (-1, w) for s, w in zip(shape[1:], want.shape, strict=True)
            ):
                raise EngineError(
                    f"{side} {want.name!r} has another shape in the graph",
                    got=list(shape),
                    expected=[-1, *(-1 if d is None else d for d in want.shape)],
                )


def _node_error(error: trt.ParserError) -> NodeError:
    return NodeError(
        index=error.node(),
        name=error.node_name(),
        operator=error.node_operator(),
        code=error.code().name,
        description=" ".join(error.desc().split()),
    )
