"""The rungs int8 and int8-symmetric: searched, proven, and searched further until the proof holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np

from ganexport.parity import Floors
from ganexport.precision.departure import first_departure
from ganexport.precision.optimised import optimised_model
from ganexport.precision.proof import NewVariant, Proof, new_variant
from ganexport.precision.sensitivity import POOL, WEIGHT_LEVELS, Search, search_from_model
from ganexport.precision.traced import Arrays
from ganruntime.bundle import Variant
from ganruntime.errors import ParityError
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession
from ganruntime.sizes import default_size, spec_at

SYMMETRIC = "int8-symmetric"  # without zero points, as TensorRT wants it


def int8_rung(
    variant: Variant, graph: bytes, inputs: Arrays, floors: Floors, proof: Proof, say: Callable[[str], None]
) -> NewVariant:
    """Makes and proves one.

    Raises:
        ExportError: there is no layer that int8 kernels could run.
        ParityError: under these floors nothing is left in int8.
    """
    rung = variant.name
    model = optimised_model(graph, inputs, ("convtranspose_to_subpixel",))
    say(f"{rung}: choosing thresholds and layers")
    usual = spec_at(proof.spec, default_size(proof.spec))
    symmetric = rung == SYMMETRIC
    # Among as many as the gate sees: its largest batch is filled with further latents.
    search = search_from_model(usual, model, inputs, min(POOL, max(proof.latents, *proof.batches)), symmetric)
    search.start()
    search.leave_out_until(floors.psnr_db)
    while True:
        if not search.kept:
            raise _no_int8(search, floors, proof)
        candidate = search.graph()
        say(
            f"{rung}: {len(search.kept)} of {len(search.layers)} layers, {search.int8_share:.0%} of the "
            f"multiplications; proving over {proof.latents:,} latents"
        )
        with OnnxRuntimeSession(proof.spec, variant, candidate, device="cpu", buckets=proof.batches) as session:
            finding = proof.of(session, floors)
        if not finding.problems:
            break
        say(f"{rung}: {'; '.join(finding.problems)}; searching among more latents")
        search.widen(floors.psnr_db)
    report = {
        "quantised": [
            {"node": k.node, "op_type": k.op_type, "reads": k.reads, "multiplications": k.multiplications}
            for k in search.kept
        ],
        "left_in_fp32": [asdict(left) for left in search.left],
        "too_small": [layer.node for layer in search.small],
        "balanced": list(search.balanced),
        "int8_share": search.int8_share,
        "tried_psnr_db": dict(search.tried),
        "thresholds": {
            k.reads: {"method": search.chosen[k.reads], "value": search.thresholds[search.chosen[k.reads]][k.reads]}
            for k in search.kept
        },
        "weight_levels": WEIGHT_LEVELS,
        "symmetric": symmetric,
    }
    return new_variant(variant, candidate, [finding], {}, report, floors, proof, inputs)


def _no_int8(search: Search, floors: Floors, proof: Proof) -> ParityError:
    costly = ", ".join(f"{left.node} ({left.op_type}) {left.cost_db:.1f} dB" for left in search.left[:4])
    reached = max(search.tried.values())
    departure = first_departure(search.base, search.whole, "int8", search.whole_worst, floors.psnr_db)
    node = f"; on the latent that suffers most, {departure.sentence()}" if departure is not None else ""
    return ParityError(
        f"{proof.spec.name}: with every layer in fp32 nothing is left of int8, and it is not written",
        got=f"PSNR {reached:.1f} dB with all layers in int8; what single layers cost: {costly}{node}",
        expected=f"PSNR {floors.psnr_db:g} dB",
        remedy=f"lower the floor: --floor psnr={np.floor(reached):g}, or take fp16",
    )
