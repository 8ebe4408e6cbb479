"""From a network to an ONNX graph: dynamic batch, BatchNorm folded, nothing random or external, the spec inside."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ganexport.probes import probe_inputs
from ganexport.source import Arrays, eager_outputs
from ganruntime import __version__
from ganruntime.bundle.reader import SPEC_KEY
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import onnx
    from torch import nn

OPSET = 18  # the oldest that torch's exporter writes natively, so what most runtimes read
PROBE_SEED = 0x70726F62  # "prob"
BATCH = "batch"
_RANDOM_OPS = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def inference_copy(module: nn.Module, spec: GeneratorSpec) -> nn.Module:
    """A copy in eval mode that was shown to be a function of its inputs.

    The network itself is never touched: a forward pass may change buffers, and a failed export may leave a module in
    train mode.

    Raises:
        ExportError: the forward pass fails, gives other outputs than the spec says, gives values that are not finite,
            draws random numbers, or changes its own parameters or buffers.
    """
    twin = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    for batch in (2, 3):
        inputs = probe_inputs(spec, PROBE_SEED, 0, batch)
        first, second = (eager_outputs(twin, spec, inputs) for _ in range(2))
        for name in first:
            if not np.array_equal(first[name], second[name], equal_nan=True):
                raise ExportError(
                    f"{spec.name}: two runs on the same inputs give different values of {name!r}",
                    expected="a function of the inputs in eval mode",
                    remedy="make noise an input with the role 'noise', or a constant buffer; no dropout in eval mode",
                )
            if first[name].dtype.kind == "f" and not np.isfinite(first[name]).all():
                raise ExportError(
                    f"{spec.name}: output {name!r} has values that are not finite", remedy="take an earlier checkpoint"
                )
    for name, tensor in twin.state_dict().items():
        if not bool((tensor == before[name]).all()) and not bool((tensor != tensor).any()):
            raise ExportError(
                f"{spec.name}: forward changes {name!r} in eval mode",
                expected="parameters and buffers that stay as they are",
                remedy="guard the update with `if self.training:`",
            )
    return twin


def onnx_from_generator(module: nn.Module, spec: GeneratorSpec, *, opset: int = OPSET) -> bytes:
    """The ONNX file of a network, as bytes.

    Inputs and outputs carry the spec's names and a symbolic batch dimension; the spec itself is in `metadata_props`
    under `ganexport.spec`. Parity is not checked here (see `ganexport.gate`).

    Args:
        module: from `inference_copy`.

    Raises:
        ExportError: torch cannot export the network, the batch was baked in, or the graph draws random numbers.
    """
    import torch

    example = probe_inputs(spec, PROBE_SEED, 0, 2)  # a batch of 1 would be taken for a constant
    arguments = tuple(torch.from_numpy(example[t.name]) for t in spec.inputs)
    batch = torch.export.Dim(BATCH)
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                arguments,
                dynamo=True,
                input_names=[t.name for t in spec.inputs],
                output_names=[t.name for t in spec.outputs],
                dynamic_shapes=_dynamic_shapes(module, len(arguments), {0: batch}),
                opset_version=opset,
                external_data=False,
                optimize=True,  # folds constants, and BatchNorm into the convolution or Gemm before it
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    except Exception as error:  # the exporter raises what the traced code and its own passes raise
        raise ExportError(
            f"{spec.name}: torch.onnx cannot export the network",
            got=_cause(error),
            remedy="keep shapes free of Python values that depend on the batch; GANEXPORT_DEBUG=1 shows the traceback",
        ) from error
    _strip_traces(model)
    _check_graph(model, spec)
    # Sorted and without a time stamp: exporting the same checkpoint again gives the same bytes.
    for key, value in sorted({SPEC_KEY: spec.dumps(), "ganexport.version": __version__}.items()):
        model.metadata_props.add(key=key, value=value)
    model.producer_name, model.producer_version = "ganexport", __version__
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _dynamic_shapes(module: nn.Module, count: int, shape: dict[int, Any]) -> Any:
    """One entry per argument; a forward(*args) takes them as one tuple."""
    import inspect

    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    shapes = tuple(shape for _ in range(count))
    return (shapes,) if kinds == [inspect.Parameter.VAR_POSITIONAL] else shapes


def _check_graph(model: onnx.ModelProto, spec: GeneratorSpec) -> None:
    random = [n for n in model.graph.node if n.op_type in _RANDOM_OPS]
    if random:
        raise ExportError(
            f"{spec.name}: the graph draws random numbers",
            got=", ".join(f"{n.op_type} ({n.name})" for n in random[:4]),
            expected="images that are a function of their inputs",
            remedy="make the noise an input with the role 'noise', or a constant buffer",
        )
    for side, values, tensors in (
        ("input", model.graph.input, spec.inputs),
        ("output", model.graph.output, spec.outputs),
    ):
        found = {v.name: v.type.tensor_type.shape.dim for v in values}
        for t in tensors:
            if t.name not in found:
                raise ExportError(
                    f"{spec.name}: the graph has no {side} {t.name!r}",
                    got=", ".join(found),
                    remedy="an input that the network does not use cannot be in its spec" if side == "input" else None,
                )
            dims = found[t.name]
            if not dims or not dims[0].dim_param:
                baked = dims[0].dim_value if dims else "a scalar"
                raise ExportError(
                    f"{spec.name}: the batch of {side} {t.name!r} is baked into the graph",
                    got=baked,
                    expected="a dynamic batch",
                    remedy="keep the batch out of groups, of reshapes with fixed sizes and of Python conditions",
                )


def _strip_traces(model: onnx.ModelProto) -> None:
    """Removes what the exporter notes on nodes and values: stack traces with paths of the machine it ran on."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    del graph.metadata_props[:]
    graph.doc_string = ""
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        del item.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's prints, warnings and log lines away from the user; errors still come as exceptions."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        yield


def _cause(error: BaseException) -> str:
    """The innermost cause in one line: the exporter wraps what went wrong in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"


def evaluate_from_module(module: nn.Module, spec: GeneratorSpec) -> Any:
    """The network as a function of arrays, for `golden_from_reference`."""

    def evaluate(inputs: Arrays) -> Arrays:
        return eager_outputs(module, spec, inputs)

    return evaluate
