"""Interleaved rounds: every contender runs a slice in every round, so that what slows the machine slows them all.

A contender measured whole before the next one meets another machine: another clock, other neighbours. Here the order
is rotated from round to round, ratios are taken within a round, and the median over the rounds is what is reported.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Call = Callable[[int], object]
Progress = Callable[[int], None]
Clock = Callable[[], float]

_LONGEST_SPIN_S = 0.3
_NAP_S, _IDLE_SHARE = 0.003, 0.3  # a thread that spins takes all of a nap, or half of it beside a busy neighbour


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value; the quartiles are nearest ranks, so they are values that occurred."""
        return cls(statistics.median(values), percentile(values, 25), percentile(values, 75))

    def to_json(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Timing:
    """What one contender took.

    rounds: in each round, the seconds of every call that counted.
    """

    rounds: tuple[tuple[float, ...], ...]

    @property
    def call_count(self) -> int:
        return sum(len(calls) for calls in self.rounds)

    @property
    def all_calls(self) -> list[float]:
        """The seconds of every call, over all rounds."""
        return [seconds for calls in self.rounds for seconds in calls]

    def means(self) -> list[float]:
        """Seconds per call in each round, its whole time over its calls: what a throughput is made of."""
        return [math.fsum(calls) / len(calls) for calls in self.rounds]

    def medians(self) -> list[float]:
        """Seconds of the median call in each round: deaf to a neighbour's burst, so what an overhead is made of."""
        return [statistics.median(calls) for calls in self.rounds]


def interleaved(
    contenders: Mapping[str, Call],
    *,
    rounds: int,
    slice_seconds: float,
    least_calls: int = 1,
    clock: Clock = time.perf_counter,
    progress: Progress | None = None,
    failures: dict[str, Exception] | None = None,
) -> dict[str, Timing]:
    """Times contenders in turns: A B C, B C A, C A B, …

    A slice begins when the threads of the contender before have stopped spinning (`settle`), with one call that does
    not count: it wakes this contender's threads. Python's garbage collector runs between slices, not in them.

    Args:
        contenders: name -> a function of the call's number, which counts up and chooses the input.
        rounds: how many; at least 1.
        slice_seconds: how long a contender runs in a round, at least; the last call is always finished.
        least_calls: calls that count in a slice, at least.
        clock: seconds; `time.process_time` counts this process's CPU time, whatever the neighbours do.
        progress: called with 1 after each slice.
        failures: where it is given, a contender that raises takes no more turns, its error goes in there, and it has
            no timing; otherwise the error ends everything.
    """
    gc.collect()
    gc.freeze()  # so that a collection between slices takes microseconds, not a walk over every object of every library
    try:
        return _interleaved(contenders, rounds, slice_seconds, least_calls, clock, progress, failures)
    finally:
        gc.unfreeze()


def _interleaved(
    contenders: Mapping[str, Call],
    rounds: int,
    slice_seconds: float,
    least_calls: int,
    clock: Clock,
    progress: Progress | None,
    failures: dict[str, Exception] | None,
) -> dict[str, Timing]:
    failed = {} if failures is None else failures
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in contenders}
    made = dict.fromkeys(contenders, 0)
    names = list(contenders)
    for name, call in contenders.items():
        with _noting(name, failures):  # the first run of a shape allocates, tunes and compiles
            call(0)
            call(0)
    for number in range(rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            if name in failed:
                continue
            with _noting(name, failures):
                calls = _slice(contenders[name], made[name], slice_seconds, least_calls, clock)
                made[name] += len(calls)
                taken[name].append(tuple(calls))
            if progress is not None:
                progress(1)
    return {name: Timing(tuple(of_rounds)) for name, of_rounds in taken.items() if name not in failed}


@contextlib.contextmanager
def _noting(name: str, failures: dict[str, Exception] | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if failures is None:
            raise
        failures[name] = error


def settle(limit_s: float = _LONGEST_SPIN_S) -> None:
    """Returns when no other thread of this process computes any more, or after the limit.

    ONNX Runtime's threads spin for 40 ms after their last run, in case there is another. Meanwhile whoever comes next
    has a core less: of a network that takes 0.1 ms, on two cores, 40 ms are a third of a slice at half the speed.
    """
    end = time.perf_counter() + limit_s
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(_NAP_S)
        if time.process_time() - before < _IDLE_SHARE * _NAP_S:
            return


def _slice(call: Call, first: int, slice_seconds: float, least_calls: int, clock: Clock) -> list[float]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        settle()
        call(first)
        number, calls = first, []
        end = clock() + slice_seconds
        while True:
            start = clock()
            call(number)
            stop = clock()
            calls.append(stop - start)
            number += 1
            if stop >= end and len(calls) >= least_calls:
                return calls
    finally:
        if was_enabled:
            gc.enable()


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """The ratio of two contenders' figures, taken round by round, and then the median over the rounds."""
    return Spread.of([a / b for a, b in zip(numerator, denominator, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value with at least `percent` % of the values at or below it."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
