"""The parity gate: runs a session over many latents in awkward batch sizes and holds it against its reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ganexport.golden import Arrays, Evaluate, GoldenSamples
from ganexport.parity import Floors, ParityMeter, floors_of, verdict_from, worst_figure
from ganexport.pixels import Comparison
from ganexport.probes import probe_inputs
from ganexport.proof_sizes import Proof, fewer, proofs_of, small_batches
from ganruntime.bundle import Verdict
from ganruntime.errors import InputError
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sizes import size_option, size_text, spec_at
from ganruntime.spec import GeneratorSpec

BATCHES = (1, 2, 3, 64, 257)  # one, two, odd, a usual one, and a prime that nobody traced
LATENTS = 1024
PROOF_SEED = 0x70726F6F  # "proo": fresh latents, apart from the golden ones

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Finding:
    """A verdict, and what does not hold, one sentence each."""

    verdict: Verdict
    problems: list[str]


def verdict_against_golden(
    session: Session,
    golden: GoldenSamples,
    reference: str,
    batches: Sequence[int] = BATCHES,
    progress: Progress | None = None,
) -> Finding:
    """Every golden sample through the session, once per batch size; every batch is full, and every row is compared.

    Where height and width vary, the samples of other sizes than the default follow, in small batches. An engine is run
    at those that it takes; the first of them takes the place of the default where it does not take that.

    Args:
        reference: what the golden samples were computed by.
        progress: called with the number of images just run.

    Raises:
        InputError: it takes none of the sizes.
    """
    findings: list[Finding] = []
    for samples in golden_samples_for(session, golden):
        few = small_batches(batches) if findings else tuple(batches)
        proof = Proof(samples.size, samples.latents, few)
        comparison = Comparison.of(session, samples.size)
        levels = comparison.of_golden(samples)
        meters = _meters(session, comparison, None)
        for start, _, outputs in _runs(session, proof, levels.rows, progress):
            levels.compare(meters, comparison.of_candidate(outputs), start)
        findings.append(_finding(session, meters, reference, proof, None, comparison.rounding))
    return over_sizes(findings)


def golden_samples_for(session: Session, golden: GoldenSamples) -> list[GoldenSamples]:
    """The samples of those sizes that a session takes, the default size first. Raises `InputError` for none."""
    taken = [samples for samples in (golden, *golden.others) if session.takes(samples.size)]
    if not taken:
        sizes = [samples.size for samples in (golden, *golden.others) if samples.size is not None]
        raise InputError(
            f"{session.variant.name} takes images of none of the sizes of the golden samples",
            expected="one of " + size_option(sizes),
            remedy=f"build it again, with ganexport to-trt --size {size_option(sizes[:1])} among its sizes",
        )
    return taken


def verdict_against_reference(
    session: Session,
    evaluate: Evaluate,
    reference: str,
    *,
    seed: int = PROOF_SEED,
    latents: int = LATENTS,
    batches: Sequence[int] = BATCHES,
    progress: Progress | None = None,
    floors: Floors | None = None,
    proofs: Sequence[Proof] | None = None,
) -> Finding:
    """Fresh latents through the session and through the source network, whole outputs compared.

    Where height and width vary, at several sizes (`ganexport.proof_sizes`) of those that it takes, and at every size
    that it was tuned for.

    Args:
        proofs: what to run, instead of what follows from `latents` and `batches`.
        evaluate: the source network in fp32.
        floors: what a rung that rounds has to keep; by default what its variant was held to before, else its rung's.
    """
    findings = []
    for proof in proofs or proofs_for(session, latents, batches):
        comparison = Comparison.of(session, proof.size)
        samples = _ReferenceSamples(comparison.spec, evaluate, seed, proof)
        meters = _meters(session, comparison, floors)
        for start, batch, outputs in _runs(session, proof, samples.rows, progress):
            found = comparison.of_candidate(outputs)
            for name, expected in comparison.of_reference(samples.outputs(start, batch)).items():
                meters[name].add(expected, found[name], start)
        findings.append(_finding(session, meters, reference, proof, floors, comparison.rounding))
    return over_sizes(findings)


def proofs_for(session: Session, latents: int, batches: Sequence[int]) -> list[Proof]:
    """What the gate runs of a session: the sizes that it takes, and those that it was tuned for in all batches."""
    proofs = [p for p in proofs_of(session.contract, latents, batches) if session.takes(p.size)]
    tuned = [s for s in session.warm_sizes if s is not None and s not in [p.size for p in proofs[:1]]]
    proofs = [p for p in proofs if p.size not in tuned] + [Proof(s, fewer(latents), tuple(batches)) for s in tuned]
    return [replace(proofs[0], latents=latents, batches=tuple(batches)), *proofs[1:]]


def _meters(session: Session, comparison: Comparison, floors: Floors | None) -> dict[str, ParityMeter]:
    structure = (floors or floors_of(session.variant)) is not None
    return {t.name: ParityMeter(t, structure=structure) for t in comparison.spec.outputs}


def _runs(
    session: Session,
    proof: Proof,
    rows: Callable[[int, int], Arrays],
    progress: Progress | None,
) -> Iterator[tuple[int, int, Arrays]]:
    """Yields (first sample, batch, outputs): full batches, the last one filled up with further samples."""
    for batch in proof.batches:
        out = empty_outputs(spec_at(session.spec, proof.size), batch)
        for start in range(0, proof.latents, batch):
            session.run(rows(start, batch), out)
            yield start, batch, out
            if progress is not None:
                progress(min(batch, proof.latents - start))


def _finding(
    session: Session,
    meters: dict[str, ParityMeter],
    reference: str,
    proof: Proof,
    floors: Floors | None,
    rounding: float,
) -> Finding:
    verdict, problems = verdict_from(
        meters,
        precision=session.variant.precision,
        backend=session.backend,
        device=session.device,
        versions=session.versions(),
        reference=reference,
        latents=proof.latents,
        batches=proof.batches,
        floors=floors or floors_of(session.variant),
        rounding=rounding,
    )
    if proof.size is None:
        return Finding(verdict, problems)
    return Finding(
        replace(verdict, sizes=(proof.size,)), [f"at {size_text(proof.size)}: {problem}" for problem in problems]
    )


def over_sizes(findings: Sequence[Finding]) -> Finding:
    """One finding of several sizes: latents, batches and bound of the first, the worst figures of all."""
    if len(findings) == 1:
        return findings[0]
    verdicts = [f.verdict for f in findings]
    first = verdicts[0]
    errors = {name: worst_figure(name, [v.errors[name] for v in verdicts if name in v.errors]) for name in first.errors}
    verdict = replace(
        first,
        passed=all(v.passed for v in verdicts),
        errors=errors,
        sizes=tuple(size for v in verdicts for size in v.sizes),
    )
    return Finding(verdict, [problem for f in findings for problem in f.problems])


class _ReferenceSamples:
    """Reference outputs, computed when first needed and kept while they are small."""

    _LARGEST_CHUNK = 64
    _KEEP_BYTES = 1 << 30

    def __init__(self, spec: GeneratorSpec, evaluate: Evaluate, seed: int, proof: Proof) -> None:
        self._spec, self._evaluate, self._seed = spec, evaluate, seed
        # As many as the fullest run has: of large images those that nobody compares would take longest.
        needed = max(-(-proof.latents // batch) * batch for batch in proof.batches)
        self._chunk_rows = min(self._LARGEST_CHUNK, needed)
        self._kept: dict[int, Arrays] = {}
        row_bytes = sum(4 * t.size for t in spec.outputs)
        self._most = max(1, self._KEEP_BYTES // (row_bytes * self._chunk_rows))

    def rows(self, start: int, count: int) -> Arrays:
        """Inputs of samples start … start + count - 1; those past the last are simply further samples."""
        return probe_inputs(self._spec, self._seed, start, count)

    def outputs(self, start: int, count: int) -> Arrays:
        parts: list[Arrays] = []
        position = start
        while position < start + count:
            chunk = position // self._chunk_rows
            offset = position - chunk * self._chunk_rows
            take = min(self._chunk_rows - offset, start + count - position)
            whole = self._chunk(chunk)
            parts.append({name: array[offset : offset + take] for name, array in whole.items()})
            position += take
        return {t.name: np.concatenate([p[t.name] for p in parts]) for t in self._spec.outputs}

    def _chunk(self, chunk: int) -> Arrays:
        if chunk not in self._kept:
            if len(self._kept) >= self._most:
                self._kept.pop(next(iter(self._kept)))
            start = chunk * self._chunk_rows
            self._kept[chunk] = self._evaluate(probe_inputs(self._spec, self._seed, start, self._chunk_rows))
        return self._kept[chunk]
