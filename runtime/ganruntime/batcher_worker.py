"""The thread of a batcher: takes batches from the queue, runs them, and answers each request with its own rows.

It sleeps until the queue says that a batch is due (`ganruntime.batcher_queue`). A thread that waits in `Batcher.run`
may be lent to it for a batch, while its own request is the only one. What threads share, the queue and the counters,
is touched under one lock; a batch runs, and futures are answered, outside it.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable

from ganruntime.batcher_jobs import Images, Job, request_of_parts
from ganruntime.batcher_queue import BatchQueue, Part, Release, Ticket
from ganruntime.batcher_stats import BatcherStats, Counters
from ganruntime.buckets import computed_rows
from ganruntime.errors import BackendError, BatcherClosed, DeadlineExceeded, GanError, Overloaded
from ganruntime.requests import Request


class BatchWorker:
    """Runs what is put into a queue, one batch at a time.

    Args:
        queue: of tickets whose payload is a `Job`.
        draw: gives a request's images.
        buckets: batch sizes that are run, for the counters.
        clock: seconds, as `time.monotonic` gives them.
    """

    def __init__(
        self,
        queue: BatchQueue,
        draw: Callable[[Request], Images],
        buckets: tuple[int, ...],
        clock: Callable[[], float],
    ) -> None:
        self.thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._queue = queue
        self._draw = draw
        self._buckets = buckets
        self._clock = clock
        self._counters = Counters()
        self._changed = threading.Condition(self._lock)
        self._is_waiting = False
        self._is_closing = False
        self._lent: threading.Thread | None = None  # a thread in `run` that runs its own batch
        self._pid = os.getpid()

    def start(self, name: str) -> None:
        """Works in a thread of its own from now on, until it is closed; at the exit of the interpreter that is done."""
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.thread.start()
        _started.add(self)

    def put(self, ticket: Ticket, wakes: bool) -> None:
        """Queues a ticket. Unless it `wakes` the thread, somebody has to (`lend_thread`).

        Raises:
            BatcherClosed, Overloaded: nothing was queued.
        """
        with self._lock:
            if self._is_closing:
                raise BatcherClosed("the batcher is closed")
            if not self._queue.add(ticket, self._clock()):
                self._counters.refused += 1
                raise Overloaded(
                    "the queue is full",
                    retry_after_s=self._queue.seconds_until_room(ticket.rows),
                    got=f"{ticket.rows:,} images more, and {self._queue.pending_images:,} wait",
                    expected=f"at most {self._queue.max_images:,}",
                )
            self._counters.submitted += 1
            if wakes and self._is_waiting:
                self._changed.notify()

    def stats(self) -> BatcherStats:
        with self._lock:
            return self._counters.snapshot(len(self._queue), self._queue.pending_images)

    def close(self, drain: bool) -> None:
        """As `Batcher.close`."""
        if os.getpid() != self._pid:  # a forked process has the queue's memory, and nobody who works on it
            return
        abandoned: list[Ticket] = []
        with self._lock:
            self._is_closing = True
            if not drain:
                abandoned = self._queue.tickets()
                for ticket in abandoned:
                    self._queue.drop(ticket)
            self._changed.notify_all()
        for ticket in abandoned:
            self._fail(ticket, BatcherClosed("the batcher was closed before the request was drawn"))
        if self.thread is None:
            while self.step():
                pass
        elif self.thread is not threading.current_thread():  # a callback of a future may close us
            self.thread.join()

    def step(self) -> bool:
        """Does what is due now: fails what has expired, and runs a batch if it is time for one. Whether it did any."""
        with self._lock:
            expired, release = self._due()
        self._act(expired, release)
        return bool(expired or release)

    def _work(self) -> None:
        try:
            while True:
                with self._lock:
                    expired, release = self._due()
                    while not expired and release is None:
                        if self._is_closing and len(self._queue) == 0 and not self._queue.is_busy:
                            return
                        now = self._clock()
                        wake = self._queue.wake_at(now)
                        self._is_waiting = True
                        self._changed.wait(None if wake is None else wake - now)
                        self._is_waiting = False
                        expired, release = self._due()
                self._act(expired, release)
        except BaseException as error:
            # Not a batch that failed: those are handled. Whoever waits is told rather than left.
            self._give_up(error)
            raise
        finally:
            _started.discard(self)

    def lend_thread(self, ticket: Ticket) -> None:
        """Runs a request as long as no other is queued and the device is free; else wakes the batcher's thread."""
        # What signal handlers raise, Ctrl-C first of all, comes in the main thread, and is no error of the batch.
        caught = Exception if threading.current_thread() is threading.main_thread() else BaseException
        while True:
            with self._lock:
                now = self._clock()
                release = None
                if ticket.is_live and len(self._queue) == 1 and not self._queue.is_busy and not ticket.is_late(now):
                    release = self._released(now)
                if release is None:
                    if ticket.is_live and self._is_waiting:
                        self._changed.notify()
                    return
                self._lent = threading.current_thread()
            self._act([], release, caught)

    def abandon(self, ticket: Ticket) -> None:
        """The thread in `run` leaves before its request has an answer, or after."""
        with self._lock:
            was_running = self._lent is threading.current_thread()
            if was_running:
                self._lent = None
                self._queue.drop(ticket)
                self._queue.finished(self._clock(), 0, 0.0)
                self._wake_for_what_came()
        job: Job | None = ticket.payload
        if job is not None and not job.future.cancel() and was_running:
            with self._lock:
                self._counters.cancelled += 1
            ticket.payload = None

    def _due(self) -> tuple[list[Ticket], Release | None]:
        now = self._clock()
        return self._queue.expired(now), self._released(now)

    def _released(self, now: float) -> Release | None:
        release = self._queue.release(now, draining=self._is_closing)
        if release is not None:
            for part in release.parts:
                if part.start == 0:
                    self._counters.waited(now - part.ticket.arrived)
        return release

    def _act(self, expired: list[Ticket], release: Release | None, caught: type[BaseException] = BaseException) -> None:
        """Fails what has expired and runs a batch. After an error that is not `caught`, the device counts as busy."""
        for ticket in expired:
            self._fail(ticket, DeadlineExceeded("the request's time ran out before it was drawn"), expired=True)
        if release is None:
            return
        parts = [part for part in release.parts if self._claim(part)]
        start = self._clock()
        try:
            if parts:
                self._run(parts, caught)
        except caught as error:  # no batch may end the thread that the others wait for
            for part in parts:
                self._fail(part.ticket, error)
        end = self._clock()
        with self._lock:
            rows = sum(p.rows for p in parts)
            self._queue.finished(end, rows, end - start)
            if parts:
                self._counters.batches += 1
                self._counters.released[release.reason] += 1
                self._counters.images += rows
                self._counters.padding += computed_rows(rows, self._buckets) - rows
                self._counters.compute_s += end - start
            if self._lent is not None:
                self._lent = None
                self._wake_for_what_came()

    def _wake_for_what_came(self) -> None:
        if self._is_waiting and (self._is_closing or len(self._queue)):
            self._changed.notify()

    def _claim(self, part: Part) -> bool:
        """Whether a part is still wanted. With the last one the future runs, and can be cancelled no more."""
        job: Job | None = part.ticket.payload
        with self._lock:
            if job is None or job.is_settled or job.future.done():
                return False
            if part.start + part.rows < part.ticket.rows:
                return True
            job.is_settled = True
            return job.future.set_running_or_notify_cancel()

    def _run(self, parts: list[Part], caught: type[BaseException]) -> None:
        try:
            images = self._draw(request_of_parts(parts))
        except caught as error:
            if len(parts) == 1:
                self._fail(parts[0].ticket, error)
                return
            with self._lock:
                self._counters.retried += len(parts)
            del error
        else:
            start = 0
            for part in parts:
                self._deliver(part, images[start : start + part.rows], is_alone=len(parts) == 1)
                start += part.rows
            return
        for part in parts:
            self._run([part], caught)

    def _deliver(self, part: Part, images: Images, is_alone: bool) -> None:
        job: Job = part.ticket.payload
        drawn = job.fill(part, images, is_alone)
        if part.start + part.rows == part.ticket.rows:
            with self._lock:
                self._counters.completed += 1
            part.ticket.payload = None  # the queue may keep the ticket until its deadline
            job.future.set_result(drawn)

    def _fail(self, ticket: Ticket, error: BaseException, expired: bool = False) -> None:
        job: Job | None = ticket.payload
        if job is None:  # answered already
            return
        if not isinstance(error, GanError):
            cause = error
            error = BackendError("a batch failed", got=f"{type(cause).__name__}: {cause}"[:400])
            error.__cause__ = cause
        with self._lock:
            self._queue.drop(ticket)
            if job.future.done():  # cancelled meanwhile, or answered already
                return
            if not job.is_settled:
                job.is_settled = True
                if not job.future.set_running_or_notify_cancel():
                    return
            if expired:
                self._counters.expired += 1
            else:
                self._counters.failed += 1
        ticket.payload = None
        job.future.set_exception(error)

    def forget(self, ticket: Ticket | None) -> None:
        """A future is done. If it was cancelled, its rows leave the queue at once, and make room."""
        job: Job | None = None if ticket is None else ticket.payload
        if ticket is None or job is None or not job.future.cancelled() or os.getpid() != self._pid:
            return
        with self._lock:
            self._queue.drop(ticket)
            self._counters.cancelled += 1
            job.images = None
            if not job.is_settled:
                job.is_settled = True
                job.future.set_running_or_notify_cancel()  # or `concurrent.futures.wait` would wait for ever
            if self._is_waiting:
                self._changed.notify()

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            self._is_closing = True
            waiting = self._queue.tickets()
        for ticket in waiting:
            self._fail(ticket, error)


_started: weakref.WeakSet[BatchWorker] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for worker in list(_started):
        worker.close(drain=True)
