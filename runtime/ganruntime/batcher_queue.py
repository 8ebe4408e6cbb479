"""The queue of a batcher: which rows go next, and when. A pure state machine that is told the time.

A batch is released when the device is free and one of these holds, asked in this order:

1. `full`: the largest bucket is full.
2. `drain`: the batcher is closing.
3. `delay`: the oldest request has waited `max_delay_s`.
4. `idle`: there is nobody to wait for. Callers tend to come back with their next request when they have their answer,
   so as many rows are awaited as the last batch had; at most for as long as that batch took, and not beyond 3. After
   that, and for as many rows, a free device takes what there is at once.

Without the wait in 4, callers that come back together would split into the one who is first and everybody else, and on
a device where a batch of one takes as long as a full one, half of its time would be lost.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

REASONS = ("full", "drain", "delay", "idle")
# Tickets that left from behind others are swept out when there are more of them than of those, and than this.
_SWEEP_ABOVE = 64


@dataclass(eq=False)
class Ticket:
    """A request in the queue.

    Attributes:
        rows: how many it has; `taken` of them have been given to batches.
        priority: higher ones go first; among equals, the older one.
        deadline: when it is no longer wanted, on the queue's clock.
        group: requests of different groups never share a batch.
        payload: the caller's own.
    """

    rows: int
    priority: int = 0
    deadline: float | None = None
    group: Hashable = None
    payload: Any = None
    arrived: float = 0.0
    taken: int = 0
    is_live: bool = False

    @property
    def left(self) -> int:
        return self.rows - self.taken

    def is_late(self, now: float) -> bool:
        return self.deadline is not None and self.deadline <= now


@dataclass(frozen=True)
class Part:
    """Rows [start, start + rows) of a ticket."""

    ticket: Ticket
    start: int
    rows: int


@dataclass(frozen=True)
class Release:
    """A batch: parts in the order of its rows, and why it was released."""

    parts: tuple[Part, ...]
    reason: str

    @property
    def rows(self) -> int:
        return sum(p.rows for p in self.parts)


@dataclass
class BatchQueue:
    """Tickets by priority and age, and a device that is free or busy.

    Args:
        largest: rows of the largest batch.
        max_delay_s: how long a request may wait for company.
        max_images: rows that may wait.
    """

    largest: int
    max_delay_s: float
    max_images: int
    pending_images: int = 0
    is_busy: bool = False
    _waiting: dict[int, deque[Ticket]] = field(default_factory=dict)
    _deadlines: list[tuple[float, int, Ticket]] = field(default_factory=list)
    _live: int = 0
    _gone: int = 0
    _count: int = 0
    _last_end: float = float("-inf")
    _last_rows: int = 0
    _last_seconds: float = 0.0
    _seconds_per_row: float = 0.0

    def __len__(self) -> int:
        return self._live

    def add(self, ticket: Ticket, now: float) -> bool:
        """Queues a ticket. False, and nothing queued, where its rows do not fit beside those that wait."""
        if self.pending_images + ticket.rows > self.max_images:
            return False
        self._count += 1
        ticket.arrived, ticket.is_live = now, True
        self._waiting.setdefault(ticket.priority, deque()).append(ticket)
        self._live += 1
        self.pending_images += ticket.rows
        if ticket.deadline is not None:
            heapq.heappush(self._deadlines, (ticket.deadline, self._count, ticket))
            if len(self._deadlines) > 2 * (self._live + _SWEEP_ABOVE):  # most are of tickets that were served in time
                self._deadlines = [entry for entry in self._deadlines if entry[2].is_live]
                heapq.heapify(self._deadlines)
        return True

    def seconds_until_room(self, rows: int) -> float:
        """How long it should take until `rows` more fit, at the pace of late; at least a millisecond."""
        excess = self.pending_images + rows - self.max_images
        return max(excess * (self._seconds_per_row or self.max_delay_s), self.max_delay_s, 1e-3)

    def drop(self, ticket: Ticket) -> bool:
        """Takes a ticket out, its remaining rows with it. False where it has left already."""
        if not ticket.is_live:
            return False
        self.pending_images -= ticket.left
        self._leave(ticket)
        return True

    def expired(self, now: float) -> list[Ticket]:
        """Takes out the tickets whose deadline has come, and returns them."""
        dead = []
        while self._deadlines and (not self._deadlines[0][2].is_live or self._deadlines[0][0] <= now):
            ticket = heapq.heappop(self._deadlines)[2]
            if self.drop(ticket):
                dead.append(ticket)
        self._sweep()
        return dead

    def tickets(self) -> list[Ticket]:
        """Those that wait, in the order in which they would go."""
        return list(self._in_order())

    def release(self, now: float, *, draining: bool = False) -> Release | None:
        """The next batch, if it is time for one; the device is busy from then on, until `finished`."""
        reason = self._reason(now, draining)
        if reason is None:
            return None
        parts: list[Part] = []
        room = self.largest
        group: Hashable = None
        for ticket in self._in_order():
            if parts and ticket.group != group:
                continue
            group = ticket.group
            rows = min(room, ticket.left)
            parts.append(Part(ticket, ticket.taken, rows))
            room -= rows
            if room == 0:
                break
        for part in parts:
            part.ticket.taken += part.rows
            self.pending_images -= part.rows
            if part.ticket.left == 0:
                self._leave(part.ticket)
        self._sweep()
        self.is_busy = True
        return Release(tuple(parts), reason)

    def finished(self, now: float, rows: int, seconds: float) -> None:
        """The device is free again, after `rows` that took `seconds`."""
        self.is_busy = False
        self._last_end, self._last_rows, self._last_seconds = now, rows, seconds
        if rows:
            pace = seconds / rows
            self._seconds_per_row = 0.8 * self._seconds_per_row + 0.2 * pace if self._seconds_per_row else pace

    def wake_at(self, now: float) -> float | None:
        """When to look again though nothing else happens; None where only an event can change anything."""
        if self.is_busy or not self._live:
            return None
        times = [self._oldest() + self.max_delay_s, self._last_end + self._patience_s]
        while self._deadlines and not self._deadlines[0][2].is_live:
            heapq.heappop(self._deadlines)
        if self._deadlines:
            times.append(self._deadlines[0][0])
        return max(now, min(times))

    @property
    def _patience_s(self) -> float:
        return min(self.max_delay_s, self._last_seconds)

    def _reason(self, now: float, draining: bool) -> str | None:
        if self.is_busy or not self._live:
            return None
        if self.pending_images >= self.largest:
            return "full"
        if draining:
            return "drain"
        if now >= self._oldest() + self.max_delay_s:
            return "delay"
        if self.pending_images >= self._last_rows or now >= self._last_end + self._patience_s:
            return "idle"
        return None

    def _oldest(self) -> float:
        """When the oldest live ticket arrived."""
        return min(ticket.arrived for ticket in (self._front(q) for q in self._waiting.values()) if ticket is not None)

    def _front(self, waiting: deque[Ticket]) -> Ticket | None:
        while waiting and not waiting[0].is_live:
            waiting.popleft()
            self._gone -= 1
        return waiting[0] if waiting else None

    def _in_order(self) -> Iterator[Ticket]:
        for priority in sorted(self._waiting, reverse=True):
            for ticket in self._waiting[priority]:
                if ticket.is_live:
                    yield ticket

    def _leave(self, ticket: Ticket) -> None:
        ticket.is_live = False
        self._live -= 1
        self._gone += 1

    def _sweep(self) -> None:
        """Forgets tickets that left: those at the front always, those behind others once there are many."""
        thorough = self._gone > max(self._live, _SWEEP_ABOVE)
        for priority in list(self._waiting):
            if thorough:
                self._waiting[priority] = deque(t for t in self._waiting[priority] if t.is_live)
            if self._front(self._waiting[priority]) is None:
                del self._waiting[priority]
        if thorough:
            self._gone = 0
