"""How a rung is proven, and what comes of it: a variant with its verdicts, or an error with the node that departs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ganexport.gate import BATCHES, Finding, verdict_against_reference
from ganexport.parity import Floors
from ganexport.precision import calibration
from ganexport.precision.departure import first_departure
from ganexport.precision.traced import Array, Arrays
from ganexport.probes import probe_inputs
from ganexport.proof_sizes import proofs_of
from ganruntime.bundle import Variant
from ganruntime.errors import ParityError
from ganruntime.sessions.base import Session
from ganruntime.sizes import default_size, spec_at
from ganruntime.spec import GeneratorSpec

LATENTS = 4096
# A generator whose images are larger than 128 × 128 RGB is proven over fewer latents, in proportion, and says so.
_FULL_PROOF_ELEMENTS = 3 * 128 * 128
_LEAST_LATENTS = 256

Progress = Callable[[int], None]


@dataclass(frozen=True)
class NewVariant:
    """A rung that was made and proven.

    findings: one per backend that ran it. not_run: {backend: why it did not}. report: what stands in the manifest.
    """

    variant: Variant
    graph: bytes
    findings: tuple[Finding, ...]
    not_run: dict[str, str]
    report: dict[str, Any]


@dataclass(frozen=True)
class Proof:
    """How rungs are proven: over `latents` of `seed`, in every one of `batches`, against `evaluate`."""

    spec: GeneratorSpec
    evaluate: Callable[[dict[str, Array]], dict[str, Array]]
    reference: str
    latents: int
    seed: int
    progress: Progress | None = None
    batches: tuple[int, ...] = BATCHES

    def of(self, session: Session, floors: Floors | None) -> Finding:
        """Runs it. floors: None for what computes in fp32, which is held to the bound of that."""
        return verdict_against_reference(
            session,
            self.evaluate,
            self.reference,
            seed=self.seed,
            latents=self.latents,
            batches=self.batches,
            progress=self.progress,
            floors=floors,
        )

    def skip(self) -> None:
        """Moves a progress bar over a run that cannot be made."""
        if self.progress is not None:
            self.progress(sum(run.images for run in proofs_of(self.spec, self.latents, self.batches)))


def latents_for(spec: GeneratorSpec) -> int:
    """How many latents prove a rung: 4,096, and fewer for large outputs, at least 256."""
    elements = sum(t.size for t in spec.outputs)
    return max(_LEAST_LATENTS, min(LATENTS, LATENTS * _FULL_PROOF_ELEMENTS // elements))


def new_variant(
    variant: Variant,
    graph: bytes,
    findings: Sequence[Finding],
    not_run: dict[str, str],
    report: dict[str, Any],
    floors: Floors | None,
    proof: Proof,
    inputs: Arrays,
) -> NewVariant:
    """A variant with the verdicts of its findings, and its report with how it was made and proven.

    Args:
        report: what the rung has to say of itself.
        inputs: what ranges were measured on.
    """
    for finding in findings:
        variant = variant.with_verdict(finding.verdict)
    common = {
        "floors": None if floors is None else asdict(floors),
        "gate": {"latents": proof.latents, "seed": proof.seed, "batches": list(proof.batches)},
        "calibration": {"latents": len(next(iter(inputs.values()))), "seed": calibration.SEED},
        "not_run": not_run,
    }
    return NewVariant(variant, graph, tuple(findings), not_run, common | report)


def require_floors(
    variant: Variant, source: bytes, candidate: bytes, findings: Sequence[Finding], floors: Floors, proof: Proof
) -> None:
    """Raises `ParityError` with the first node that departs, on the worst latent, where a finding has problems."""
    for finding in findings:
        if not finding.problems:
            continue
        verdict = finding.verdict
        sample = _worst_sample(finding)
        worst = probe_inputs(spec_at(proof.spec, default_size(proof.spec)), proof.seed, sample, 1)
        departure = first_departure(source, candidate, variant.precision, worst, floors.psnr_db)
        node = f"; at sample {sample}, {departure.sentence()}" if departure is not None else ""
        raise ParityError(
            f"{proof.spec.name}: the {variant.name} graph does not keep its floors, and is not written",
            got=f"on {verdict.backend} {verdict.device}: {'; '.join(finding.problems)}{node}",
            expected=f"PSNR {floors.psnr_db:g} dB, SSIM {floors.ssim:g}, at most {floors.levels:g} levels, "
            f"over {verdict.latents:,} latents of seed {proof.seed}",
            remedy=f"lower a floor (--floor psnr={max(0.0, np.floor(_lowest_psnr(finding))):g}), or take another rung",
        )


def _worst_sample(finding: Finding) -> int:
    errors = finding.verdict.errors
    keys = [k for k in errors if k.rpartition(".")[2] == "psnr_db"]
    prefix = min(keys, key=lambda k: errors[k]).removesuffix("psnr_db")
    # A value that is not finite has the largest error, whatever its place in the sample.
    finite = errors.get(prefix + "finite", 1.0) == 1.0
    return int(errors[prefix + ("worst_psnr_sample" if finite else "worst_sample")])


def _lowest_psnr(finding: Finding) -> float:
    return min(v for k, v in finding.verdict.errors.items() if k.rpartition(".")[2] == "psnr_db")
