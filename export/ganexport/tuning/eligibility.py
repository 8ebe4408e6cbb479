"""Eligibility: which variants a tuning may pick on which backend, by their verdicts, and why the others may not."""

from __future__ import annotations

from dataclasses import dataclass

from ganexport.gate import BATCHES, verdict_against_golden
from ganexport.golden import GoldenSamples
from ganruntime.bundle import Bundle, Variant, Verdict
from ganruntime.choice import BY_NAME, Choice, format_of, opened_session
from ganruntime.errors import BackendError, MissingDependencyError
from ganruntime.machine import backend_version
from ganruntime.sessions.devices import parse_device
from ganruntime.tuning import EXACT, worst_psnr_db


@dataclass(frozen=True)
class Eligible:
    """A variant that may be picked. verdict: the one that was made on the spot, to be kept in the bundle, if any."""

    variant: Variant
    verdict: Verdict | None = None


@dataclass(frozen=True)
class LeftOut:
    """What may not be picked, and why. verdict: as of `Eligible`; it is kept as well."""

    name: str
    why: str
    verdict: Verdict | None = None


def judged(
    bundle: Bundle,
    variant: Variant,
    backend: str,
    device: str,
    floor_psnr_db: float | None,
    golden: GoldenSamples,
    *,
    verify: bool,
) -> Eligible | LeftOut:
    """Whether a variant may be picked on a backend.

    It needs a verdict by that backend, in the version that is here, on that kind of device, that holds; where there is
    none, it is verified on the spot over every golden sample (`verify`). A precision below fp32 also needs a floor that
    its worst sample does not go below.
    """
    name = f"{variant.name}@{backend}"
    kind = parse_device(device)[0]
    if variant.precision != EXACT and floor_psnr_db is None:
        return LeftOut(name, f"{variant.precision} is below fp32, and no --floor was given")
    own = [v for v in variant.verdicts if v.backend == backend and v.device.partition(":")[0] == kind]
    if any(not v.passed for v in own):
        return LeftOut(name, f"its verdict by {backend} on {kind} fails")
    verdict = None
    if not any(_is_current(v, backend) for v in own):
        why = f"verified with {backend} {own[-1].versions.get(backend, '?')}" if own else f"never verified by {backend}"
        if not verify:
            return LeftOut(name, f"{why} on {kind}, and --no-verify was given")
        found = _verified(bundle, variant, backend, device, golden)
        if isinstance(found, str):
            return LeftOut(name, found)
        verdict = found
        variant = variant.with_verdict(verdict)
        if not verdict.passed:
            return LeftOut(name, f"its verification by {backend} on {kind} failed just now", verdict)
    if variant.precision != EXACT and floor_psnr_db is not None:
        worst = worst_psnr_db(variant, backend, kind)
        if worst is None or worst < floor_psnr_db:
            got = "has no PSNR" if worst is None else f"{worst:.1f} dB"
            why = f"the worst sample of its verdict, {got}, is under the floor of {floor_psnr_db:g} dB"
            return LeftOut(name, why, verdict)
    return Eligible(variant, verdict)


def _is_current(verdict: Verdict, backend: str) -> bool:
    versions = verdict.versions
    own = versions.get(backend)
    if backend == BY_NAME:
        own = f"{versions.get('onnxruntime')} with {versions.get('tensorrt')}"
    return own == backend_version(backend)


def _verified(bundle: Bundle, variant: Variant, backend: str, device: str, golden: GoldenSamples) -> Verdict | str:
    """The verdict over all golden samples in the gate's batch sizes; or why it cannot run."""
    batches = None if format_of(backend) == "tensorrt" else BATCHES
    try:
        choice = Choice(backend, device, variant, "given", "given")
        with opened_session(bundle, choice, buckets=batches) as session:
            against = bundle.manifest.golden.reference
            return verdict_against_golden(session, golden, against, session.buckets).verdict
    except (BackendError, MissingDependencyError) as error:
        return f"it does not run: {error.problem}"
