"""The queue of a batcher, in virtual time: what is released, when, and in which order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from ganruntime.batcher_queue import BatchQueue, Release, Ticket


def queue(largest: int = 8, max_delay_s: float = 0.01, max_images: int = 100) -> BatchQueue:
    return BatchQueue(largest, max_delay_s, max_images)


def shape_of(release: Release | None) -> tuple[str, list[int]] | None:
    return None if release is None else (release.reason, [p.rows for p in release.parts])


def warm(q: BatchQueue, *, rows: int, seconds: float, now: float = 0.0) -> BatchQueue:
    """A queue whose last batch had so many rows and took so long."""
    q.add(Ticket(rows), now - seconds)
    assert q.release(now - seconds, draining=True) is not None
    q.finished(now, rows, seconds)
    return q


# When


def test_the_first_request_finds_the_device_idle_and_goes_at_once() -> None:
    q = queue()
    q.add(Ticket(1), 5.0)
    assert shape_of(q.release(5.0)) == ("idle", [1])


def test_while_the_device_is_busy_nothing_goes() -> None:
    q = queue()
    q.add(Ticket(1), 0.0)
    assert q.release(0.0) is not None
    q.add(Ticket(50), 0.0)
    assert q.release(99.0) is None
    assert q.wake_at(99.0) is None
    q.finished(99.0, 1, 99.0)
    assert shape_of(q.release(99.0)) == ("full", [8])


def test_full_comes_before_any_wait() -> None:
    q = warm(queue(), rows=8, seconds=1.0)
    q.add(Ticket(3), 0.0)
    q.add(Ticket(4), 0.0)
    assert q.release(0.0) is None
    q.add(Ticket(3), 0.0)
    assert shape_of(q.release(0.0)) == ("full", [3, 4, 1])
    assert q.pending_images == 2


def test_as_many_rows_are_awaited_as_the_last_batch_had() -> None:
    q = warm(queue(), rows=3, seconds=1.0)
    for _ in range(2):
        q.add(Ticket(1), 0.0)
        assert q.release(0.0) is None
    q.add(Ticket(1), 0.0)
    assert shape_of(q.release(0.0)) == ("idle", [1, 1, 1])


def test_nobody_waits_for_longer_than_the_last_batch_took() -> None:
    q = warm(queue(max_delay_s=10.0), rows=5, seconds=0.5)
    q.add(Ticket(1), 0.2)
    assert q.release(0.4) is None
    assert q.wake_at(0.4) == 0.5
    assert shape_of(q.release(0.5)) == ("idle", [1])


def test_nobody_waits_for_company_beyond_the_delay() -> None:
    q = warm(queue(max_delay_s=0.01), rows=5, seconds=0.5)
    q.add(Ticket(1), -0.005)
    assert q.release(0.0) is None
    assert q.wake_at(0.0) == pytest.approx(0.005)
    assert shape_of(q.release(0.005)) == ("delay", [1])


def test_a_lone_caller_never_waits() -> None:
    q = warm(queue(max_delay_s=10.0), rows=1, seconds=0.5)
    q.add(Ticket(1), 0.0)
    assert shape_of(q.release(0.0)) == ("idle", [1])


def test_without_a_delay_a_free_device_takes_what_there_is() -> None:
    q = warm(queue(max_delay_s=0.0), rows=8, seconds=0.5)
    q.add(Ticket(1), 0.0)
    assert shape_of(q.release(0.0)) == ("delay", [1])


def test_draining_waits_for_nobody() -> None:
    q = warm(queue(max_delay_s=10.0), rows=8, seconds=10.0)
    q.add(Ticket(1), 0.0)
    assert q.release(0.0) is None
    assert shape_of(q.release(0.0, draining=True)) == ("drain", [1])


# What


def test_a_request_larger_than_a_batch_is_split() -> None:
    q = queue(largest=4)
    q.add(big := Ticket(10), 0.0)
    found = []
    for _ in range(3):
        release = q.release(0.0)
        assert release is not None
        found += [(p.start, p.rows) for p in release.parts]
        q.finished(0.0, release.rows, 0.0)
    assert found == [(0, 4), (4, 4), (8, 2)]
    assert (big.left, len(q), q.pending_images) == (0, 0, 0)


def test_priority_comes_before_age() -> None:
    q = queue(largest=3)
    tickets = [Ticket(1, priority) for priority in (0, 5, 0, 5, -1)]
    for i, ticket in enumerate(tickets):
        q.add(ticket, float(i))
    first = q.release(10.0)
    assert first is not None
    assert [p.ticket for p in first.parts] == [tickets[1], tickets[3], tickets[0]]
    assert q.tickets() == [tickets[2], tickets[4]]


def test_groups_do_not_mix() -> None:
    q = queue()
    for group in ("a", "b", "a", "b"):
        q.add(Ticket(1, group=group), 0.0)
    for expected in ("a", "b"):
        release = q.release(10.0)
        assert release is not None
        assert [p.ticket.group for p in release.parts] == [expected, expected]
        q.finished(10.0, 2, 0.0)


def test_the_queue_is_bounded_in_images() -> None:
    q = queue(max_images=10)
    assert q.add(Ticket(6), 0.0)
    assert not q.add(Ticket(5), 0.0)
    assert q.add(Ticket(4), 0.0)
    assert (len(q), q.pending_images) == (2, 10)


def test_when_to_come_back_follows_the_pace() -> None:
    q = queue(largest=10, max_images=100)
    assert q.seconds_until_room(1) == 0.01  # nothing is known yet: the delay
    q = warm(q, rows=10, seconds=2.0)
    q.add(Ticket(100), 0.0)
    assert q.seconds_until_room(30) == pytest.approx(30 * 0.2)


def test_what_is_dropped_makes_room_and_never_runs() -> None:
    q = queue(max_images=10)
    tickets = [Ticket(2) for _ in range(5)]
    for ticket in tickets:
        q.add(ticket, 0.0)
    assert q.drop(tickets[0])
    assert not q.drop(tickets[0])
    assert q.drop(tickets[3])
    assert q.add(Ticket(4), 0.0)
    release = q.release(0.0)
    assert release is not None
    assert not {id(tickets[0]), id(tickets[3])} & {id(p.ticket) for p in release.parts}


def test_deadlines_expire_in_their_time() -> None:
    q = queue()
    early, late, none = Ticket(1, deadline=1.0), Ticket(1, deadline=2.0), Ticket(1)
    warm(q, rows=8, seconds=100.0)
    q.max_delay_s = 100.0
    for ticket in (late, early, none):
        q.add(ticket, 0.0)
    assert q.expired(0.9) == []
    assert q.wake_at(0.9) == 1.0
    assert q.expired(1.0) == [early]
    assert q.expired(5.0) == [late]
    assert q.tickets() == [none]


def test_a_part_that_ran_does_not_run_again_when_the_rest_expires() -> None:
    q = queue(largest=4)
    q.add(ticket := Ticket(6, deadline=1.0), 0.0)
    release = q.release(0.0)
    assert release is not None
    q.finished(2.0, 4, 2.0)
    assert q.expired(2.0) == [ticket]
    assert (len(q), q.pending_images) == (0, 0)
    assert q.release(2.0) is None


@pytest.mark.parametrize("deadline", [None, 1e9])
def test_tickets_that_left_are_not_kept(deadline: float | None) -> None:
    """Behind one of low priority that never goes: cancelled ones, and served ones with deadlines far away."""
    q = queue(largest=1, max_images=10_000)
    q.add(Ticket(1, priority=-1), 0.0)
    for i in range(5_000):
        ticket = Ticket(1, priority=i % 2, deadline=deadline)
        q.add(ticket, 0.0)
        if i % 3:
            q.drop(ticket)
        else:
            assert q.release(0.0) is not None
            q.finished(0.0, 1, 0.0)
    kept = sum(len(waiting) for waiting in q._waiting.values())
    assert len(q) == 1
    assert kept < 200
    assert len(q._deadlines) < 200


# Whatever the order


class Machine(RuleBasedStateMachine):
    """Against a model that is a plain list: every row is released once, in order, or leaves for a reason."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.q = BatchQueue(largest=5, max_delay_s=1.0, max_images=20)
        self.waiting: list[Ticket] = []
        self.running: Release | None = None
        self.served: dict[int, list[int]] = {}
        self.gone: set[int] = set()

    @rule(
        target=tickets,
        rows=st.integers(1, 12),
        priority=st.integers(-1, 1),
        patience=st.none() | st.floats(0.0, 3.0),
        group=st.sampled_from(["a", "b"]),
    )
    def add(self, rows: int, priority: int, patience: float | None, group: str) -> Ticket:
        deadline = None if patience is None else self.now + patience
        ticket = Ticket(rows, priority, deadline, group)
        room = 20 - sum(t.left for t in self.waiting)
        assert self.q.add(ticket, self.now) == (rows <= room)
        if rows <= room:
            self.waiting.append(ticket)
        return ticket

    @rule(ticket=consumes(tickets))
    def cancel(self, ticket: Ticket) -> None:
        assert self.q.drop(ticket) == (ticket in self.waiting)
        if ticket in self.waiting:
            self.waiting.remove(ticket)
            self.gone.add(id(ticket))

    @rule(seconds=st.floats(0.0, 2.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        dead = self.q.expired(self.now)
        assert {id(t) for t in dead} == {
            id(t) for t in self.waiting if t.deadline is not None and t.deadline <= self.now
        }
        for ticket in dead:
            self.waiting.remove(ticket)
            self.gone.add(id(ticket))

    @rule(draining=st.booleans())
    def release(self, draining: bool) -> None:
        before = [(t, t.left) for t in self.waiting]
        release = self.q.release(self.now, draining=draining)
        if release is None:
            pending = sum(left for _, left in before)
            overdue = any(t.arrived + 1.0 <= self.now for t, _ in before)
            assert self.running or not before or (pending < 5 and not overdue and not draining)
            return
        assert self.running is None
        assert 1 <= release.rows <= 5
        assert len({p.ticket.group for p in release.parts}) == 1
        assert all(id(p.ticket) not in self.gone for p in release.parts)
        priorities = [p.ticket.priority for p in release.parts]
        assert priorities == sorted(priorities, reverse=True)
        best = max(t.priority for t, _ in before)
        assert priorities[0] == best
        for part in release.parts:
            rows = self.served.setdefault(id(part.ticket), [])
            assert part.start == len(rows)
            rows += range(part.start, part.start + part.rows)
            if part.ticket.left == 0:
                self.waiting.remove(part.ticket)
        self.running = release

    @precondition(lambda self: self.running is not None)
    @rule(seconds=st.floats(0.0, 3.0))
    def finish(self, seconds: float) -> None:
        assert self.running is not None
        self.now += seconds
        self.q.finished(self.now, self.running.rows, seconds)
        self.running = None

    @invariant()
    def it_counts_what_waits(self) -> None:
        assert len(self.q) == len(self.waiting)
        assert self.q.pending_images == sum(t.left for t in self.waiting)

    @invariant()
    def it_says_when_to_look_again(self) -> None:
        """Whatever is due later is due at `wake_at` or after it, and at `wake_at` something is due."""
        wake = self.q.wake_at(self.now)
        if wake is None:
            assert self.running is not None or not self.waiting
            return
        assert math.isfinite(wake)
        assert wake >= self.now
        due = any(t.deadline is not None and t.deadline <= wake for t in self.waiting)
        assert due or self.q._reason(wake, False) is not None


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = Machine.TestCase


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.integers(1, 16))
def test_everything_that_waits_is_served_once_and_in_order(rows: list[int], largest: int) -> None:
    q = BatchQueue(largest, 1.0, 10_000)
    tickets = [Ticket(n) for n in rows]
    for ticket in tickets:
        q.add(ticket, 0.0)
    order = []
    while (release := q.release(0.0, draining=True)) is not None:
        order += [(id(p.ticket), p.start + i) for p in release.parts for i in range(p.rows)]
        q.finished(0.0, release.rows, 0.0)
    assert order == [(id(t), i) for t in tickets for i in range(t.rows)]
