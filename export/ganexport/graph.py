"""From a network to an ONNX graph: dynamic batch, optimised, nothing random or external, the spec inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ganexport.graph_checks import check_graph, parts_of, strip_traces
from ganexport.inference import evaluate_from_module, inference_copy
from ganruntime import __version__
from ganruntime.bundle.reader import SPEC_KEY
from ganruntime.errors import ExportError
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import onnx
    import torch
    from torch import nn

    from ganexport.optimisation import OnReport

__all__ = ["OPSET", "evaluate_from_module", "inference_copy", "onnx_from_generator"]

_SYMBOL = re.compile(r"\bs\d+\b")
OPSET = 18  # the oldest that torch's exporter writes natively, so what most runtimes read


def onnx_from_generator(
    module: nn.Module,
    spec: GeneratorSpec,
    *,
    opset: int = OPSET,
    passes: Sequence[str] | None = None,
    on_pass: OnReport | None = None,
) -> bytes:
    """The ONNX file of a network, as bytes.

    Inputs and outputs carry the spec's names and a symbolic batch dimension; the spec itself is in `metadata_props`
    under `ganexport.spec`. Parity is not checked here (see `ganexport.gate`).

    Args:
        module: from `inference_copy`.
        passes: names from `ganexport.passes.pipeline.PASSES`; by default those that pay everywhere.
        on_pass: called with the report of each pass.

    Raises:
        ExportError: torch cannot trace or export the network, the batch was baked in (each names the module, the
            operation and the line), the graph draws random numbers, or a pass changed what it computes.
    """
    from ganexport.optimisation import optimised_from_exported
    from ganexport.passes.pipeline import DEFAULT_PASSES
    from ganexport.program.baked import bake_constants
    from ganexport.program.modulated import rewrite_modulated
    from ganexport.program.operations import rewrite_operations
    from ganexport.program.tracing import program_from_generator

    program = program_from_generator(module, spec)
    bake_constants(program)
    rewrite_operations(program, spec)
    rewrite_modulated(program, spec)
    model = _onnx_from_program(program, spec, opset)
    check_graph(model, spec, opset)
    model = optimised_from_exported(model, spec, DEFAULT_PASSES if passes is None else passes, on_pass)
    strip_traces(model)
    check_graph(model, spec, opset)
    # Sorted and without a time stamp: exporting the same checkpoint again gives the same bytes.
    for key, value in sorted({SPEC_KEY: spec.dumps(), "ganexport.version": __version__}.items()):
        model.metadata_props.add(key=key, value=value)
    model.producer_name, model.producer_version = "ganexport", __version__
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _onnx_from_program(program: torch.export.ExportedProgram, spec: GeneratorSpec, opset: int) -> onnx.ModelProto:
    import torch

    from ganexport.program.operations import remedy_for
    from ganexport.program.place import node_of_failure, place_of_node
    from ganexport.program.tracing import cause_of, quiet, symbol_names

    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                input_names=[t.name for t in spec.inputs],
                output_names=[t.name for t in spec.outputs],
                opset_version=opset,
                external_data=False,
                optimize=False,  # ours follow, each proven and with a report
                verbose=False,
            )
            assert exported is not None
            model: onnx.ModelProto = exported.model_proto
    except Exception as error:  # the exporter raises what its own passes raise
        node = node_of_failure(error)
        where = f" {place_of_node(node)}" if node is not None else " the network"
        raise ExportError(
            f"{spec.name}: torch.onnx cannot export{where}",
            got=cause_of(error),
            expected=f"operations that opset {opset} has",
            remedy=remedy_for(str(node.target) if node is not None else ""),
        ) from error
    names = symbol_names(program, spec)
    for part in parts_of(model):
        for field in ("input", "output", "value_info"):
            for value in getattr(part, field, ()):
                if isinstance(value, str):  # a function names its inputs only
                    continue
                for dimension in value.type.tensor_type.shape.dim:
                    if dimension.dim_param:
                        # Sizes that follow are products and sums: `2*s93`.
                        named = _SYMBOL.sub(lambda match: names.get(match[0], match[0]), dimension.dim_param)
                        dimension.dim_param = named
    return model
