"""From the exporter's graph to the optimised one: which passes run, in which order, and a report of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ganexport.passes.pipeline import DEFAULT_PASSES, require_known, run_passes
from ganexport.passes.report import PassReport
from ganexport.probes import probe_inputs
from ganexport.proof_sizes import proof_sizes
from ganruntime.errors import ExportError, InputError
from ganruntime.sizes import Size, spec_at
from ganruntime.spec import GeneratorSpec

if TYPE_CHECKING:
    import onnx

PROOF_SEED = 0x70617373  # "pass": apart from the seeds of the gate, which proves the whole again
PROOF_ROWS = 3  # more than the exporter's example has, so a batch that was baked in shows here

OnReport = Callable[[PassReport], None]


def chosen_passes(without: Collection[str] = (), extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The default passes less some, and some more; what these leave behind is pruned, unless pruning is left out.

    Raises:
        InputError: a name is not that of a pass (the error lists them), or is both left out and asked for.
    """
    require_known((*without, *extra))
    both = sorted(set(without) & set(extra))
    if both:
        raise InputError(f"the pass {both[0]} is both left out and asked for")
    kept = [name for name in DEFAULT_PASSES if name not in without]
    added = [name for name in dict.fromkeys(extra) if name not in kept]
    if added and "prune" not in without:
        added.append("prune")
    return (*kept, *added)


def optimised_from_exported(
    model: onnx.ModelProto,
    spec: GeneratorSpec,
    passes: Sequence[str] = DEFAULT_PASSES,
    on_report: OnReport | None = None,
) -> onnx.ModelProto:
    """Runs passes over a graph as the exporter wrote it, and proves each on the same inputs, before and after it.

    The graph in `model` is not changed. Equal graphs give equal ones.

    Args:
        spec: what the graph takes; the proof draws its inputs from it.
        passes: names from `PASSES`, in the order in which they run.
        on_report: called with each pass's report.

    Raises:
        InputError: a name is not that of a pass.
        ExportError: a pass changed what the graph computes, or the graph does not run.
    """
    import onnx_ir as ir

    sizes: tuple[Size | None, ...] = proof_sizes(spec)[1:] or (None,)
    probes = [
        {name: np.ascontiguousarray(array) for name, array in probe_inputs(at_size, PROOF_SEED, 0, PROOF_ROWS).items()}
        for at_size in (spec_at(spec, size) for size in sizes)
    ]
    working = ir.from_proto(model)
    try:
        reports = run_passes(working, probes, passes)
    except ExportError as error:
        raise ExportError(
            f"{spec.name}: {error.problem}", got=error.got, expected=error.expected, remedy=error.remedy
        ) from error
    for report in reports:
        if on_report is not None:
            on_report(report)
    return ir.to_proto(working)
