"""The batcher: what comes out is what was asked for, whatever happens to the others."""

from __future__ import annotations

import concurrent.futures
import gc
import math
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_bundles import CLASSES, small_spec

from ganruntime.batcher import Batcher
from ganruntime.errors import BackendError, BatcherClosed, DeadlineExceeded, InputError, Overloaded
from ganruntime.generator import Generator
from ganruntime.sessions.base import Arrays
from ganruntime.sessions.fake import FakeSession, fake_generator
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec, Vector

ONE_BUCKET = (4,)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def by_hand(generator: Generator, **arguments: Any) -> tuple[Batcher, Clock]:
    """A batcher without a thread: it does what is due when `step` is called."""
    clock = Clock()
    return Batcher(generator, clock=clock, start=False, **arguments), clock


@pytest.fixture
def generator() -> Generator:
    return fake_generator(buckets=ONE_BUCKET)


@pytest.fixture
def batcher(generator: Generator) -> Iterator[Batcher]:
    with generator.batcher() as running:
        yield running


# What comes out


def test_a_seed_and_an_index_give_the_image_that_generate_gives(generator: Generator, batcher: Batcher) -> None:
    futures = [batcher.submit(seed=7, first=i, n=1 + i % 3) for i in range(20)]
    for i, future in enumerate(futures):
        assert np.array_equal(future.result(10), generator.generate(1 + i % 3, seed=7, first=i))
    assert np.array_equal(batcher.submit().result(10), generator.generate(1))


def test_latents_give_what_the_generator_gives(generator: Generator, batcher: Batcher) -> None:
    z = generator.latents(5, seed=3)
    assert np.array_equal(batcher.submit(z).result(10), generator(z))
    assert np.array_equal(batcher.submit(z[2]).result(10), generator(z)[2:3])
    assert batcher.submit(z[:0]).result(10).shape == (0, 8, 8, 3)
    assert batcher.submit(n=0).result(10).shape == (0, 8, 8, 3)


@pytest.mark.parametrize("buckets", [(1,), (4,), (1, 4), (2, 3, 16)])
@pytest.mark.parametrize("n", [1, 4, 5, 33])
def test_requests_are_split_over_batches_and_put_together(buckets: tuple[int, ...], n: int) -> None:
    generator = fake_generator(buckets=buckets)
    with generator.batcher() as batcher:
        assert np.array_equal(batcher.submit(seed=1, first=9, n=n).result(10), generator.generate(n, seed=1, first=9))


def test_different_labels_truncations_and_seeds_share_a_batch() -> None:
    generator = Generator(session := FakeSession(small_spec(conditional=True), buckets=(16,)))
    batcher, _ = by_hand(generator)
    arguments = [
        {"seed": i % 3, "first": i, "label": CLASSES[i % 3], "truncation": i / 16} | ({} if i % 2 else {"n": 1})
        for i in range(15)
    ]
    futures = [batcher.submit(**a) for a in arguments]
    z = generator.latents(1, seed=9)
    futures.append(batcher.submit(z, label=1, truncation=0.25))
    assert batcher.step()
    assert session.batches == [16]
    for a, future in zip(arguments, futures, strict=False):
        assert np.array_equal(future.result(0), generator.generate(**({"n": 1} | a)))  # type: ignore[arg-type]
    assert np.array_equal(futures[-1].result(0), generator(z, label=1, truncation=0.25))


def test_rows_of_other_shapes_go_in_batches_of_their_own() -> None:
    spec = GeneratorSpec(
        "translate",
        (TensorSpec("source", "float32", (3, None, None), Image()),),
        (TensorSpec("image", "float32", (3, 8, 8), Image()),),
    )
    generator = Generator(session := FakeSession(spec, buckets=(4,)))
    batcher, _ = by_hand(generator)
    sources = [np.full((1, 3, size, size), size / 16, np.float32) for size in (4, 6, 4, 6)]
    futures = [batcher.submit(n=1, source=s) for s in sources]
    while batcher.step():
        pass
    assert session.batches == [4, 4]
    for source, future in zip(sources, futures, strict=True):
        assert np.array_equal(future.result(0), generator.generate(1, source=source))


