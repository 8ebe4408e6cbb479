"""Turns: times of all configurations in one bucket, in interleaved rounds, most of the time for those that are close.

First every configuration takes one turn. Those whose best call is far behind the fastest's are out: their one time
stands in the table, and they are not picked. The others take turns in rounds whose order rotates
(`ganexport.benchmark.rounds`), and the median counts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ganexport.benchmark.rounds import Clock, interleaved

ROUNDS = 5
FAR_BEHIND = 1.5  # the best of a turn's calls is off by less, even on a machine with neighbours
_FIRST_CALLS = 3
_FIRST_SHARE = 0.3  # of the time, for the first turns

Call = Callable[[int], object]


@dataclass(frozen=True)
class Time:
    """seconds: the median of a batch. rounds: in how many turns it was measured; 1 where it was far behind."""

    seconds: float
    rounds: int

    @property
    def counts(self) -> bool:
        """Whether it was measured beside the fastest, and may be picked."""
        return self.rounds == ROUNDS


def times(
    calls: Mapping[str, Call],
    seconds: float,
    *,
    always: frozenset[str] = frozenset(),
    failures: dict[str, Exception],
    clock: Clock = time.perf_counter,
) -> dict[str, Time]:
    """Times {name: call}, in about `seconds` altogether.

    Args:
        always: names that stay to the end, however far behind, because others are compared with them.
        failures: a call that raises takes no more turns, and its error goes in there.
    """
    first_slice = seconds * _FIRST_SHARE / max(1, len(calls))
    first = interleaved(
        calls, rounds=1, slice_seconds=first_slice, least_calls=_FIRST_CALLS, failures=failures, clock=clock
    )
    if not first:
        return {}
    best = {name: min(timing.all_calls) for name, timing in first.items()}
    limit = FAR_BEHIND * min(best.values())
    close = {name: calls[name] for name in first if best[name] <= limit or name in always}
    turn = seconds * (1 - _FIRST_SHARE) / (len(close) * ROUNDS)
    timed = interleaved(close, rounds=ROUNDS, slice_seconds=turn, failures=failures, clock=clock)
    found = {name: Time(statistics.median(timing.medians()), 1) for name, timing in first.items()}
    found |= {name: Time(statistics.median(timing.medians()), ROUNDS) for name, timing in timed.items()}
    return {name: found_time for name, found_time in found.items() if name not in failures}
