"""The rungs fp16, bf16 and bf16-cpu: typed graphs, proven by their definition, and by ONNX Runtime where that has
kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import onnx_ir as ir

from ganexport.parity import Floors
from ganexport.passes.pipeline import BF16_PASSES
from ganexport.precision.half_graph import half_graph_from_model
from ganexport.precision.optimised import model_in_form, optimised_model
from ganexport.precision.proof import NewVariant, Proof, new_variant, require_floors
from ganexport.precision.ranges import ranges_from_graph
from ganexport.precision.reference import ReferenceSession
from ganexport.precision.rounding import HALF_TYPES
from ganexport.precision.traced import Arrays
from ganruntime.bundle import Variant
from ganruntime.errors import BackendError, MissingDependencyError
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession

BF16_FORM = "bf16-cpu"  # 3 × 3 convolutions in Winograd's form, whose products are then in bf16
_WINOGRAD = "conv_to_winograd"


def half_rung(
    variant: Variant, graph: bytes, inputs: Arrays, floors: Floors, proof: Proof, say: Callable[[str], None]
) -> NewVariant:
    """Makes and proves one.

    Raises:
        InputError: it is `bf16-cpu`, and no layer has a faster form.
        ExportError: the graph cannot be typed.
        ParityError: it does not keep its floors; names the node where it departs.
    """
    rung, half = variant.name, HALF_TYPES[variant.precision]
    report: dict[str, Any] = {}
    if rung == BF16_FORM:
        model, reports = model_in_form(proof.spec.name, rung, graph, inputs, (*BF16_PASSES, _WINOGRAD), (_WINOGRAD,))
        report["passes"] = [r.to_json() for r in reports]
    else:
        # Forms that are fast with OpenVINO: in bfloat16 it runs there at twice the speed of fp32.
        forms = BF16_PASSES if half.name == "bf16" else ("narrow_convtranspose_to_subpixel",)
        model = optimised_model(graph, inputs, forms)
    fp32 = ir.to_proto(model).SerializeToString()
    made = half_graph_from_model(fp32, ranges_from_graph(fp32, inputs), half)
    say(f"{rung}: {made.half_nodes} nodes in it, {len(made.islands)} in fp32; proving over {proof.latents:,} latents")
    findings, not_run = [], {}
    with ReferenceSession(proof.spec, variant, made.graph, buckets=proof.batches) as session:
        findings.append(proof.of(session, floors))
    try:
        opened = OnnxRuntimeSession(proof.spec, variant, made.graph, device="cpu", buckets=proof.batches)
    except MissingDependencyError:
        raise
    except BackendError as error:
        not_run["onnxruntime cpu"] = str(error.got or error.problem)
        proof.skip()
    else:
        with opened:
            findings.append(proof.of(opened, floors))
    require_floors(variant, fp32, made.graph, findings, floors, proof)
    report |= {
        "half_nodes": made.half_nodes,
        "islands": [asdict(island) for island in made.islands],
        "flushed_weights": made.flushed_weights,
    }
    return new_variant(variant, made.graph, findings, not_run, report, floors, proof, inputs)