def test_a_generator_that_draws_no_image_gives_its_first_output() -> None:
    spec = GeneratorSpec(
        "codes", (TensorSpec("z", "float32", (4,), Latent()),), (TensorSpec("code", "float32", (5,), Vector()),)
    )
    generator = Generator(FakeSession(spec))
    with generator.batcher() as batcher:
        assert np.array_equal(batcher.submit(seed=2, n=3).result(10), generator.generate(3, seed=2))


def test_large_inputs_are_drawn_late_and_are_the_same() -> None:
    spec = GeneratorSpec(
        "noisy",
        (TensorSpec("z", "float32", (40_000,), Latent()),),
        (TensorSpec("image", "float32", (1, 4, 4), Image()),),
    )
    generator = Generator(FakeSession(spec, buckets=(4,)))
    batcher, _ = by_hand(generator)
    future = batcher.submit(seed=4, first=2, n=3)
    (ticket,) = batcher._worker._queue.tickets()
    assert ticket.payload.request.given == {}
    batcher.close()
    assert np.array_equal(future.result(0), generator.generate(3, seed=4, first=2))


def test_an_image_does_not_keep_its_batch_in_memory(generator: Generator) -> None:
    batcher, _ = by_hand(generator)
    futures = [batcher.submit(seed=1, first=i) for i in range(4)]
    batcher.step()
    for future in futures:
        base = future.result(0).base
        assert base is None or base.nbytes == future.result(0).nbytes


@pytest.mark.parametrize("fate", ["served", "split", "failed", "cancelled"])
def test_what_nobody_holds_is_freed_without_the_garbage_collector(fate: str) -> None:
    batcher, _ = by_hand(fake_generator(buckets=(4,), fail_on={0} if fate == "failed" else {}))
    gc.disable()
    try:
        future = batcher.submit(seed=1, n=9 if fate == "split" else 2, timeout_ms=1e9)
        if fate == "cancelled":
            future.cancel()
        while batcher.step():
            pass
        watched = weakref.ref(future.result(0) if fate in ("served", "split") else future)
        del future
        assert watched() is None
    finally:
        gc.enable()


# Batches


def test_requests_that_wait_share_a_batch(generator: Generator) -> None:
    batcher, _ = by_hand(generator)
    for i in range(9):
        batcher.submit(seed=1, first=i)
    while batcher.step():
        pass
    stats = batcher.stats()
    assert (stats.batches, stats.images, stats.padding) == (3, 9, 3)
    assert stats.released == {"full": 2, "drain": 0, "delay": 0, "idle": 1}
    assert (stats.submitted, stats.completed) == (9, 9)
    assert stats.images_per_batch == 3
    assert stats.fill == 0.75
    assert stats.to_json()["fill"] == 0.75


def test_counters_of_time() -> None:
    clock = Clock()

    def busy(inputs: Arrays) -> bool:
        clock.now += 0.5
        return False

    batcher = Batcher(fake_generator(buckets=(1,), fail_when=busy), clock=clock, start=False)
    batcher.submit()
    batcher.submit()
    clock.now += 0.25
    while batcher.step():
        pass
    stats = batcher.stats()
    assert stats.compute_ms == pytest.approx(1000)
    assert stats.max_wait_ms == pytest.approx(750)
    assert stats.mean_wait_ms == pytest.approx(500)
    assert stats.released["delay"] + stats.released["full"] == 2


def test_priority_goes_first(generator: Generator) -> None:
    batcher, _ = by_hand(fake_generator(buckets=(1,)))
    low, high = batcher.submit(seed=1), batcher.submit(seed=2, priority=1)
    batcher.step()
    assert (low.done(), high.done()) == (False, True)
    batcher.step()
    assert low.done()


# Bounds


def test_a_full_queue_refuses_and_says_when_to_come_back(generator: Generator) -> None:
    batcher, _ = by_hand(generator, max_queue_images=10)
    kept = [batcher.submit(n=6), batcher.submit(n=4)]
    with pytest.raises(Overloaded, match="queue is full") as error:
        batcher.submit()
    assert error.value.retry_after_s > 0
    assert "10 wait" in str(error.value)
    again = pickle.loads(pickle.dumps(error.value))
    assert again.retry_after_s == error.value.retry_after_s
    assert batcher.stats().refused == 1
    batcher.close()
    assert all(f.done() for f in kept)


