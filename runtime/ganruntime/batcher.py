"""The batcher: many small requests from any thread or task, run together in full batches.

    with generator.batcher(max_delay_ms=2, max_queue_images=1024) as batcher:
        images = batcher.run(seed=7, first=3)                 # uint8 [1, H, W, C], in a thread that waits for them
        future = batcher.submit(seed=7, first=3)              # a concurrent.futures.Future of the same
        images = await batcher.submit_async(latents)          # in a coroutine

One thread of its own takes requests from the queue (`ganruntime.batcher_queue` says when) and runs them. What is drawn
is what `Generator.generate` draws; with one bucket it is the same to the last bit, whoever shares the batch.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ganruntime.batcher_queue import BatchQueue, Part, Release, Ticket
from ganruntime.batcher_stats import BatcherStats, Counters
from ganruntime.buckets import computed_rows
from ganruntime.errors import (
    BackendError,
    BatcherClosed,
    DeadlineExceeded,
    GanError,
    InputError,
    Overloaded,
)
from ganruntime.requests import Labels, Request, request_from_latents, request_from_seed, require_count

if TYPE_CHECKING:
    from ganruntime.generator import Generator

Images = NDArray[Any]
# Inputs of up to this size are drawn in the thread that submits, while the device works; larger ones (per-layer noise
# of a large generator is megabytes an image) when their batch is put together, so that a full queue stays small.
_EARLY_BYTES = 64 << 10


@dataclass(eq=False)
class _Job:
    """A request on its way: its inputs, its future, and its images as far as they are drawn."""

    request: Request
    future: Future[Images] = field(default_factory=Future)
    images: Images | None = None
    # Whether the future was told that it runs, or that its cancellation was seen. To be said once.
    is_settled: bool = False


class Batcher:
    """Made by `Generator.batcher`. Every method may be called from any thread of the process that made it.

    A request that is larger than a bucket is split, one that is smaller shares it. Rows keep their own labels,
    truncation and noise, so requests with different ones share a batch too.

    A batch that fails is run again, each of its requests alone: the innocent get their images, and the others the error
    of their own run. A request that was alone already is not run twice.

    Requests of higher priority go first, always: those of a lower one may wait as long as there are higher ones. Give
    them a timeout.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        max_delay_ms: float = 2.0,
        max_queue_images: int = 1024,
        clock: Callable[[], float] = time.monotonic,
        start: bool = True,
    ) -> None:
        """As for `Generator.batcher`. With another clock and `start=False`, a test calls `step` in its own time."""
        _require_milliseconds(max_delay_ms, "max_delay_ms", least=0.0)
        require_count(max_queue_images, "max_queue_images", least=1)
        self._generator = generator
        self._buckets = generator.session.buckets
        self._varying = [t.name for t in generator.spec.inputs if None in t.shape]
        # Inputs whose shape varies are never drawn, and are not counted.
        self._row_bytes = sum(4 * t.size for t in generator.spec.inputs if None not in t.shape)
        self._queue = BatchQueue(self._buckets[-1], max_delay_ms / 1e3, int(max_queue_images))
        self._counters = Counters()
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_waiting = False
        self._is_closing = False
        self._lent: threading.Thread | None = None  # a thread in `run` that runs its own batch
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        if start:
            self._thread = threading.Thread(target=self._work, name=f"batcher of {generator.spec.name}", daemon=True)
            self._thread.start()
            _open_batchers.add(self)

    def submit(
        self,
        latents: ArrayLike | None = None,
        *,
        seed: int | None = None,
        first: int | None = None,
        n: int | None = None,
        truncation: ArrayLike | None = None,
        label: Labels = None,
        timeout_ms: float | None = None,
        priority: int = 0,
        **inputs: ArrayLike,
    ) -> Future[Images]:
        """Queues a request: latents as `generator(latents)` takes them, or a seed as `generate` does.

        Args:
            latents: [n, *shape], or one latent [*shape].
            seed, first, n: images `first` … `first + n - 1` of a seed, instead of latents; 0, 0 and 1 by default.
            truncation, label, inputs: as for `Generator.generate`.
            timeout_ms: after that long, rows that no batch has taken yet are dropped, and the future raises
                `DeadlineExceeded`; while a batch runs, when it has ended.
            priority: higher goes first.

        Returns:
            A future of uint8 [n, H, W, C] (as `generate` returns). `cancel()` drops the rows that no batch has taken
            yet, and works until the last of them is. Its exceptions: `BackendError` and what else a batch may raise,
            `DeadlineExceeded`, `BatcherClosed`.

        Raises:
            InputError: an argument does not fit, or the request is larger than the whole queue.
            Overloaded: the queue is full; `retry_after_s` says when to come back.
            BatcherClosed: the batcher was closed.
            BackendError: called in a process that was forked off.
        """
        _, future = self._queued(
            latents,
            True,
            seed=seed,
            first=first,
            n=n,
            truncation=truncation,
            label=label,
            timeout_ms=timeout_ms,
            priority=priority,
            **inputs,
        )
        return future

    def run(self, latents: ArrayLike | None = None, **arguments: Any) -> Images:
        """`submit` and the wait for its result in one. A request that is alone, on a free device, is run by the thread
        that calls: no other has to be woken, and to wake it in its turn, which takes longer than all else.

        An interruption, such as Ctrl-C, takes what has not run out of the queue.

        Returns:
            uint8 [n, H, W, C].

        Raises:
            What `submit` and its future raise.
        """
        ticket, future = self._queued(latents, False, **arguments)
        try:
            self._lend_thread(ticket)
            return future.result()
        except BaseException:
            self._abandon(ticket)
            raise

    def _queued(
        self,
        latents: ArrayLike | None,
        wakes: bool,
        *,
        seed: int | None = None,
        first: int | None = None,
        n: int | None = None,
        truncation: ArrayLike | None = None,
        label: Labels = None,
        timeout_ms: float | None = None,
        priority: int = 0,
        **inputs: ArrayLike,
    ) -> tuple[Ticket, Future[Images]]:
        """Queues a request. Unless it `wakes` the batcher's thread, somebody has to."""
        self._require_own_process()
        spec = self._generator.spec
        # The caller may change its arrays before their batch runs.
        latents, truncation, label = _kept(latents), _kept(truncation), _kept(label)
        if inputs:
            inputs = {name: _kept(value) for name, value in inputs.items()}
        if latents is None:
            request = request_from_seed(spec, 1 if n is None else n, seed or 0, first or 0, truncation, label, inputs)
        elif (seed, first, n) == (None, None, None):
            request = request_from_latents(spec, latents, truncation, label, inputs)
        else:
            raise InputError("a request has latents and a seed", expected="either latents, or seed, first and n")
        if request.n > self._queue.max_images:
            raise InputError(
                "a request is larger than the whole queue",
                got=f"{request.n:,} images",
                expected=f"up to max_queue_images = {self._queue.max_images:,}",
                remedy="Generator.generate, or several requests",
            )
        if not isinstance(priority, int) or isinstance(priority, bool):
            raise InputError("priority is not an integer", got=repr(priority))
        deadline = None
        if timeout_ms is not None:
            _require_milliseconds(timeout_ms, "timeout_ms", least=0.0)
            deadline = self._clock() + timeout_ms / 1e3
        if request.seed is not None and request.n * self._row_bytes <= _EARLY_BYTES:
            request = request.drawn()
        job = _Job(request)
        group = tuple(request.given[name].shape[1:] for name in self._varying)
        ticket = Ticket(request.n, priority, deadline, group, job)
        # Before the thread is woken: what is done after that, it waits for. Weakly, or the future would hold itself.
        weak = weakref.ref(ticket)
        job.future.add_done_callback(lambda _: self._forget(weak()))
        if request.n == 0:
            job.future.set_result(self._generator.drawn(request))
            return ticket, job.future
        with self._lock:
            if self._is_closing:
                raise BatcherClosed("the batcher is closed")
            if not self._queue.add(ticket, self._clock()):
                self._counters.refused += 1
                raise Overloaded(
                    "the queue is full",
                    retry_after_s=self._queue.seconds_until_room(request.n),
                    got=f"{request.n:,} images more, and {self._queue.pending_images:,} wait",
                    expected=f"at most {self._queue.max_images:,}",
                )
            self._counters.submitted += 1
            if wakes and self._is_waiting:
                self._changed.notify()
        return ticket, job.future

    def submit_async(self, latents: ArrayLike | None = None, **arguments: Any) -> asyncio.Future[Images]:
        """The same for coroutines: queues at once, and can be awaited. Cancelling the task cancels the request.

        Raises:
            RuntimeError: no event loop is running.
        """
        loop = asyncio.get_running_loop()
        return asyncio.wrap_future(self.submit(latents, **arguments), loop=loop)

    def stats(self) -> BatcherStats:
        """Counters since the start, and what waits now."""
        self._require_own_process()
        with self._lock:
            return self._counters.snapshot(len(self._queue), self._queue.pending_images)

    def close(self, *, drain: bool = True) -> None:
        """Takes no more requests, runs those that wait (without `drain` they raise `BatcherClosed`), and returns when
        the last has its answer. Calling it twice is harmless; at the exit of the interpreter it is called for you."""
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
        if self._thread is None:
            while self.step():
                pass
        elif self._thread is not threading.current_thread():  # a callback of a future may close us
            self._thread.join()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
            _open_batchers.discard(self)

    def _lend_thread(self, ticket: Ticket) -> None:
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

    def _abandon(self, ticket: Ticket) -> None:
        """The thread in `run` leaves before its request has an answer, or after."""
        with self._lock:
            was_running = self._lent is threading.current_thread()
            if was_running:
                self._lent = None
                self._queue.drop(ticket)
                self._queue.finished(self._clock(), 0, 0.0)
                self._wake_for_what_came()
        job: _Job | None = ticket.payload
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
        job: _Job | None = part.ticket.payload
        with self._lock:
            if job is None or job.is_settled or job.future.done():
                return False
            if part.start + part.rows < part.ticket.rows:
                return True
            job.is_settled = True
            return job.future.set_running_or_notify_cancel()

    def _run(self, parts: list[Part], caught: type[BaseException]) -> None:
        try:
            images = self._generator.drawn(_request_of(parts))
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
        job: _Job = part.ticket.payload
        if part.rows == part.ticket.rows:
            # A copy of its own: a view would keep the whole batch in memory for as long as the caller keeps one image.
            job.images = images if is_alone else images.copy()
        else:
            if job.images is None:
                job.images = np.empty((part.ticket.rows, *images.shape[1:]), images.dtype)
            job.images[part.start : part.start + part.rows] = images
        if part.start + part.rows == part.ticket.rows:
            with self._lock:
                self._counters.completed += 1
            part.ticket.payload = None  # the queue may keep the ticket until its deadline
            job.future.set_result(job.images)

    def _fail(self, ticket: Ticket, error: BaseException, expired: bool = False) -> None:
        job: _Job | None = ticket.payload
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

    def _forget(self, ticket: Ticket | None) -> None:
        """A future is done. If it was cancelled, its rows leave the queue at once, and make room."""
        job: _Job | None = None if ticket is None else ticket.payload
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

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise BackendError(
                "the batcher was made in another process, whose thread is not here",
                got=f"process {os.getpid()}",
                expected=f"process {self._pid}",
                remedy="load the bundle in each process, after the fork",
            )


def _request_of(parts: list[Part]) -> Request:
    """One request of the rows of all parts, in their order."""
    requests: list[tuple[Request, Part]] = [(part.ticket.payload.request, part) for part in parts]
    if len(parts) == 1 and parts[0].rows == parts[0].ticket.rows:
        return requests[0][0]
    rows = [request.rows(part.start, part.rows) for request, part in requests]
    joined = rows[0] if len(rows) == 1 else {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
    return Request(requests[0][0].spec, sum(p.rows for p in parts), joined)


def _kept(value: Any) -> Any:
    """A copy of an array, or of what shares one's memory; anything else as it is, for it is turned into one at once."""
    return np.array(value) if hasattr(value, "__array__") else value


def _require_milliseconds(value: float, name: str, least: float) -> None:
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool) or not least <= value < math.inf:
        raise InputError(f"{name} is not a time", got=repr(value), expected=f"milliseconds, at least {least:g}")


_open_batchers: weakref.WeakSet[Batcher] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for batcher in list(_open_batchers):
        batcher.close()
