"""The batcher: many small requests from any thread or task, run together in full batches.

    with generator.batcher(max_delay_ms=2, max_queue_images=1024) as batcher:
        images = batcher.run(seed=7, first=3)                 # uint8 [1, H, W, C], in a thread that waits for them
        future = batcher.submit(seed=7, first=3)              # a concurrent.futures.Future of the same
        images = await batcher.submit_async(latents)          # in a coroutine

One thread of its own (`ganruntime.batcher_worker`) takes requests from the queue (`ganruntime.batcher_queue` says when)
and runs them. What is drawn is what `Generator.generate` draws; with one bucket it is the same to the last bit, whoever
shares the batch.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ganruntime.batcher_jobs import Images, Job
from ganruntime.batcher_queue import BatchQueue, Ticket
from ganruntime.batcher_stats import BatcherStats
from ganruntime.batcher_worker import BatchWorker
from ganruntime.errors import (
    BackendError,
    InputError,
)
from ganruntime.requests import Labels, Request, request_from_latents, request_from_seed, require_count

if TYPE_CHECKING:
    from ganruntime.generator import Generator

# Inputs of up to this size are drawn in the thread that submits, while the device works; larger ones (per-layer noise
# of a large generator is megabytes an image) when their batch is put together, so that a full queue stays small.
_EARLY_BYTES = 64 << 10


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
        self._varying = [t.name for t in generator.spec.inputs if None in t.shape]
        # Inputs whose shape varies are never drawn, and are not counted.
        self._row_bytes = sum(4 * t.size for t in generator.spec.inputs if None not in t.shape)
        self._queue = BatchQueue(generator.session.buckets[-1], max_delay_ms / 1e3, int(max_queue_images))
        self._clock = clock
        self._pid = os.getpid()
        # With a method of its own, so that a batcher which nobody holds any more lives for as long as its thread.
        self._worker = BatchWorker(self._queue, self._drawn, generator.session.buckets, clock)
        if start:
            self._worker.start(f"batcher of {generator.spec.name}")

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
            self._worker.lend_thread(ticket)
            return future.result()
        except BaseException:
            self._worker.abandon(ticket)
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
        job = Job(request)
        group = tuple(request.given[name].shape[1:] for name in self._varying)
        ticket = Ticket(request.n, priority, deadline, group, job)
        # Before the thread is woken: what is done after that, it waits for. Weakly, or the future would hold itself.
        weak, forget = weakref.ref(ticket), self._worker.forget
        job.future.add_done_callback(lambda _: forget(weak()))
        if request.n == 0:
            job.future.set_result(self._drawn(request))
            return ticket, job.future
        self._worker.put(ticket, wakes)
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
        return self._worker.stats()

    def close(self, *, drain: bool = True) -> None:
        """Takes no more requests, runs those that wait (without `drain` they raise `BatcherClosed`), and returns when
        the last has its answer. Calling it twice is harmless; at the exit of the interpreter it is called for you."""
        self._worker.close(drain)

    def __enter__(self) -> Batcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def step(self) -> bool:
        """Does what is due now: fails what has expired, and runs a batch if it is time for one. Whether it did any."""
        return self._worker.step()

    def _drawn(self, request: Request) -> Images:
        return self._generator.drawn(request)

    def _require_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise BackendError(
                "the batcher was made in another process, whose thread is not here",
                got=f"process {os.getpid()}",
                expected=f"process {self._pid}",
                remedy="load the bundle in each process, after the fork",
            )


def _kept(value: Any) -> Any:
    """A copy of an array, or of what shares one's memory; anything else as it is, for it is turned into one at once."""
    return np.array(value) if hasattr(value, "__array__") else value


def _require_milliseconds(value: float, name: str, least: float) -> None:
    if not isinstance(value, (int, float, np.number)) or isinstance(value, bool) or not least <= value < math.inf:
        raise InputError(f"{name} is not a time", got=repr(value), expected=f"milliseconds, at least {least:g}")
