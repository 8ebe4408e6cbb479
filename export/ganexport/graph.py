"""From a network to an ONNX graph: dynamic batch, BatchNorm folded, nothing random or external, the spec inside."""

from __future__ import annotations

import contextlib
import copy
import inspect
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
    import torch
    from torch import nn

OPSET = 18  # the oldest that torch's exporter writes natively, so what most runtimes read
PROBE_SEED = 0x70726F62  # "prob"
BATCH = "batch"
# Between batch sizes only summation orders differ, some 1e-6 of the peak; batch statistics differ by tenths.
_ROW_BOUND = 1e-3
_RANDOM_OPS = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}


def inference_copy(module: nn.Module, spec: GeneratorSpec) -> nn.Module:
    """A copy in eval mode that was shown to be a function of its inputs.

    The network itself is never touched: a forward pass may change buffers, and a failed export may leave a module in
    train mode.

    Raises:
        ExportError: the spec has dtypes or shapes that are not exported, or the network cannot be copied; the forward
            pass fails, gives other outputs than the spec says, gives values that are not finite, draws random numbers,
            mixes the rows of a batch, or changes its own parameters or buffers.
    """
    _require_exportable(spec)
    try:
        twin = copy.deepcopy(module).cpu().eval().requires_grad_(False)
    except Exception as error:  # whatever a stranger's code raises
        raise ExportError(
            f"{spec.name}: the network cannot be copied",
            got=_cause(error),
            expected="parameters and buffers that are plain tensors",
            remedy="remove what computes weights from others first: torch.nn.utils.remove_weight_norm and its like",
        ) from error
    before = {name: tensor.clone() for name, tensor in _state(twin).items()}
    rows: Arrays = {}
    for batch in (2, 3):
        inputs = probe_inputs(spec, PROBE_SEED, 0, batch)
        first = eager_outputs(twin, spec, inputs)
        _require_unchanged(twin, before, spec)
        second = eager_outputs(twin, spec, inputs)
        for name in first:
            if not np.array_equal(first[name], second[name], equal_nan=first[name].dtype.kind == "f"):
                raise ExportError(
                    f"{spec.name}: two runs on the same inputs give different values of {name!r}",
                    expected="a function of the inputs in eval mode",
                    remedy="make noise an input with the role 'noise', or a constant buffer; no dropout in eval mode",
                )
            if not np.isfinite(first[name]).all():
                raise ExportError(
                    f"{spec.name}: output {name!r} has values that are not finite", remedy="take an earlier checkpoint"
                )
            _require_own_row(rows.get(name), first[name], name, spec)
        rows = first
    return twin


def _require_exportable(spec: GeneratorSpec) -> None:
    for t in (*spec.inputs, *spec.outputs):
        if t.dtype == "bfloat16":
            raise ExportError(
                f"{spec.name}: {t.name!r} is bfloat16, which NumPy does not have",
                expected="float32 at the network's ends, whatever it computes in",
                remedy="cast in forward, and say float32 in the spec",
            )
        if None in t.shape:
            raise ExportError(
                f"{spec.name}: {t.name!r} has dimensions that vary",
                got=list(t.shape),
                expected="a fixed shape: this release exports fixed heights and widths",
                remedy="give the height and width in the spec",
            )


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and all buffers: a state_dict leaves out those that are not persistent."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _require_unchanged(module: nn.Module, before: dict[str, torch.Tensor], spec: GeneratorSpec) -> None:
    import torch

    after = _state(module)
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None or new is None or not torch.equal(old.nan_to_num(), new.nan_to_num()):
            raise ExportError(
                f"{spec.name}: forward changes {name!r} in eval mode",
                expected="parameters and buffers that stay as they are",
                remedy="guard the update with `if self.training:`",
            )


