"""The double of CUDA holds work to an order: what a GPU might do right and might not is an error here, every time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cuda_double_device import IN_FLIGHT, Access, Work, WrongOrder
from imaginary_machine import Machine

from ganruntime.errors import DeviceError
from ganruntime.sessions.cuda_streams import DeviceBuffer, Event, PinnedBuffer, Stream

N = 64


class Bench:
    """Two streams, an event, and some memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.machine = Machine().install(monkeypatch)
        self.device = self.machine.device
        self.one, self.two, self.event = Stream(), Stream(), Event()
        self.buffer, self.other = DeviceBuffer(N), DeviceBuffer(N)
        self.pinned, self.back = PinnedBuffer(N), PinnedBuffer(N)
        self.values = self.pinned.array((N,), "uint8")
        self.values[:] = range(N)
        self.results = self.back.array((N,), "uint8")

    def kernel(self, stream: Stream, source: DeviceBuffer, target: DeviceBuffer) -> None:
        """target = source + 1"""
        memory = self.device.memory

        def run() -> None:
            memory[target.address][:] = memory[source.address] + 1

        accesses = (Access(source.address, 0, N, False), Access(target.address, 0, N, True))
        self.device.put(stream.handle, Work("kernel", accesses, run))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_what_is_ordered_by_events_gives_the_right_values(bench: Bench) -> None:
    done = Event()
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)
    bench.one.record(bench.event)
    bench.two.wait_for(bench.event)
    bench.kernel(bench.two, bench.buffer, bench.other)
    bench.two.copy_to_host(bench.back, bench.other, N)
    bench.two.record(done)
    assert (bench.results == IN_FLIGHT).all()
    done.wait()
    np.testing.assert_array_equal(bench.results, np.arange(N) + 1)
    assert bench.device.violations == []


def test_what_is_ordered_by_the_host_is_ordered(bench: Bench) -> None:
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)
    bench.one.wait()
    bench.kernel(bench.two, bench.buffer, bench.other)
    bench.two.wait()
    bench.one.copy_to_host(bench.back, bench.other, N)
    bench.one.wait()
    np.testing.assert_array_equal(bench.results, np.arange(N) + 1)


def test_the_host_waits_for_no_more_than_it_asks(bench: Bench) -> None:
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)
    bench.one.record(bench.event)
    bench.one.copy_to_host(bench.back, bench.buffer, N)
    bench.event.wait()
    assert (bench.results == IN_FLIGHT).all()
    bench.one.wait()
    np.testing.assert_array_equal(bench.results, range(N))


def forget_the_event(bench: Bench) -> None:
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)
    bench.kernel(bench.two, bench.buffer, bench.other)


def wait_for_an_older_record(bench: Bench) -> None:
    bench.one.record(bench.event)
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)
    bench.two.wait_for(bench.event)
    bench.kernel(bench.two, bench.buffer, bench.other)


def overwrite_what_is_being_read(bench: Bench) -> None:
    bench.kernel(bench.two, bench.buffer, bench.other)
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)


def change_pinned_memory_in_flight(bench: Bench) -> None:
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)
    bench.values[3] = 200
    bench.one.wait()


def use_pinned_memory_that_is_being_written(bench: Bench) -> None:
    bench.one.copy_to_host(bench.back, bench.buffer, N)
    bench.results[3] = 200
    bench.one.wait()


def write_pinned_memory_from_two_streams(bench: Bench) -> None:
    bench.one.copy_to_host(bench.back, bench.buffer, N)
    bench.two.copy_to_host(bench.back, bench.buffer, N)


def copy_memory_that_is_not_pinned(bench: Bench) -> None:
    bench.pinned.address += 1
    bench.one.copy_to_device(bench.buffer, bench.pinned, 8)


def free_what_is_under_way(bench: Bench) -> None:
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)
    bench.buffer.free()


def wait_for_what_nobody_recorded(bench: Bench) -> None:
    bench.one.wait_for(bench.event)


def let_the_host_wait_for_what_nobody_recorded(bench: Bench) -> None:
    bench.event.wait()


@pytest.mark.parametrize(
    "mistake",
    [
        forget_the_event,
        wait_for_an_older_record,
        overwrite_what_is_being_read,
        change_pinned_memory_in_flight,
        use_pinned_memory_that_is_being_written,
        write_pinned_memory_from_two_streams,
        copy_memory_that_is_not_pinned,
        free_what_is_under_way,
        wait_for_what_nobody_recorded,
        let_the_host_wait_for_what_nobody_recorded,
    ],
)
def test_a_wrong_order_is_found(bench: Bench, mistake: Callable[[Bench], None]) -> None:
    with pytest.raises(WrongOrder):
        mistake(bench)
    assert len(bench.device.violations) == 1
    with pytest.raises(AssertionError):
        bench.machine.check_is_clean()


def test_a_graph_does_again_what_was_captured(bench: Bench) -> None:
    graph = bench.one.captured(lambda: bench.kernel(bench.one, bench.buffer, bench.other))
    assert bench.device.log == []
    for start in (0, 100):
        bench.values[:] = np.arange(start, start + N)
        bench.one.copy_to_device(bench.buffer, bench.pinned, N)
        graph.launch(bench.one)
        bench.one.copy_to_host(bench.back, bench.other, N)
        bench.one.wait()
        np.testing.assert_array_equal(bench.results, np.arange(start, start + N) + 1)
    bench.kernel(bench.two, bench.other, bench.buffer)
    with pytest.raises(WrongOrder):
        graph.launch(bench.one)
    graph.destroy()


@pytest.mark.parametrize("forbidden", ["wait", "allocate"])
def test_what_cannot_be_captured_breaks_the_capture_and_nothing_else(bench: Bench, forbidden: str) -> None:
    def enqueue() -> None:
        bench.kernel(bench.one, bench.buffer, bench.other)
        if forbidden == "wait":
            bench.one.wait()
        else:
            DeviceBuffer(8)

    with pytest.raises(DeviceError, match="cudaErrorStreamCaptureUnsupported"):
        bench.one.captured(enqueue)
    assert bench.machine.last_error is None  # or the next call of TensorRT's would take it for its own
    bench.one.copy_to_device(bench.buffer, bench.pinned, N)
    bench.one.wait()
    assert not bench.device.graphs


def test_a_capture_that_was_broken_in_silence_is_an_error(bench: Bench) -> None:
    def enqueue() -> None:
        bench.device.streams[bench.one.handle].broken = True

    with pytest.raises(DeviceError, match="cannot capture a CUDA graph") as caught:
        bench.one.captured(enqueue)
    assert "cudaErrorStreamCaptureInvalidated" in str(caught.value)
    assert bench.machine.last_error is None


def test_what_is_not_given_back_is_found(bench: Bench) -> None:
    for thing in (bench.buffer, bench.other, bench.pinned, bench.back):
        thing.free()
    bench.one.destroy()
    bench.event.destroy()
    with pytest.raises(AssertionError, match="not given back"):
        bench.machine.check_is_clean()
    bench.two.destroy()
    bench.machine.check_is_clean()
