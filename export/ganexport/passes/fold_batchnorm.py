"""BatchNormalization in inference mode, folded into the linear node before it.

y = scale · (x - mean) / sqrt(var + ε) + bias is one factor and one shift per channel (Ioffe and Szegedy,
"Batch Normalization", 2015, algorithm 2), so:

1. After Conv, ConvTranspose, Gemm or MatMul with constant weights whose output nothing else reads: folded into them.
2. With an output in training mode, or with statistics that are computed: refused.
3. After anything else: refused.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ganexport.passes.constants import bypass, constant_of, float_of, integer_of, name_of
from ganexport.passes.producer import channels_of, fold_into, why_not_foldable
from ganexport.passes.report import PassReport


def fold_batchnorm(model: ir.Model) -> PassReport:
    report = PassReport("fold_batchnorm")
    for node in list(model.graph):
        if node.op_type != "BatchNormalization":
            continue
        name = name_of(node)
        statistics = [constant_of(value) for value in node.inputs[1:5]]
        if integer_of(node, "training_mode", 0) or len([o for o in node.outputs if o.uses()]) > 1:
            report.refuse(name, "it runs in training mode")
            continue
        if any(s is None for s in statistics):
            report.refuse(name, "its statistics are computed, not constant")
            continue
        source = node.inputs[0]
        producer = source.producer() if source is not None else None
        reason = why_not_foldable(producer)
        if reason is not None:
            report.refuse(name, reason)
            continue
        assert producer is not None
        scale, bias, mean, variance = (s.astype(np.float64) for s in statistics if s is not None)
        if len(scale) != channels_of(producer):
            report.refuse(
                name, f"it normalises {len(scale)} channels, and {name_of(producer)} gives {channels_of(producer)}"
            )
            continue
        factor = scale / np.sqrt(variance + float_of(node, "epsilon", 1e-5))
        bypass(model.graph, node, producer.outputs[0])
        fold_into(producer, factor, bias - mean * factor)
        report.changed.append(f"{name} into {name_of(producer)}")
    return report
