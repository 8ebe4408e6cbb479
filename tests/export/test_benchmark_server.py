"""The server scenario: arrivals, trials in virtual time, the search for a known capacity, and servers that are real."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganexport.benchmark.agreement import check_served
from ganexport.benchmark.arrivals import poisson_arrivals
from ganexport.benchmark.contender import Arrays, EagerPyTorch
from ganexport.benchmark.plain_contenders import PlainOnnxRuntime
from ganexport.benchmark.rate_search import RateSearch
from ganexport.benchmark.runtime_contenders import Runtime, RuntimeImages
from ganexport.benchmark.server_scenario import serve_all
from ganexport.benchmark.servers import BatcherServer, LockedServer, Server, servers_for
from ganexport.benchmark.trial import Trial, WallTime, allowed_late, binomial_cdf, run_trial
from ganexport.benchmark.turns import pool_of
from ganexport.bundling import Exported
from ganexport.source import Source
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.errors import InputError, Overloaded, ParityError
from ganruntime.generator import load

SEEDS = st.integers(0, 2**64 - 1)


@given(seed=SEEDS, stream=st.integers(0, 2**32 - 1), rate=st.floats(1e-3, 1e6), count=st.integers(1, 300))
def test_arrivals_are_a_function_of_seed_and_index(seed: int, stream: int, rate: float, count: int) -> None:
    times = poisson_arrivals(seed, rate, count, stream=stream)
    assert np.array_equal(times, poisson_arrivals(seed, rate, count, stream=stream))
    assert np.array_equal(times[: count // 2], poisson_arrivals(seed, rate, count // 2, stream=stream))
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert np.isfinite(times).all()
    # Another rate is the same pattern, stretched; another stream is another one.
    assert np.allclose(poisson_arrivals(seed, 2 * rate, count, stream=stream), times / 2, rtol=1e-12)
    assert not np.array_equal(times, poisson_arrivals(seed, rate, count, stream=(stream + 1) % 2**32))


@given(seed=SEEDS, rate=st.floats(0.1, 1e5))
@settings(max_examples=25)
def test_arrivals_have_the_rate_and_the_spread_of_a_poisson_process(seed: int, rate: float) -> None:
    count = 20_000
    gaps = np.diff(poisson_arrivals(seed, rate, count)) * rate
    # Six standard errors: of the mean, and of the share of gaps that are longer than the mean one, which is 1/e.
    assert abs(gaps.mean() - 1) < 6 / math.sqrt(count)
    assert abs((gaps > 1).mean() - math.exp(-1)) < 6 * 0.49 / math.sqrt(count)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(InputError):
        poisson_arrivals(0, rate, 3)


class VirtualTime(WallTime):
    """A time in which nobody waits: it moves to the next thing that happens."""

    def __init__(self) -> None:
        self.at = 100.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []

    def now(self) -> float:
        return self.at

    def call_at(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, len(self._events), event))

    def sleep_until(self, at: float) -> None:
        while self._events and self._events[0][0] <= at:
            self.at, _, event = heapq.heappop(self._events)
            event()
        self.at = max(self.at, at)

    def wait_for(self, futures: Sequence[Future[Any]], until: float) -> None:
        while any(not f.done() for f in futures) and self._events and self._events[0][0] <= until:
            self.sleep_until(self._events[0][0])
        if any(not f.done() for f in futures):
            self.sleep_until(until)


class FakeServer:
    """One request after another, each `service_s` long: its capacity is 1 / service_s requests a second."""

    def __init__(self, times: VirtualTime, service_s: float, room: int | None = None) -> None:
        self.times, self.service_s, self.room = times, service_s, room
        self.queue: deque[Future[Any]] = deque()
        self.is_busy = False

    def submit(self, i: int) -> Future[Any]:
        if self.room is not None and len(self.queue) + self.is_busy >= self.room:
            raise Overloaded("full", retry_after_s=0.1)
        future: Future[Any] = Future()
        self.queue.append(future)
        if not self.is_busy:
            self._start_next()
        return future

    def _start_next(self) -> None:
        while self.queue:
            future = self.queue.popleft()
            if future.set_running_or_notify_cancel():  # what was cancelled takes no time
                self.is_busy = True
                self.times.call_at(self.times.now() + self.service_s, partial(self._done, future))
                return
        self.is_busy = False

    def _done(self, future: Future[Any]) -> None:
        future.set_result(None)
        self._start_next()


def even(rate: float, count: int) -> Any:
    return np.arange(count) / rate


def test_a_trial_counts_from_the_schedule_and_not_from_the_sending() -> None:
    """A server twice too slow: request i is answered at (i + 1) · 2 ms, and was due at i ms."""
    times = VirtualTime()
    trial = run_trial(FakeServer(times, 2e-3).submit, even(1000.0, 100), 1000.0, 10.0, times)
    assert trial.requests == 100
    assert trial.late == 0
    assert trial.p50_ms == pytest.approx(51, abs=1e-6)
    assert trial.p99_ms == pytest.approx(100, abs=1e-6)
    assert trial.longest_ms == pytest.approx(101, abs=1e-6)


def test_a_sender_that_is_held_up_counts_the_wait() -> None:
    """`submit` blocks for 50 ms once; the requests that were due meanwhile waited, whoever is to blame."""
    times = VirtualTime()
    server = FakeServer(times, 1e-6)

    def submit(i: int) -> Future[Any]:
        if i == 10:
            times.sleep_until(times.now() + 0.05)
        return server.submit(i)

    trial = run_trial(submit, even(1000.0, 1000), 1000.0, 1.0, times)
    assert trial.longest_ms == pytest.approx(50, abs=0.1)
    assert trial.p99_ms is not None
    assert trial.p99_ms > 39


def test_a_trial_that_cannot_be_mended_is_stopped_and_leaves_the_server_idle() -> None:
    times = VirtualTime()
    server = FakeServer(times, 0.1)
    trial = run_trial(server.submit, even(1000.0, 100_000), 1000.0, 0.05, times)
    assert (trial.p50_ms, trial.p99_ms, trial.passed) == (None, None, False)
    assert times.now() - 100.0 < 70  # and not the hundred seconds of the schedule, or ten thousand of the server
    assert trial.late > allowed_late(100_000)


def test_refused_requests_are_late() -> None:
    times = VirtualTime()
    server = FakeServer(times, 1e-3, room=1)
    arrivals = np.sort(np.concatenate([even(100.0, 500), [1.0001, 2.0001, 3.0001]]))
    trial = run_trial(server.submit, arrivals, 100.0, 0.5, times)
    assert (trial.refused, trial.late, trial.passed) == (3, 3, True)
    everything = run_trial(FakeServer(times, 1e-3, room=0).submit, even(100.0, 200), 100.0, 0.5, times)
    assert (everything.passed, everything.p99_ms, everything.longest_ms) == (False, None, 0.0)


def test_a_request_that_fails_is_no_trial() -> None:
    def broken(i: int) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(RuntimeError("out of memory"))
        return future

    with pytest.raises(RuntimeError, match="out of memory"):
        run_trial(broken, even(100.0, 100), 100.0, 1.0, VirtualTime())


@given(n=st.integers(1, 5000), late=st.integers(0, 5000))
def test_the_nearest_rank_decides_how_many_may_be_late(n: int, late: int) -> None:
    late = min(late, n)
    latencies = sorted([2.0] * late + [1.0] * (n - late))
    nearest_rank = latencies[-(-99 * n // 100) - 1]
    assert (late <= allowed_late(n)) == (nearest_rank == 1.0)


def test_confidence_is_the_binomial_one() -> None:
    assert 1 - binomial_cdf(0, 299, 0.01) == pytest.approx(1 - 0.99**299)
    assert binomial_cdf(1, 3, 0.5) == pytest.approx(0.5)
    assert binomial_cdf(3, 3, 0.5) == 1.0
    assert binomial_cdf(40, 100_000, 0.01) < 1e-200  # where 0.99 ** n is below the smallest float, too
    fewer, more = (Trial(1.0, 1000, late, 0, 1.0, 1.0, 1.0, 1.0, 1.0).confidence for late in (4, 10))
    assert fewer == pytest.approx(0.9713, abs=1e-3)
    assert 0.4 < more < 0.6


def searched(capacity: float, start: float) -> tuple[RateSearch, int]:
    search, trials = RateSearch(start), 0
    while (rate := search.next_rate) is not None:
        trials += 1
        search.learn(rate <= capacity)
    return search, trials


@given(capacity=st.floats(1.0, 1e5), off=st.floats(1 / 30, 30))
def test_a_sharp_edge_is_found_to_five_per_cent(capacity: float, off: float) -> None:
    search, trials = searched(capacity, capacity * off)
    assert search.found is not None
    assert capacity / 1.05 <= search.found <= capacity
    assert trials <= 14


def test_a_server_that_keeps_nothing_up_has_no_rate() -> None:
    search, trials = searched(0.0, 100.0)
    assert search.found is None
    assert trials == 7


def test_a_server_that_keeps_everything_up_ends_the_search() -> None:
    search, trials = searched(math.inf, 1.0)
    assert search.found == 2.0**20
    assert trials == 22


def test_luck_near_the_edge_is_not_confirmed() -> None:
    """Holds once at 200, but never again above 90."""
    search, seen = RateSearch(100.0), []
    while (rate := search.next_rate) is not None:
        seen.append((rate, search.is_confirming))
        search.learn(rate <= 90 if search.is_confirming else rate <= 100)
    assert seen[-1][1]
    assert search.found is not None
    assert 90 / 1.05 <= search.found <= 90


class FakeNamedServer(Server):
    """A fake server as the scenario knows them. Checks are answered at once, with the images of the reference."""

    name, label, includes, floors = "fake", "fake, lock", "nothing", None

    def __init__(self, times: VirtualTime, service_s: float, images: dict[int, Any]) -> None:
        self._server, self._images, self._checks = FakeServer(times, service_s), images, len(images)

    def submit(self, inputs: Arrays) -> Future[Any]:
        if self._checks == 0:
            return self._server.submit(0)
        self._checks -= 1
        future: Future[Any] = Future()
        future.set_result(self._images[id(inputs)])
        return future

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def bundle(exported_once: Exported) -> Bundle:
    return read_bundle(exported_once.path)


@pytest.fixture(scope="module")
def checked(bundle: Bundle, source_once: Source) -> tuple[list[Arrays], list[Arrays]]:
    """Single requests, and what eager PyTorch gives for them."""
    pool = pool_of(bundle, 1)[:16]
    eager = EagerPyTorch(source_once.module, bundle.spec, "cpu", 1)
    return pool, [eager.run(inputs) for inputs in pool]


def images_of(bundle: Bundle, checked: tuple[list[Arrays], list[Arrays]]) -> dict[int, Any]:
    from ganruntime.images import uint8_from_output

    assert bundle.spec.image is not None
    pool, expected = checked
    return {id(p): uint8_from_output(e["image"], bundle.spec.image) for p, e in zip(pool, expected, strict=True)}


@pytest.mark.parametrize("service_ms", [0.5, 4.0])
def test_the_scenario_finds_a_known_capacity(
    bundle: Bundle, checked: tuple[list[Arrays], list[Arrays]], service_ms: float
) -> None:
    """M/D/1: waiting times grow without bound at the capacity and are short well below it. With a limit of 25 services
    the 99th percentile is kept up to about 92 % of it (the tail of the queue falls by exp(-2 (1 - rho) / rho))."""
    times = VirtualTime()
    server = FakeNamedServer(times, service_ms / 1e3, images_of(bundle, checked))
    served, absent = serve_all(
        [server], bundle.spec, *checked, slo_ms=25 * service_ms, least_requests=20_000, least_seconds=0.0,
        start_rates={"fake": 100 / service_ms}, seed=3, times=times,
    )  # fmt: skip
    assert absent == {}
    found, capacity = served["fake"], 1e3 / service_ms
    assert 0.8 * capacity < found.rate_per_second < 0.97 * capacity
    assert found.trial == found.trials[-1]
    assert found.trial is not None
    assert found.trial.passed
    assert found.trial.requests == 20_000
    assert found.confidence == found.trial.confidence
    # The trials that decided: some held and some did not, and the confirmed rate had held before.
    assert {t.passed for t in found.trials} == {True, False}


def test_a_trial_is_longer_than_the_limit_or_overload_would_pass(
    bundle: Bundle, checked: tuple[list[Arrays], list[Arrays]]
) -> None:
    """A hundred requests at once are all answered within 10 s, at any rate: that is no rate that a server keeps up."""
    times = VirtualTime()
    served, _ = serve_all(
        [FakeNamedServer(times, 0.05, images_of(bundle, checked))], bundle.spec, *checked, slo_ms=10_000,
        least_requests=100, least_seconds=0.0, start_rates={"fake": 10.0}, seed=3, times=times,
    )  # fmt: skip
    assert 10 < served["fake"].rate_per_second < 25  # of a capacity of 20


def test_a_server_that_hands_out_the_wrong_image_is_absent(
    bundle: Bundle, checked: tuple[list[Arrays], list[Arrays]]
) -> None:
    times, images = VirtualTime(), images_of(bundle, checked)
    keys = list(images)
    images[keys[3]], images[keys[4]] = images[keys[4]], images[keys[3]]
    server = FakeNamedServer(times, 1e-3, images)
    served, absent = serve_all(
        [server], bundle.spec, *checked, slo_ms=10.0, least_requests=100, least_seconds=0.0,
        start_rates={"fake": 10.0}, seed=0, times=times,
    )  # fmt: skip
    assert served == {}
    assert absent["fake, server"].failed
    assert "pixels differ by up to" in absent["fake, server"].why


def test_real_servers_give_each_request_its_own_image(
    bundle: Bundle, checked: tuple[list[Arrays], list[Arrays]]
) -> None:
    generator = load(bundle, "cpu", threads=1)
    plain = PlainOnnxRuntime(bundle, bundle.variant("fp32"), "cpu", 1)
    servers = servers_for([plain, Runtime(generator), RuntimeImages(generator)], bundle.spec, 1.0)
    assert [type(s) for s in servers] == [LockedServer, BatcherServer]  # one batcher a generator
    assert [s.label for s in servers] == ["plain ONNX Runtime, lock", "ganruntime, batcher"]
    for server in servers:
        assert "from the scheduled time" in server.includes
        assert check_served(server.submit, server.label, None, bundle.spec, *checked)["max_uint8"] <= 1
        with pytest.raises(ParityError):
            check_served(server.submit, server.label, None, bundle.spec, checked[0], checked[1][::-1])
    assert servers[1].images_per_batch() >= 1
    served, absent = serve_all(
        servers, bundle.spec, *checked, slo_ms=20, least_requests=100, least_seconds=0.0,
        start_rates={"onnxruntime": 200.0, "ganruntime": 200.0}, seed=1,
    )  # fmt: skip
    for server in servers:
        server.close()
    assert absent == {}
    for found in served.values():
        assert all(t.requests >= 100 for t in found.trials)
        assert found.trial is None or found.trial.p99_ms is not None
