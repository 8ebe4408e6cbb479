"""The harness: who runs when, what counts, and what is made of it."""

from __future__ import annotations

import gc

import pytest

from ganexport.benchmark.rounds import Spread, Timing, interleaved, percentile, ratios, settle


class FakeClock:
    """A clock that only the contenders move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[tuple[str, int]] = []

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, seconds: float):  # type: ignore[no-untyped-def]
        def call(number: int) -> None:
            self.log.append((name, number))
            self.now += seconds

        return call


def order_of(log: list[tuple[str, int]]) -> list[str]:
    """The turns: consecutive calls of one contender are one."""
    names = [name for name, _ in log]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_the_order_rotates_from_round_to_round() -> None:
    clock = FakeClock()
    interleaved({n: clock.contender(n, 1.0) for n in "abc"}, rounds=4, slice_seconds=2.0, clock=clock)
    # Warm-up a b c; then abc, bca, cab, abc: where one turn follows another of the same contender they look like one.
    assert order_of(clock.log) == [*"abc", *"abc", *"bca", *"cab", *"abc"]


def test_a_slice_counts_neither_its_first_call_nor_the_warm_up() -> None:
    clock = FakeClock()
    timing = interleaved({"a": clock.contender("a", 1.0)}, rounds=3, slice_seconds=2.0, clock=clock)["a"]
    assert timing.rounds == ((1.0, 1.0),) * 3
    assert len(clock.log) == 2 + 3 * (1 + 2)


def test_numbers_go_on_from_round_to_round_so_that_inputs_differ() -> None:
    clock = FakeClock()
    interleaved({"a": clock.contender("a", 1.0)}, rounds=3, slice_seconds=2.0, clock=clock)
    assert [number for _, number in clock.log] == [0, 0, 0, 0, 1, 2, 2, 3, 4, 4, 5]


def test_a_slow_contender_finishes_one_call_and_least_calls_are_made() -> None:
    clock = FakeClock()
    slow = interleaved({"a": clock.contender("a", 10.0)}, rounds=2, slice_seconds=1.0, clock=clock)["a"]
    assert slow.rounds == ((10.0,), (10.0,))
    more = interleaved({"a": clock.contender("a", 10.0)}, rounds=2, slice_seconds=1.0, least_calls=3, clock=clock)["a"]
    assert [len(calls) for calls in more.rounds] == [3, 3]


def test_progress_counts_slices_and_the_collector_is_put_back_after_an_error() -> None:
    clock, steps = FakeClock(), []
    interleaved(
        {n: clock.contender(n, 1.0) for n in "ab"}, rounds=3, slice_seconds=1.0, clock=clock, progress=steps.append
    )
    assert steps == [1] * 6

    def failing(number: int) -> None:
        if number:
            raise RuntimeError("broken")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="broken"):
        interleaved({"a": failing}, rounds=1, slice_seconds=1.0)
    assert gc.isenabled()


def test_who_fails_takes_no_more_turns_and_has_no_timing_where_failures_are_collected() -> None:
    clock, failures = FakeClock(), {}

    def late(number: int) -> None:
        clock.log.append(("late", number))
        clock.now += 1.0
        if number == 2:
            raise RuntimeError("broken")

    def at_once(number: int) -> None:
        raise ValueError("never ran")

    timings = interleaved(
        {"a": clock.contender("a", 1.0), "late": late, "at once": at_once},
        rounds=3, slice_seconds=2.0, clock=clock, failures=failures,
    )  # fmt: skip
    assert list(timings) == ["a"]
    assert timings["a"].rounds == ((1.0, 1.0),) * 3
    assert {name: str(error) for name, error in failures.items()} == {"late": "broken", "at once": "never ran"}
    assert [number for name, number in clock.log if name == "late"] == [0, 0, 0, 0, 1, 2]


def test_figures_of_a_timing() -> None:
    timing = Timing(((1.0, 3.0), (2.0, 2.0, 8.0)))
    assert timing.call_count == 5
    assert timing.means() == [2.0, 4.0]
    assert timing.medians() == [2.0, 2.0]
    assert sorted(timing.all_calls) == [1.0, 2.0, 2.0, 3.0, 8.0]


def test_ratios_are_taken_within_rounds() -> None:
    # The machine is half as fast in the second round, for both; the ratio does not see it.
    assert ratios([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]) == Spread(2.0, 2.0, 2.0)
    # The median of ratios is not the ratio of medians.
    assert ratios([1.0, 10.0, 100.0], [1.0, 1.0, 1000.0]).median == 1.0


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (1, 1.0), (50, 50.0), (90, 90.0), (99, 99.0), (99.5, 100.0), (100, 100.0)]
)
def test_percentiles_are_nearest_ranks(percent: float, expected: float) -> None:
    assert percentile([float(v) for v in range(100, 0, -1)], percent) == expected


class Threads:
    """Stands for `time`: other threads take a share of each nap until they stop."""

    def __init__(self, stop_s: float, share: float = 1.0) -> None:
        self.now = self.taken = 0.0
        self.stop_s, self.share = stop_s, share

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.taken

    def sleep(self, seconds: float) -> None:
        self.taken += self.share * max(0.0, min(seconds, self.stop_s - self.now))
        self.now += seconds


@pytest.mark.parametrize(("stop_s", "share", "waited_s"), [(0.0, 1.0, 0.003), (0.04, 1.0, 0.045), (0.04, 0.5, 0.042)])
def test_a_wait_ends_when_the_threads_sleep(
    monkeypatch: pytest.MonkeyPatch, stop_s: float, share: float, waited_s: float
) -> None:
    threads = Threads(stop_s, share)
    monkeypatch.setattr("ganexport.benchmark.rounds.time", threads)
    settle()
    assert threads.now == pytest.approx(waited_s)


def test_threads_that_never_sleep_are_waited_for_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = Threads(1e9)
    monkeypatch.setattr("ganexport.benchmark.rounds.time", threads)
    settle(0.1)
    assert threads.now == pytest.approx(0.1, abs=0.003)


def test_the_wait_comes_before_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr("ganexport.benchmark.rounds.settle", lambda: clock.log.append(("wait", 0)))
    interleaved({n: clock.contender(n, 1.0) for n in "ab"}, rounds=2, slice_seconds=2.0, clock=clock)
    assert order_of(clock.log) == [*"ab", *["wait", "a", "wait", "b"], *["wait", "b", "wait", "a"]]