def _require_own_row(fewer: Any, more: Any, name: str, spec: GeneratorSpec) -> None:
    """The same inputs in a smaller batch must have given the same rows."""
    if fewer is None:
        return
    reference = fewer.astype(np.float64)
    difference = float(np.abs(more[: len(fewer)].astype(np.float64) - reference).max(initial=0.0))
    if difference > _ROW_BOUND * max(float(np.abs(reference).max(initial=0.0)), 1e-6):
        raise ExportError(
            f"{spec.name}: a row of {name!r} depends on the other rows of its batch",
            got=f"a difference of {difference:.3g} between batches of {len(fewer)} and {len(more)}",
            expected="each image a function of its own inputs",
            remedy="keep running statistics in BatchNorm (track_running_stats=True), sums over the batch and the batch "
            "itself out of Python conditions, and noise as an input",
        )


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
            remedy="keep the batch out of groups, of reshapes with fixed sizes and of Python conditions, and values "
            "of tensors out of Python conditions; GANEXPORT_DEBUG=1 shows the traceback",
        ) from error
    _strip_traces(model)
    _check_graph(model, spec, opset)
    # Sorted and without a time stamp: exporting the same checkpoint again gives the same bytes.
    for key, value in sorted({SPEC_KEY: spec.dumps(), "ganexport.version": __version__}.items()):
        model.metadata_props.add(key=key, value=value)
    model.producer_name, model.producer_version = "ganexport", __version__
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _dynamic_shapes(module: nn.Module, count: int, shape: dict[int, Any]) -> Any:
    """One entry per argument; what a *args takes goes together as one tuple."""
    kinds = [p.kind for p in inspect.signature(module.forward).parameters.values()]
    shapes = tuple(shape for _ in range(count))
    named = kinds.index(inspect.Parameter.VAR_POSITIONAL) if inspect.Parameter.VAR_POSITIONAL in kinds else count
    return shapes if named >= count else (*shapes[:named], shapes[named:])


def _check_graph(model: onnx.ModelProto, spec: GeneratorSpec, opset: int) -> None:
    found_opset = {o.domain: o.version for o in model.opset_import}.get("")
    if found_opset != opset:
        # The exporter falls back to its own opset where a node cannot be converted.
        raise ExportError(
            f"{spec.name}: the graph cannot be written in the opset that was asked for",
            got=found_opset,
            expected=opset,
            remedy=f"--opset {found_opset}",
        )
    nodes = [n for part in _parts(model) for n in part.node]
    random = [n for n in nodes if n.op_type in _RANDOM_OPS]
    if random:
        raise ExportError(
            f"{spec.name}: the graph draws random numbers",
            got=", ".join(f"{n.op_type} ({n.name})" for n in random[:4]),
            expected="images that are a function of their inputs",
            remedy="make the noise an input with the role 'noise', or a constant buffer",
        )
    used = {name for n in nodes for name in n.input} | {v.name for v in model.graph.output}
    for t in spec.inputs:
        if t.name not in used:
            raise ExportError(
                f"{spec.name}: the network does not use its input {t.name!r}",
                got=f"uses {', '.join(u.name for u in spec.inputs if u.name in used) or 'none'}",
                expected=", ".join(u.name for u in spec.inputs),
                remedy="take it out of the spec and of forward, or use it",
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
                    expected=", ".join(u.name for u in tensors),
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


def _parts(model: onnx.ModelProto) -> Iterator[Any]:
    """The graph, the graphs inside its nodes (branches and loop bodies), and the model's functions."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        yield part
        for attribute in (a for n in part.node for a in n.attribute):
            waiting += [attribute.g] if attribute.HasField("g") else []
            waiting += attribute.graphs


def _strip_traces(model: onnx.ModelProto) -> None:
    """Removes what the exporter notes on nodes and values: stack traces with paths of the machine it ran on."""
    for part in (model, *_parts(model)):
        _clear_notes(part)
        for field in ("node", "initializer", "value_info"):
            for item in getattr(part, field, ()):
                _clear_notes(item)
        for field in ("input", "output"):
            for item in getattr(part, field, ()):
                if not isinstance(item, str):  # a function names its inputs only
                    _clear_notes(item)


def _clear_notes(item: Any) -> None:
    item.doc_string = ""
    del item.metadata_props[:]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's prints, warnings and log lines away from the user; errors still come as exceptions."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
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
