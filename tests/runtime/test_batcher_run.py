"""`Batcher.run`: a lone request is run by the thread that calls; whatever befalls that thread, nobody else notices."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ganruntime.batcher import Batcher
from ganruntime.errors import BackendError, BatcherClosed, DeadlineExceeded, InputError, Overloaded
from ganruntime.sessions.base import Arrays
from ganruntime.sessions.fake import fake_generator

CLEAN = fake_generator(buckets=(4,))


class Watched:
    """A generator whose runs tell which thread they are in, and stand still where they are told to."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.during: Callable[[], object] = lambda: None
        self.generator = fake_generator(buckets=(4,), fail_when=self._look)

    def _look(self, inputs: Arrays) -> bool:
        self.threads.append(threading.current_thread())
        self.started.set()
        assert self.go_on.wait(30)
        self.during()
        return False

    def hold(self) -> None:
        self.started.clear()
        self.go_on.clear()


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def batcher(watched: Watched) -> Iterator[Batcher]:
    # Ten seconds: nothing here is to depend on the delay.
    with watched.generator.batcher(max_delay_ms=10_000) as running:
        yield running
        watched.go_on.set()


@pytest.fixture
def by_hand(watched: Watched) -> Batcher:
    """No thread of its own: what runs without `step` runs in the thread that calls `run`."""
    return Batcher(watched.generator, start=False)


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[Any]]:
    """A thread that does the work, and a list that its result or its error will be in."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# Who runs what


def test_a_lone_request_is_run_by_the_thread_that_calls(watched: Watched, batcher: Batcher) -> None:
    images = batcher.run(seed=1, n=8)
    assert watched.threads == [threading.current_thread()] * 2
    assert np.array_equal(images, CLEAN.generate(8, seed=1))
    assert np.array_equal(batcher.run(CLEAN.latents(1, seed=1)), CLEAN.generate(1, seed=1))
    assert batcher.run(n=0).shape == (0, 8, 8, 3)
    stats = batcher.stats()
    assert (stats.submitted, stats.completed, stats.batches, stats.images) == (2, 2, 3, 9)
    assert stats.released["full"] == 2
    assert stats.compute_ms > 0


def test_a_request_that_waits_for_company_is_run_by_the_batcher_s_thread(watched: Watched) -> None:
    with watched.generator.batcher(max_delay_ms=5) as batcher:
        # The last batch had four rows and took an hour, so that as many are awaited, for five milliseconds.
        with batcher._worker._lock:
            batcher._worker._queue.finished(time.monotonic(), 4, 3600.0)
        assert np.array_equal(batcher.run(seed=1), CLEAN.generate(1, seed=1))
        assert watched.threads == [batcher._worker.thread]
    # Counted once the batch is over, which its caller need not wait for: after the close it is. The patience after the
    # last batch ends a moment before the request's own delay; which of the two is seen depends on the wake-up.
    released = batcher.stats().released
    assert released["delay"] + released["idle"] == sum(released.values()) == 1


def test_what_comes_meanwhile_is_run_by_the_batcher_s_thread(watched: Watched, batcher: Batcher) -> None:
    watched.hold()
    thread, found = in_thread(lambda: batcher.run(seed=1, n=9))
    assert watched.started.wait(30)
    assert watched.threads == [thread]
    other = batcher.submit(seed=2)
    watched.go_on.set()
    assert np.array_equal(other.result(30), CLEAN.generate(1, seed=2))
    thread.join(30)
    assert np.array_equal(found[0], CLEAN.generate(9, seed=1))
    # The rest of the split request shares its last batch with the other one.
    assert watched.threads == [thread] + [batcher._worker.thread] * 2


def test_a_free_thread_does_not_run_what_others_wait_for(watched: Watched, batcher: Batcher) -> None:
    watched.hold()
    first = batcher.submit(seed=1)
    assert watched.started.wait(30)
    thread, found = in_thread(lambda: batcher.run(seed=2))
    wait_until(lambda: batcher.stats().queue_images == 1)
    watched.go_on.set()
    thread.join(30)
    assert np.array_equal(found[0], CLEAN.generate(1, seed=2))
    assert first.result(30).shape == (1, 8, 8, 3)
    assert watched.threads == [batcher._worker.thread] * 2


def test_threads_that_come_and_go_each_get_their_own(watched: Watched) -> None:
    """Alone, in twos and in crowds, by turns: whichever thread runs a batch."""
    expected = CLEAN.generate(200, seed=3)
    problems: list[int] = []
    with watched.generator.batcher(max_delay_ms=1) as batcher:

        def client(number: int) -> None:
            for i in range(number, 200, 8):
                if not np.array_equal(batcher.run(seed=3, first=i), expected[i : i + 1]):
                    problems.append(i)
                if i % 3:
                    time.sleep(0.0005 * (number + 1))

        threads = [in_thread(lambda number=number: client(number)) for number in range(8)]  # type: ignore[misc]
        for thread, found in threads:
            thread.join(60)
            assert found == [None]
        stats = batcher.stats()
    assert not problems
    assert (stats.submitted, stats.completed, stats.images) == (200, 200, 200)


# Errors


def test_errors_are_those_of_submit(watched: Watched, batcher: Batcher) -> None:
    with pytest.raises(InputError, match="wrong shape"):
        batcher.run(np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="larger than the whole queue"):
        batcher.run(n=5_000)
    with pytest.raises(DeadlineExceeded):
        batcher.run(timeout_ms=0)
    batcher.close()
    with pytest.raises(BatcherClosed):
        batcher.run()
    assert watched.threads == []


def test_a_full_queue_refuses(watched: Watched) -> None:
    with watched.generator.batcher(max_queue_images=4) as batcher:
        watched.hold()
        batcher.submit()
        assert watched.started.wait(30)
        batcher.submit(n=4)
        with pytest.raises(Overloaded):
            batcher.run()
        watched.go_on.set()


def test_a_failure_is_that_of_its_run(watched: Watched, batcher: Batcher) -> None:
    watched.during = lambda: 1 / 0
    with pytest.raises(BackendError, match="ZeroDivisionError") as caught:
        batcher.run(seed=1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    watched.during = lambda: None
    assert batcher.run(seed=1).shape == (1, 8, 8, 3)
    stats = batcher.stats()
    assert (stats.completed, stats.failed) == (1, 1)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_in_another_thread_whatever_a_backend_raises_is_the_request_s(
    watched: Watched, batcher: Batcher, error: BaseException
) -> None:
    """There no signal handler runs."""

    def crash() -> None:
        raise error

    watched.during = crash
    thread, found = in_thread(lambda: batcher.run(seed=1))
    thread.join(30)
    assert isinstance(found[0], BackendError)
    assert found[0].__cause__ is error


# Interruptions


class Ended(BaseException):
    pass


@pytest.fixture
def signals() -> Iterator[None]:
    """SIGTERM raises `Ended`."""

    def end(*_: object) -> None:
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("n", [1, 9])
def test_an_interruption_of_its_own_run_leaves_the_device_to_others(
    watched: Watched, batcher: Batcher, signals: None, n: int
) -> None:
    others = []

    def strike() -> None:
        watched.during = lambda: None
        others.append(batcher.submit(seed=2))
        signal.raise_signal(signal.SIGTERM)

    watched.during = strike
    with pytest.raises(Ended):
        batcher.run(seed=1, n=n)
    assert np.array_equal(others[0].result(30), CLEAN.generate(1, seed=2))
    assert watched.threads == [threading.main_thread(), batcher._worker.thread]
    assert np.array_equal(batcher.run(seed=3), CLEAN.generate(1, seed=3))
    stats = batcher.stats()
    assert (stats.submitted, stats.completed, stats.cancelled, stats.failed) == (3, 2, 1, 0)
    assert (stats.queue_requests, stats.queue_images) == (0, 0)


def test_an_interruption_while_it_waits_takes_its_rows_out(watched: Watched, batcher: Batcher, signals: None) -> None:
    watched.hold()
    first = batcher.submit(seed=1)
    assert watched.started.wait(30)

    def strike() -> None:
        wait_until(lambda: batcher.stats().queue_images == 2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    in_thread(strike)
    with pytest.raises(Ended):
        batcher.run(seed=2, n=2)
    stats = batcher.stats()
    assert (stats.queue_images, stats.cancelled) == (0, 1)
    watched.go_on.set()
    assert first.result(30).shape == (1, 8, 8, 3)


# The end


@pytest.mark.parametrize("who", ["batcher", "generator"])
def test_closing_waits_for_a_lent_thread(watched: Watched, batcher: Batcher, who: str) -> None:
    watched.hold()
    thread, found = in_thread(lambda: batcher.run(seed=1))
    assert watched.started.wait(30)
    closing, _ = in_thread(batcher.close if who == "batcher" else watched.generator.close)
    wait_until(lambda: batcher._worker._is_closing)
    closing.join(0.05)
    assert closing.is_alive()
    watched.go_on.set()
    closing.join(30)
    assert not closing.is_alive()
    thread.join(30)
    assert np.array_equal(found[0], CLEAN.generate(1, seed=1))
    assert watched.threads == [thread]


def test_without_a_thread_of_its_own_it_runs_what_is_due(watched: Watched, by_hand: Batcher) -> None:
    assert np.array_equal(by_hand.run(seed=1, n=4), CLEAN.generate(4, seed=1))
    assert watched.threads == [threading.current_thread()]
