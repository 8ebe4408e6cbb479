"""Whatever depends on constants alone, computed once: spectral norms, equalised learning rates, shapes.

1. A node whose inputs are all constants is evaluated and replaced by its result (onnxscript's folder does the work).
   Spectral normalisation in inference (Miyato et al., 2018), its power iteration frozen, is one case: σ = uᵀ W v is a
   number, and W / σ a weight.
2. Results larger than `LARGEST_ELEMENTS` stay as they are: a folded Expand could be larger than the model.
3. Nodes without inputs that draw random numbers are not constants, and are never folded.
"""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnxscript.optimizer import fold_constants as onnxscript_fold_constants

from ganexport.passes.report import PassReport

LARGEST_ELEMENTS = 1 << 26  # 256 MiB of float32: the largest weight of a generator, with room


def fold_constants(model: ir.Model) -> PassReport:
    report = PassReport("fold_constants")
    before = Counter(node.op_type for node in model.graph)
    onnxscript_fold_constants(model, input_size_limit=LARGEST_ELEMENTS, output_size_limit=LARGEST_ELEMENTS)
    after = Counter(node.op_type for node in model.graph)
    gone = before - after
    report.changed += [f"{count} × {op_type}" for op_type, count in sorted(gone.items())]
    return report
