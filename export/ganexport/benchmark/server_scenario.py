"""MLPerf's server scenario: Poisson arrivals, and the highest rate that keeps the 99th percentile within a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ganexport.benchmark.agreement import check_served
from ganexport.benchmark.arrivals import poisson_arrivals
from ganexport.benchmark.contender import Arrays
from ganexport.benchmark.lineup import Absent, why_from_error
from ganexport.benchmark.rate_search import RateSearch
from ganexport.benchmark.result import Served
from ganexport.benchmark.servers import Server
from ganexport.benchmark.trial import Trial, WallTime, run_trial
from ganruntime.spec import GeneratorSpec

MOST_REQUESTS = 1_000_000
# A trial that is not much longer than the limit passes at any rate: all requests at once are answered within it. At
# twice the capacity half of these limits' time is the backlog at the end.
_TRIAL_LIMITS = 10


def serve_all(
    servers: Sequence[Server],
    spec: GeneratorSpec,
    pool: Sequence[Arrays],
    expected: Sequence[Arrays],
    *,
    slo_ms: float,
    least_requests: int,
    least_seconds: float,
    start_rates: Mapping[str, float],
    seed: int,
    say: Callable[[str], None] = lambda line: None,
    times: WallTime | None = None,
) -> tuple[dict[str, Served], dict[str, Absent]]:
    """Searches for all servers, a trial of each in turn, so that what slows the machine slows them all.

    Args:
        pool: single requests to go round in; expected: what the reference gives for them.
        least_requests, least_seconds: how long a trial is; both hold, and it is ten
            times as long as the limit.
        start_rates: requests a second to begin with, by the server's name.
        seed: of the arrivals. Every trial has a pattern of its own, the k-th trial of each server the same one.

    Returns:
        What was found by server, and who failed.
    """
    searches: dict[str, _Search] = {}
    absent: dict[str, Absent] = {}
    for server in servers:
        say(f"server: checking {server.label}")
        try:
            check_served(server.submit, server.label, server.floors, spec, pool, expected)
        except Exception as error:
            absent[f"{server.name}, server"] = Absent(server.label, why_from_error(error), failed=True)
            continue
        searches[server.name] = _Search(server, RateSearch(start_rates[server.name]))
    while going := [s for s in searches.values() if s.rates.next_rate is not None]:
        for search in going:
            rate = search.rates.next_rate
            assert rate is not None
            say(f"server: {search.server.label} at {rate:.0f} requests/s")
            seconds = max(least_seconds, _TRIAL_LIMITS * slo_ms / 1e3)
            count = min(MOST_REQUESTS, max(least_requests, math.ceil(rate * seconds)))
            arrivals = poisson_arrivals(seed, rate, count, stream=len(search.trials))
            try:
                search.run(arrivals, rate, pool, slo_ms / 1e3, times)
            except Exception as error:
                absent[f"{search.server.name}, server"] = Absent(
                    search.server.label, why_from_error(error), failed=True
                )
                del searches[search.server.name]
    return {name: search.served() for name, search in searches.items()}, absent


class _Search:
    """A server with its search and its trials so far."""

    def __init__(self, server: Server, rates: RateSearch) -> None:
        self.server, self.rates = server, rates
        self.trials: list[Trial] = []
        self._images_per_batch = 1.0

    def run(
        self, arrivals: NDArray[np.float64], rate: float, pool: Sequence[Arrays], limit_s: float, times: WallTime | None
    ) -> None:
        self.server.images_per_batch()  # from here on
        trial = run_trial(lambda i: self.server.submit(pool[i % len(pool)]), arrivals, rate, limit_s, times)
        self._images_per_batch = self.server.images_per_batch()
        self.trials.append(trial)
        self.rates.learn(trial.passed)

    def served(self) -> Served:
        found = self.rates.found
        trial = self.trials[-1] if found is not None else None
        return Served(
            label=self.server.label,
            includes=self.server.includes,
            rate_per_second=found or 0.0,
            trial=trial,
            confidence=trial.confidence if trial is not None else 0.0,
            images_per_batch=self._images_per_batch if trial is not None else 0.0,
            trials=tuple(self.trials),
        )
