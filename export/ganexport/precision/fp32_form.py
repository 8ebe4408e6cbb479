"""The rungs fp32-cpu and fp32-cuda: no lower precision but the fp32 graph in forms that suit a device: that are faster
with OpenVINO, and that give the same bits twice on a GPU."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from ganexport.passes.pipeline import CPU_PASSES, CUDA_PASSES
from ganexport.precision.optimised import model_in_form
from ganexport.precision.proof import NewVariant, Proof, new_variant
from ganexport.precision.traced import Arrays
from ganruntime.bundle import Variant
from ganruntime.errors import ParityError
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession

FP32_FORMS = {"fp32-cpu": CPU_PASSES, "fp32-cuda": CUDA_PASSES}


def fp32_form(variant: Variant, graph: bytes, inputs: Arrays, proof: Proof, say: Callable[[str], None]) -> NewVariant:
    """Makes and proves it.

    Raises:
        InputError: no layer has such a form.
        ParityError: it does not keep the bound of fp32.
    """
    passes = FP32_FORMS[variant.name]
    model, reports = model_in_form(proof.spec.name, variant.name, graph, inputs, passes, passes)
    form = ir.to_proto(model).SerializeToString()
    changed = sum(len(report.changed) for report in reports)
    say(f"{variant.name}: {changed} layer(s) in another form; proving over {proof.latents:,} latents")
    with OnnxRuntimeSession(proof.spec, variant, form, device="cpu", buckets=proof.batches) as session:
        finding = proof.of(session, None)
    if finding.problems:
        raise ParityError(
            f"{proof.spec.name}: the {variant.name} graph does not compute what the fp32 graph computes, and is not "
            "written",
            got="; ".join(finding.problems),
            expected=f"at most {finding.verdict.bound:.3g} apart",
            remedy=f"leave {variant.name} out",
        )
    return new_variant(variant, form, [finding], {}, {"passes": [r.to_json() for r in reports]}, None, proof, inputs)
