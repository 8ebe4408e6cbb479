"""Picking: the fastest configuration for an objective; among those that are as good as equal, the least surprising."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ganexport.tuning.configurations import Configuration
from ganruntime.bundle import Bundle, Pick, Untuned

TIE = 0.03  # two runs of the same configuration differ by as much


def bucket_for(objective: str, buckets: Sequence[int]) -> int:
    """The bucket that an objective is measured in: the largest for throughput, the smallest for latency."""
    return max(buckets) if objective == "throughput" else min(buckets)


def cost(objective: str, bucket: int, seconds: float) -> float:
    """What an objective wants small, in seconds: per image for throughput, for the whole batch for latency."""
    return seconds / bucket if objective == "throughput" else seconds


def fastest(costs: Mapping[Configuration, float], in_order: Sequence[Configuration]) -> Configuration:
    """The first in order that is within `TIE` of the fastest.

    Args:
        costs: of what was timed.
        in_order: the configurations that may be picked, preferred ones first: what runs without a tuning, then the
            variants in the bundle's order. At least one was timed.
    """
    timed = [c for c in in_order if c in costs]
    limit = min(costs[c] for c in timed) * (1 + TIE)
    return next(c for c in timed if costs[c] <= limit)


def pick_from(
    bundle: Bundle,
    chosen: Configuration,
    bucket: int,
    seconds: float,
    untuned: tuple[Configuration, float] | None,
    configurations: int,
) -> Pick:
    """The record of a choice. untuned: what runs without it, and its seconds for as large a batch."""
    return Pick(
        backend=chosen.backend,
        variant=chosen.variant,
        file_sha256=bundle.manifest.files[bundle.variant(chosen.variant).file].sha256,
        threads=chosen.threads,
        streams=chosen.streams,
        bucket=bucket,
        milliseconds=seconds * 1000,
        untuned=None if untuned is None else Untuned(untuned[0].backend, untuned[0].variant, untuned[1] * 1000),
        configurations=configurations,
    )
