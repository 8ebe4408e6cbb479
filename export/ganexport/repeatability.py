"""Whether a session gives the same bits when it is run again: what (seed, index) stands for, on devices that add in
whatever order their threads come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ganexport.gate import golden_samples_for
from ganexport.golden import GoldenSamples
from ganruntime.bundle import Variant, Verdict
from ganruntime.bundle.variant import REPEAT_GAP
from ganruntime.generator import Generator
from ganruntime.sessions.base import Session

RUNS = 4
_ROWS = 64


def gap_between_runs(session: Session, golden: GoldenSamples) -> float:
    """The largest distance between outputs of the same inputs, run four times in the session's own batches of at most
    64 in all; 0.0 for the same bits. NaN beside a number is infinitely far away."""
    samples = golden_samples_for(session, golden)[0]
    inputs = {name: array[:_ROWS] for name, array in samples.inputs.items()}
    generator = Generator(session)  # not closed: the session is its opener's
    first = {name: array.copy() for name, array in generator.outputs(inputs).items()}
    gap = 0.0
    for _ in range(RUNS - 1):
        for name, again in generator.outputs(inputs).items():
            if again.tobytes() != first[name].tobytes():
                apart = np.abs(again.astype(np.float64) - first[name].astype(np.float64))
                # Other bits of the same value, as 0.0 and -0.0 are, count too.
                gap = max(gap, float(np.nan_to_num(apart, nan=np.inf).max()), np.finfo(np.float64).tiny)
    return gap


def with_gap(verdict: Verdict, gap: float) -> Verdict:
    """The verdict with what `gap_between_runs` found, which a load on a GPU goes by."""
    return replace(verdict, errors={**verdict.errors, REPEAT_GAP: gap})


def twin_of(variant: Variant, gaps: Mapping[str, float], variants: Sequence[Variant]) -> Variant | None:
    """Another variant of the same precision, to values, that gives the same bits again, if one ran: what a load takes,
    for pixels too, unless it is asked for another by name."""
    return next(
        (v for v in variants if v.precision == variant.precision and v.output == "float" and gaps.get(v.name) == 0.0),
        None,
    )
