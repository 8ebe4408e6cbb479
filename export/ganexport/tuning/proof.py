"""Proof before a time counts: what a configuration draws is what its variant's verdict is about.

The configuration without settings is held against the golden samples, in every bucket. Any other one has to give the
bits of that one, in every bucket: so that whoever loads a tuned bundle gets, of the same variant on the same backend in
the same bucket, the very images of an untuned one. Threads and streams usually change none; where they do (a sum that
is cut into other parts), the configuration is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ganexport.gate import verdict_against_golden
from ganexport.golden import Arrays, GoldenSamples
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sizes import spec_at

SAMPLES = 64


def first_samples(golden: GoldenSamples, count: int = SAMPLES) -> GoldenSamples:
    """The first samples, of the default size."""

    def cut(arrays: Arrays) -> Arrays:
        return {name: array[:count] for name, array in arrays.items()}

    return replace(
        golden,
        inputs=cut(golden.inputs),
        whole=cut(golden.whole),
        elements=cut(golden.elements),
        others=(),
    )


def problems_against_golden(session: Session, golden: GoldenSamples, reference: str) -> list[str]:
    """What does not hold of a configuration without settings, over a few samples in every bucket of the session."""
    return verdict_against_golden(session, golden, reference, session.buckets).problems


def outputs_per_bucket(session: Session, golden: GoldenSamples) -> dict[int, Arrays]:
    """{bucket: {output: [bucket, *shape]}} of the first golden inputs."""
    spec = spec_at(session.spec, golden.size)
    found = {}
    for bucket in session.buckets:
        out = empty_outputs(spec, bucket)
        session.run(golden.rows(0, bucket), out)
        found[bucket] = out
    return found


def differing_buckets(one: dict[int, Arrays], other: dict[int, Arrays]) -> Sequence[int]:
    """The buckets in which two configurations differ in any bit. A NaN differs from nothing but other bits."""
    return [bucket for bucket in one if any(_bits(one[bucket][k]) != _bits(other[bucket][k]) for k in one[bucket])]


def _bits(array: NDArray[np.generic]) -> bytes:
    return array.tobytes()