def test_a_request_that_can_never_fit_is_another_error(generator: Generator) -> None:
    batcher, _ = by_hand(generator, max_queue_images=10)
    with pytest.raises(InputError, match="larger than the whole queue"):
        batcher.submit(n=11)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"n": 1.5}, "n is not a count"),
        ({"latents": np.zeros(7)}, "wrong shape"),
        ({"latents": np.zeros(8), "seed": 1}, "latents and a seed"),
        ({"latents": np.zeros((2, 8)), "n": 2}, "latents and a seed"),
        ({"label": "x"}, "takes no label"),
        ({"w": 1}, "no input 'w'"),
        ({"timeout_ms": -1}, "timeout_ms is not a time"),
        ({"timeout_ms": math.nan}, "timeout_ms is not a time"),
        ({"timeout_ms": "1"}, "timeout_ms is not a time"),
        ({"priority": 1.5}, "priority is not an integer"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(batcher: Batcher, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        batcher.submit(**arguments)
    assert batcher.stats().submitted == 0


@pytest.mark.parametrize(
    "arguments", [{"max_delay_ms": -1}, {"max_delay_ms": math.inf}, {"max_delay_ms": None}, {"max_queue_images": 0}]
)
def test_settings_are_checked(generator: Generator, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        generator.batcher(**arguments)


# Deadlines and cancellation


def test_what_is_too_late_does_not_run(generator: Generator) -> None:
    batcher, clock = by_hand(generator)
    late, patient = batcher.submit(seed=1, timeout_ms=5), batcher.submit(seed=2, timeout_ms=50)
    clock.now += 0.01
    assert batcher.step()
    with pytest.raises(DeadlineExceeded, match="ran out"):
        late.result(0)
    assert isinstance(late.exception(0), TimeoutError)
    assert np.array_equal(patient.result(0), generator.generate(1, seed=2))
    stats = batcher.stats()
    assert (stats.expired, stats.completed, stats.images) == (1, 1, 1)


def test_what_was_cancelled_does_not_run_and_makes_room(generator: Generator) -> None:
    batcher, _ = by_hand(generator, max_queue_images=4)
    futures = [batcher.submit(seed=1, first=i) for i in range(4)]
    assert futures[1].cancel()
    assert futures[2].cancel()
    assert not futures[2].done() or futures[2].cancelled()
    futures += [batcher.submit(seed=1, first=i) for i in (4, 5)]
    done, _ = concurrent.futures.wait(futures[1:3], timeout=1)  # they are done for those who wait, too
    assert len(done) == 2
    batcher.close()
    for i in (0, 3, 4, 5):
        assert np.array_equal(futures[i].result(0), generator.generate(1, seed=1, first=i))
    assert (batcher.stats().cancelled, batcher.stats().images) == (2, 4)


def test_a_split_request_can_be_cancelled_until_its_last_rows_run() -> None:
    generator = Generator(session := FakeSession(small_spec(), buckets=(4,)))
    batcher, _ = by_hand(generator)
    future = batcher.submit(n=12)
    batcher.step()
    assert future.cancel()
    assert not batcher.step()
    assert session.batches == [4]
    again = batcher.submit(n=8)
    while batcher.step():
        pass
    assert not again.cancel()
    assert again.result(0).shape == (8, 8, 8, 1)


# Failures


def poison(value: float) -> Callable[[Arrays], bool]:
    return lambda inputs: bool((inputs["z"] == value).any())


def test_a_crash_fails_its_own_request_and_the_innocent_get_their_images(generator: Generator) -> None:
    generator.session.fail_when = poison(666.0)  # type: ignore[attr-defined]
    batcher, _ = by_hand(generator)
    bad = np.full((1, 8), 666.0, np.float32)
    futures = [batcher.submit(seed=1), batcher.submit(bad), batcher.submit(seed=2), batcher.submit(seed=3)]
    batcher.step()
    for seed, i in ((1, 0), (2, 2), (3, 3)):
        assert np.array_equal(futures[i].result(0), generator.generate(1, seed=seed))
    with pytest.raises(BackendError, match="told to fail"):
        futures[1].result(0)
    stats = batcher.stats()
    assert (stats.completed, stats.failed, stats.retried) == (3, 1, 4)


def test_a_request_that_was_alone_is_not_run_twice() -> None:
    generator = fake_generator(buckets=(4,), fail_on={0})
    batcher, _ = by_hand(generator)
    future = batcher.submit(seed=1)
    batcher.step()
    with pytest.raises(BackendError, match="told to fail"):
        future.result(0)
    assert generator.session.batches == [4]  # type: ignore[attr-defined]
    assert batcher.stats().retried == 0


@pytest.mark.parametrize("error", [RuntimeError("segmentation"), MemoryError(), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_backend_raises_reaches_its_request_with_the_cause(error: BaseException) -> None:
    def crash(inputs: Arrays) -> bool:
        raise error

    generator = fake_generator(buckets=(4,))
    with generator.batcher() as batcher:
        generator.session.fail_when = crash  # type: ignore[attr-defined]
        with pytest.raises(BackendError, match="a batch failed") as caught:
            batcher.submit(seed=1).result(10)
        assert caught.value.__cause__ is error
        generator.session.fail_when = None  # type: ignore[attr-defined]
        assert batcher.submit(seed=1).result(10).shape == (1, 8, 8, 3)


def test_a_split_request_fails_as_a_whole_and_its_rest_does_not_run() -> None:
    generator = fake_generator(buckets=(4,), fail_on={1})
    batcher, _ = by_hand(generator)
    future = batcher.submit(n=16)
    while batcher.step():
        pass
    with pytest.raises(BackendError, match="told to fail"):
        future.result(0)
    assert generator.session.batches == [4, 4]  # type: ignore[attr-defined]


def test_callbacks_that_fail_or_submit_do_no_harm(generator: Generator, batcher: Batcher) -> None:
    chained: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def fail(future: object) -> None:
        raise ValueError("in a callback")

    def submit_again(future: object) -> None:
        batcher.submit(seed=2).add_done_callback(lambda f: chained.set_result(f.result()))

    future = batcher.submit(seed=1)
    future.add_done_callback(fail)
    future.add_done_callback(submit_again)
    assert np.array_equal(chained.result(10), generator.generate(1, seed=2))


# The end


def test_closing_loses_nothing(generator: Generator) -> None:
    generator.session.seconds = 0.01  # type: ignore[attr-defined]
    batcher = generator.batcher(max_delay_ms=10_000)
    futures = [batcher.submit(seed=1, first=i, n=3) for i in range(11)]
    batcher.close()
    assert all(f.done() for f in futures)
    for i, future in enumerate(futures):
        assert np.array_equal(future.result(0), generator.generate(3, seed=1, first=i))
    with pytest.raises(BatcherClosed):
        batcher.submit()
    batcher.close()


def test_closing_without_draining_tells_those_who_wait(generator: Generator) -> None:
    batcher, _ = by_hand(generator)
    futures = [batcher.submit(seed=i) for i in range(3)]
    batcher.close(drain=False)
    for future in futures:
        with pytest.raises(BatcherClosed, match="before the request was drawn"):
            future.result(0)
    assert generator.session.batches == []  # type: ignore[attr-defined]


def test_a_generator_drains_its_batchers_when_it_closes(generator: Generator) -> None:
    batcher = generator.batcher()
    futures = [batcher.submit(seed=1, first=i) for i in range(50)]
    generator.close()
    assert all(f.result(0).shape == (1, 8, 8, 3) for f in futures)
    with pytest.raises(BatcherClosed):
        batcher.submit()


def test_a_callback_may_close_the_batcher(generator: Generator) -> None:
    batcher = generator.batcher()
    futures = [batcher.submit(seed=1, first=i) for i in range(9)]
    futures[0].add_done_callback(lambda _: batcher.close())
    assert all(f.result(10).shape == (1, 8, 8, 3) for f in futures)
    batcher.close()


# Whatever the order


def begun(batcher: Batcher, is_interrupted: bool, latents: Any, **arguments: Any) -> concurrent.futures.Future[Any]:
    """What `run` does until it would wait. If it is interrupted, then within the first batch that it runs, if any."""
    ticket, future = batcher._queued(latents, False, **arguments)
    session: Any = batcher._generator.session
    run = session.run

    def interrupt(inputs: Arrays, out: Arrays) -> None:
        raise KeyboardInterrupt

    if is_interrupted:
        session.run = interrupt
    try:
        batcher._worker.lend_thread(ticket)
    except KeyboardInterrupt:
        batcher._worker.abandon(ticket)
        if not future.done():  # nobody but `run` has it
            future = concurrent.futures.Future()
            future.cancel()
            future.set_running_or_notify_cancel()
    finally:
        session.run = run
    return future


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_every_request_ends_once_and_rightly(data: st.DataObject) -> None:
    """Arrivals, cancels, deadlines, waits, failures, lent threads and a close in any order, in virtual time."""
    bad_rows = data.draw(st.booleans(), "some rows are poison")
    failing = data.draw(st.frozensets(st.integers(0, 12), max_size=3), "runs that fail")
    generator = fake_generator(buckets=data.draw(st.sampled_from([(1,), (4,), (1, 4, 8)])), fail_on=failing)
    clean = fake_generator(buckets=generator.session.buckets)
    if bad_rows:
        generator.session.fail_when = poison(666.0)  # type: ignore[attr-defined]
    batcher, clock = by_hand(generator, max_queue_images=30)
    requests: list[tuple[str, int, int, Any]] = []
    refused = 0
    for _ in range(data.draw(st.integers(1, 25), "events")):
        event = data.draw(st.sampled_from(["seed", "latents", "bad", "run", "interrupt", "cancel", "wait", "step"]))
        n = data.draw(st.integers(0, 9)) if event not in ("cancel", "wait", "step") else 0
        timeout = data.draw(st.none() | st.floats(0, 20)) if n else None
        if event not in ("cancel", "wait", "step"):
            first = len(requests) * 16
            z = clean.latents(n, seed=1, first=first)
            if event == "bad":
                z[-1:] = 666.0
            what: dict[str, Any] = {"seed": 1, "first": first, "n": n} if event == "seed" else {"latents": z}
            what |= {"timeout_ms": timeout, "priority": data.draw(st.integers(0, 1))}
            try:
                if event in ("run", "interrupt"):
                    future = begun(batcher, event == "interrupt", **what)
                else:
                    future = batcher.submit(**what)
            except Overloaded:
                refused += 1
                continue
            requests.append((event, first, n, future))
        elif event == "cancel" and requests:
            data.draw(st.sampled_from(requests))[3].cancel()
        elif event == "wait":
            clock.now += data.draw(st.floats(0, 0.02))
        else:
            batcher.step()
    batcher.close(drain=data.draw(st.booleans(), "drain"))
    ends = {"completed": 0, "failed": 0, "cancelled": 0, "expired": 0}
    for event, first, n, future in requests:
        assert future.done()
        if future.cancelled():
            ends["cancelled"] += 1
        elif isinstance(error := future.exception(), DeadlineExceeded):
            ends["expired"] += 1
        elif error is not None:
            assert isinstance(error, BatcherClosed) or (bad_rows and event == "bad") or failing
            ends["failed"] += 1
        else:
            expected = clean.generate(n, seed=1, first=first)
            assert future.result().shape == expected.shape
            assert event == "bad" or np.array_equal(future.result(), expected)
            ends["completed"] += n > 0
    stats = batcher.stats()
    assert {name: getattr(stats, name) for name in ends} == ends
    assert stats.refused == refused
    assert stats.submitted == sum(ends.values())
    assert (stats.queue_images, stats.queue_requests) == (0, 0)


def test_a_request_keeps_what_it_was_given_though_the_caller_changes_it() -> None:
    generator = fake_generator(small_spec(conditional=True), buckets=(4,))
    batcher, _ = by_hand(generator)
    z, label, truncation = generator.latents(2, seed=1), np.array([0, 2]), np.array([0.5, 0.7], np.float32)
    expected = generator(z, label=label, truncation=truncation)
    futures = []
    for _ in range(3):  # one buffer for all requests, as an economical caller has
        z[:] = generator.latents(2, seed=1)
        label[:], truncation[:] = [0, 2], [0.5, 0.7]
        futures.append(batcher.submit(z, label=label, truncation=truncation))
        z[:], label[:], truncation[:] = 666.0, 1, 0.1
    batcher.step()
    batcher.step()
    for future in futures:
        assert np.array_equal(future.result(0), expected)
