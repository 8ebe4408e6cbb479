"""Calls of functions that the file itself defines, replaced by their bodies: every pass after it sees plain operators.

1. A node that calls a function of the model: replaced by the function's nodes, however deep calls go (onnx_ir's
   inliner). Functions that nothing calls any longer leave the file.
2. Names stay unique.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, NameFixPass, RemoveUnusedFunctionsPass

from ganexport.passes.report import PassReport


def inline_functions(model: ir.Model) -> PassReport:
    report = PassReport("inline_functions")
    if not model.functions:
        return report
    called = sorted({function.name for function in model.functions.values()})
    InlinePass()(model)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    NameFixPass()(model)
    report.changed.append(f"{len(called)} function(s): {', '.join(called[:8])}{', …' if len(called) > 8 else ''}")
    return report
