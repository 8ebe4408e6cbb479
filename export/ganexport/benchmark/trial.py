"""A trial: requests sent to a server at their scheduled times, and how long each took from then.

Latency is counted from when a request was due, not from when it was sent: a sender that waits for a slow server and
stamps the actual sending hides exactly the requests that had to wait (coordinated omission; MLPerf's server scenario
counts in the same way).
"""

from __future__ import annotations

import gc
import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganexport.benchmark.rounds import percentile
from ganruntime.errors import Overloaded

LATE_SHARE = 0.01  # p99: one in a hundred may be late
_LONGEST_DRAIN_S = 60.0


@dataclass(frozen=True)
class Trial:
    """What came of one rate.

    Attributes:
        rate_per_second: that the requests were scheduled at.
        requests: how many were due; late: answered after the limit, or not at all; refused: of those, how many the
            server did not take.
        p50_ms, p90_ms, p99_ms: over all requests, from the scheduled time; None where the trial was stopped, because
            so many were late already that the rest could not mend it.
        longest_ms: of all answers that came.
        seconds: from the first schedule to the last answer.
    """

    rate_per_second: float
    requests: int
    late: int
    refused: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    longest_ms: float
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the 99th percentile (nearest rank) was within the limit."""
        return self.p99_ms is not None and self.late <= allowed_late(self.requests)

    @property
    def confidence(self) -> float:
        """How sure it is that of all requests at this rate at most 1 % are late: 1 - P(so few or fewer | 1 %).

        From the binomial distribution (Clopper and Pearson, 1934, one-sided), as if requests were late independently
        of each other. They come in bursts, so take it as an upper end.
        """
        return 1.0 - binomial_cdf(self.late, self.requests, LATE_SHARE)


class WallTime:
    """The time of a real trial. A test brings its own, in which nobody waits."""

    def now(self) -> float:
        return time.perf_counter()

    def sleep_until(self, at: float) -> None:
        while (left := at - time.perf_counter()) > 0:
            time.sleep(left)

    def wait_for(self, futures: Sequence[Future[Any]], until: float) -> None:
        """Returns when all are done, or at `until`."""
        wait(futures, timeout=max(0.0, until - time.perf_counter()))


def run_trial(
    submit: Callable[[int], Future[Any]],
    arrivals: NDArray[np.float64],
    rate_per_second: float,
    limit_s: float,
    times: WallTime | None = None,
) -> Trial:
    """Sends request i when `arrivals[i]` is due, whether or not the ones before have their answers.

    Args:
        submit: sends request i and returns at once; may raise `Overloaded`.
        arrivals: float64 [n], seconds from the start, ascending.
        limit_s: the latency that 99 % have to keep.

    Raises:
        Exception: the error of a request that failed; the trial is then none.
    """
    times = times or WallTime()
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _Run(submit, [float(at) for at in arrivals], limit_s, times).result(rate_per_second)
    finally:
        if was_enabled:
            gc.enable()


class _Run:
    """The state of a trial. `_answered` is called in the server's threads."""

    def __init__(
        self, submit: Callable[[int], Future[Any]], arrivals: list[float], limit_s: float, times: WallTime
    ) -> None:
        self._submit, self._arrivals, self._limit_s, self._times = submit, arrivals, limit_s, times
        self._allowed = allowed_late(len(arrivals))
        self._latencies: list[float | None] = [None] * len(arrivals)
        self._lock = threading.Lock()
        self._in_time = 0
        self._error: BaseException | None = None
        self._start = 0.0

    def result(self, rate_per_second: float) -> Trial:
        # The first request is due a little later, so that it is not late before it starts.
        self._start = self._times.now() + 1e-3
        futures: list[Future[Any]] = []
        refused, stopped = 0, False
        for i, due in enumerate(self._arrivals):
            self._times.sleep_until(self._start + due)
            if self._surely_late() > self._allowed or self._error is not None:
                stopped = True
                break
            try:
                future = self._submit(i)
            except Overloaded:
                refused += 1
                continue
            future.add_done_callback(lambda done, i=i: self._answered(done, i))  # type: ignore[misc]
            futures.append(future)
        if not stopped:
            self._times.wait_for(futures, self._start + self._arrivals[-1] + self._limit_s)
            stopped = self._surely_late() > self._allowed
        if stopped or self._error is not None:
            for future in futures:
                future.cancel()
        self._times.wait_for(futures, self._times.now() + _LONGEST_DRAIN_S)
        if self._error is not None:
            raise self._error
        return self._trial(rate_per_second, refused, stopped)

    def _trial(self, rate_per_second: float, refused: int, stopped: bool) -> Trial:
        took = [seconds for seconds in self._latencies if seconds is not None]
        in_time = sum(seconds <= self._limit_s for seconds in took)
        # A request without an answer took for ever; its rank counts, its time has none.
        all_taken = took + [math.inf] * (len(self._latencies) - len(took))
        figures = [1e3 * percentile(all_taken, percent) for percent in (50, 90, 99)]
        is_whole = not stopped and all(math.isfinite(figure) for figure in figures)
        p50_ms, p90_ms, p99_ms = figures if is_whole else (None, None, None)
        return Trial(
            rate_per_second=rate_per_second,
            requests=len(self._latencies),
            late=len(self._latencies) - in_time,
            refused=refused,
            p50_ms=p50_ms,
            p90_ms=p90_ms,
            p99_ms=p99_ms,
            longest_ms=1e3 * max(took, default=0.0),
            seconds=self._times.now() - self._start,
        )

    def _answered(self, future: Future[Any], i: int) -> None:
        now = self._times.now()
        if future.cancelled():
            return
        error = future.exception()
        with self._lock:
            if error is not None:
                self._error = self._error or error
                return
            latency = now - (self._start + self._arrivals[i])
            self._latencies[i] = latency
            self._in_time += latency <= self._limit_s

    def _surely_late(self) -> int:
        """At least so many are late: they were due longer ago than the limit, and no answer came in time."""
        due = bisect_right(self._arrivals, self._times.now() - self._start - self._limit_s)
        return due - self._in_time


def allowed_late(requests: int) -> int:
    """How many of them may be late while the nearest-rank 99th percentile is in time."""
    return requests - math.ceil((1 - LATE_SHARE) * requests - 1e-9)


def binomial_cdf(most: int, n: int, p: float) -> float:
    """P(X <= most) for X ~ B(n, p), 0 < p < 1."""
    if most >= n:
        return 1.0
    log_terms = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(most + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in log_terms))
