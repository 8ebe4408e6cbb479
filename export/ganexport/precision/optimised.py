"""The fp32 graph in the forms that rungs are made of."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from ganexport.passes.pipeline import DEFAULT_PASSES, run_passes
from ganexport.passes.report import PassReport
from ganexport.precision.traced import Arrays
from ganruntime.errors import InputError

_PROBES = 8


def optimised_model(graph: bytes, inputs: Arrays, extra: Sequence[str] = ()) -> ir.Model:
    """The fp32 graph after the passes that pay everywhere, and `extra` ones; each is proven on the way."""
    return _passed(graph, inputs, extra)[0]


def model_in_form(
    name: str, rung: str, graph: bytes, inputs: Arrays, passes: Sequence[str], wanted: Sequence[str]
) -> tuple[ir.Model, list[PassReport]]:
    """The fp32 graph of the generator `name` in the forms of a rung, and the reports of the passes `wanted`.

    Args:
        passes: those that make the forms, after the default ones. wanted: those of them without which the rung is none.

    Raises:
        InputError: none of those found anything to do.
    """
    model, reports = _passed(graph, inputs, passes)
    reports = [report for report in reports if report.name in wanted]
    if not any(report.changed for report in reports):
        raise InputError(
            f"{name} has no layer for which {rung} has another form",
            expected=f"something to do for {' or '.join(wanted)}",
            remedy=f"leave {rung} out",
        )
    return model, reports


def _passed(graph: bytes, inputs: Arrays, extra: Sequence[str]) -> tuple[ir.Model, list[PassReport]]:
    model = ir.from_proto(onnx.load_model_from_string(graph))
    probes = {name: array[:_PROBES] for name, array in inputs.items()}
    # Pruned again: what a pass replaced is still there.
    return model, run_passes(model, probes, (*DEFAULT_PASSES, *extra, "prune"))
