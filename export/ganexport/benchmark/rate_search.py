"""The search for the highest rate that a server keeps up with: doubling, bisection, and a confirmation of its own."""

from __future__ import annotations

import math

_TOLERANCE = 1.05
_MOST_DOUBLINGS = 20
_MOST_HALVINGS = 6
_MOST_CONFIRMATIONS = 6


class RateSearch:
    """Says which rate to try next, and learns whether it held. One trial at a time, so that searches can take turns.

    1. The rate is doubled until a trial fails; where the first fails already, it is halved until one holds.
    2. The gap between the highest that held and the lowest that failed is halved, as a ratio, until it is 5 %.
    3. The rate is tried once more, on other arrivals: of several trials near the edge, one holds by luck. Where it
       fails, the rate goes down by 5 % and is tried again.
    """

    def __init__(self, start_rate: float) -> None:
        """`start_rate`: requests a second, above 0; a guess, a factor of two or four is no harm."""
        self._next: float | None = start_rate
        self._holds: float | None = None
        self._fails: float | None = None
        self._doublings = 0
        self._halvings = 0
        self._confirmations = 0
        self.found: float | None = None

    @property
    def next_rate(self) -> float | None:
        """What to try; None when the search has ended. `found` is then the rate, or None where none held."""
        return self._next

    @property
    def is_confirming(self) -> bool:
        """Whether the next trial is one of the third step."""
        return self._confirmations > 0

    def learn(self, held: bool) -> None:
        """What came of the trial at `next_rate`."""
        rate = self._next
        assert rate is not None
        if self._confirmations:
            self._confirmed(rate, held)
            return
        if held:
            self._holds = rate
        else:
            self._fails = rate
        if self._fails is None and self._doublings < _MOST_DOUBLINGS:
            self._doublings += 1
            self._next = 2 * rate
        elif self._holds is None:
            self._halvings += 1
            self._next = rate / 2 if self._halvings <= _MOST_HALVINGS else None
        elif self._fails is not None and self._fails / self._holds > _TOLERANCE:
            self._next = math.sqrt(self._holds * self._fails)
        else:
            self._confirmations, self._next = 1, self._holds

    def _confirmed(self, rate: float, held: bool) -> None:
        if held:
            self.found, self._next = rate, None
        elif self._confirmations < _MOST_CONFIRMATIONS:
            self._confirmations, self._next = self._confirmations + 1, rate / _TOLERANCE
        else:
            self._next = None
