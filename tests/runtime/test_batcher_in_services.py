"""The batcher as services use it: many threads, coroutines, forked processes, and hours of requests."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ganruntime
from ganruntime.errors import BackendError, Overloaded
from ganruntime.generator import Generator
from ganruntime.sessions.base import Arrays
from ganruntime.sessions.fake import fake_generator

SUBMITTERS = 64


# Threads


def hammer(generator: Generator, expected: np.ndarray, seconds: float) -> int:
    """64 threads, each submitting at random; every image is held against its (seed, index). How many were checked."""
    stop = time.monotonic() + seconds
    checked = [0] * SUBMITTERS
    problems: list[str] = []

    def submitter(number: int, submit: Callable[..., Any]) -> None:
        random = np.random.default_rng(number)
        while time.monotonic() < stop and not problems:
            first, n = int(random.integers(0, len(expected) - 12)), int(random.choice([1, 1, 1, 2, 12]))
            try:
                future = submit(seed=5, first=first, n=n, priority=int(random.integers(0, 2)))
            except Overloaded as error:
                time.sleep(min(error.retry_after_s, 0.01))
                continue
            if random.random() < 0.05:
                future.cancel()
                continue
            if not np.array_equal(future.result(60), expected[first : first + n]):
                problems.append(f"images {first} to {first + n}")
            checked[number] += n

    with generator.batcher(max_delay_ms=1, max_queue_images=200) as batcher:
        threads = [threading.Thread(target=submitter, args=(i, batcher.submit)) for i in range(SUBMITTERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        stats = batcher.stats()
    assert not problems
    assert not any(t.is_alive() for t in threads)
    assert min(checked) > 0
    assert stats.submitted == stats.completed + stats.cancelled + stats.queue_requests
    assert stats.failed == 0
    return sum(checked)


def hammered(bundle: Path, seconds: float) -> None:
    # One bucket: bit-identical whoever shares the batch, so that a single wrong row would show.
    with ganruntime.load(bundle, "cpu", "onnxruntime", threads=1, buckets=(8,)) as generator:
        expected = generator.generate(300, seed=5)
        assert hammer(generator, expected, seconds) > 100


def test_64_threads_each_get_what_they_asked_for(bundle_path: Path) -> None:
    hammered(bundle_path, 3.0)


@pytest.mark.slow
def test_64_threads_for_a_minute(conditional_path: Path) -> None:
    hammered(conditional_path, 60.0)


def test_one_is_told_apart_from_the_next() -> None:
    """The check above can fail: images that differ by one index do differ."""
    generator = fake_generator(buckets=(8,))
    expected = generator.generate(300, seed=5)
    with pytest.raises(AssertionError):
        hammer(generator, np.roll(expected, 1, axis=0), 0.5)


# Coroutines


def test_coroutines_await_their_images() -> None:
    generator = fake_generator(buckets=(4,))

    async def client(i: int) -> np.ndarray:
        return await generator_batcher.submit_async(seed=3, first=i)

    async def main() -> list[np.ndarray]:
        return await asyncio.gather(*(client(i) for i in range(30)))

    with generator.batcher() as generator_batcher:
        images = asyncio.run(main())
    assert np.array_equal(np.concatenate(images), generator.generate(30, seed=3))


def test_a_task_that_gives_up_takes_its_rows_out() -> None:
    generator = fake_generator(buckets=(1,), seconds=0.2)

    async def main() -> None:
        first = batcher.submit_async(seed=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.submit_async(seed=2), 0.05)
        await first

    with generator.batcher() as batcher:
        asyncio.run(main())
    assert generator.session.batches == [1]  # type: ignore[attr-defined]
    assert batcher.stats().cancelled == 1


def test_outside_of_an_event_loop_the_twin_queues_nothing() -> None:
    with fake_generator().batcher() as batcher:
        with pytest.raises(RuntimeError, match="no running event loop"):
            batcher.submit_async()
        assert batcher.stats().submitted == 0


# Processes


def in_a_fork(work: Callable[[], object]) -> str:
    """What `work` returns or raises in a forked process, which has ten seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = repr(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + 10
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise AssertionError("the forked process hangs")
        time.sleep(0.01)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told_to_load_its_own(bundle_path: Path) -> None:
    generator = ganruntime.load(bundle_path, "cpu", "onnxruntime", threads=2, buckets=(4,))
    expected = generator.generate(2, seed=1)
    with generator.batcher() as batcher:
        batcher.submit(seed=1).result(10)
        # At the worst moment: what the child inherits is locked for ever.
        with batcher._worker._changed, generator._runner.lock:
            found = [
                in_a_fork(lambda: batcher.submit(seed=1)),
                in_a_fork(batcher.stats),
                in_a_fork(lambda: generator.generate(1)),
                in_a_fork(lambda: generator.outputs({"z": np.zeros((1, 8), np.float32)})),
                in_a_fork(generator.batcher),
                in_a_fork(batcher.close),
                in_a_fork(generator.close),
            ]
        for answer in found[:5]:
            assert answer.startswith("BackendError: the")
            assert "after the fork" in answer
        assert found[5:] == ["None", "None"]
        # Loading again works there, and the parent's own goes on.
        loaded = in_a_fork(
            lambda: (
                ganruntime.load(bundle_path, "cpu", "onnxruntime", threads=1, buckets=(4,)).generate(2, seed=1).sum()
            )
        )
        assert loaded == repr(expected.sum())
        assert np.array_equal(batcher.submit(seed=1, n=2).result(10), expected)


def test_what_waits_at_the_exit_of_the_interpreter_is_drawn() -> None:
    script = """
from ganruntime.sessions.fake import fake_generator
generator = fake_generator(buckets=(4,), seconds=0.05)
batcher = generator.batcher()
for i in range(20):
    batcher.submit(seed=1, first=i).add_done_callback(lambda f: print(f.result().shape, flush=True))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["(1, 8, 8, 3)"] * 20
    assert done.stderr == ""


# Memory


def test_hours_of_requests_leave_nothing_behind() -> None:
    generator = fake_generator(buckets=(1, 4))

    def requests(count: int, keep: list[Any]) -> int:
        """Served, cancelled, expired, refused and failed ones; the memory that they leave."""
        generator.session.fail_when = lambda inputs: bool((inputs["z"] == 666.0).any())  # type: ignore[attr-defined]
        bad = np.full(8, 666.0, np.float32)
        with generator.batcher(max_queue_images=16) as batcher:
            batcher.submit().result(10)  # the batcher's thread has its work space from now on
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for i in range(count):
                try:
                    if i % 10 == 3:
                        batcher.submit(seed=i, timeout_ms=0)
                    elif i % 10 == 5:
                        batcher.submit(bad, timeout_ms=1e9).exception(10)
                    else:
                        future = batcher.submit(seed=i, n=1 + i % 3, timeout_ms=1e9)
                        _ = future.cancel() if i % 10 == 7 else keep.append(future.result(10)) if i % 10 == 9 else None
                except Overloaded:
                    pass
            if not keep:
                generator.session.batches.clear()  # type: ignore[attr-defined]
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before

    class Nothing(list[Any]):
        def append(self, item: object) -> None:
            pass

    tracemalloc.start()
    try:
        requests(300, Nothing())
        left = requests(1_200, Nothing())
        kept: list[Any] = []
        control = requests(1_200, kept)
    finally:
        tracemalloc.stop()
    assert left < 40_000
    assert len(kept) >= 100
    assert control > left + 40_000  # what is kept is seen: 120 arrays of images


def test_an_error_of_the_generator_is_an_error_of_the_request(bundle_path: Path) -> None:
    generator = ganruntime.load(bundle_path, "cpu", "onnxruntime", threads=1)
    with generator.batcher() as batcher:
        generator.session.close()
        with pytest.raises(BackendError, match="closed"):
            batcher.submit(seed=1).result(10)


def test_rows_arrive_as_the_session_takes_them() -> None:
    seen: list[Arrays] = []
    generator = fake_generator(buckets=(4,), fail_when=lambda inputs: seen.append(dict(inputs)))
    with generator.batcher() as batcher:
        batcher.submit(np.arange(16, dtype=np.float64).reshape(2, 8)).result(10)
    (inputs,) = seen
    assert (inputs["z"].dtype, inputs["z"].shape, inputs["z"].flags.c_contiguous) == (np.float32, (4, 8), True)
    assert np.array_equal(inputs["z"][:2].ravel(), np.arange(16))
