"""The GPU of the double: memory, streams, events and graphs, and who may touch which memory when.

It keeps CUDA's order, and no more of it: nothing runs before the host waits for it, and then only what it waits for. So
whoever reads too early reads what was there before. And it knows of every two pieces of work whether one comes before
the other, by the order of a stream, by an event or because the host waited; two that touch the same memory, one of them
writing, and are not so ordered, are a `WrongOrder`, whichever of them would have run first. What the host does to
pinned memory is seen by its bytes: those of a copy must be the same when it runs as when it was asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

UNWRITTEN, IN_FLIGHT = 0xA5, 0x5A  # never zero, so that memory that nobody wrote shows
_ALIGNMENT = 256


class WrongOrder(AssertionError):
    """What a real GPU might do right, and might not."""


@dataclass(frozen=True)
class Access:
    """Bytes [start, end) of what `owner` names: an address, or the state of an execution context."""

    owner: object
    start: int
    end: int
    writes: bool

    def clashes(self, other: Access) -> bool:
        overlap = self.owner == other.owner and self.start < other.end and other.start < self.end
        return overlap and (self.writes or other.writes)


@dataclass
class Work:
    """What an operation does, what it touches, and a check before each time that it is put on a stream."""

    name: str
    accesses: Sequence[Access] = ()
    run: Callable[[], None] = lambda: None
    check: Callable[[], None] = lambda: None


@dataclass
class Operation:
    """A piece of work on a stream. clock: {stream: how far it had come} before this began."""

    work: Work
    stream: int
    index: int
    clock: dict[int, int]
    after: tuple[Operation, ...] = ()

    def comes_after(self, other: Operation) -> bool:
        return self.clock.get(other.stream, 0) >= other.index


@dataclass
class StreamState:
    queue: deque[Operation] = field(default_factory=deque)
    clock: dict[int, int] = field(default_factory=dict)
    captured: list[Work] | None = None
    capturing_thread: int = 0
    broken: bool = False  # the capture


class Device:
    """All of it is under one lock: CUDA may be called from any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.memory: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.streams: dict[int, StreamState] = {}
        self.events: dict[int, Operation | None] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.violations: list[str] = []
        self.log: list[str] = []  # what was put on streams and what the host waited for, in its order
        self._host: dict[int, int] = {}
        self._touched: dict[object, list[tuple[Operation, Access]]] = {}
        self._last_handle = 0x5000

    def wrong(self, text: str) -> None:
        self.violations.append(text)
        raise WrongOrder(text)

    def new_handle(self) -> int:
        self._last_handle += 1
        return self._last_handle

    def new_stream(self) -> int:
        handle = self.new_handle()
        self.streams[handle] = StreamState()
        return handle

    def is_empty(self) -> bool:
        return not (self.memory or self.pinned or self.streams or self.events or self.graphs or self.executables)

    # --- memory -------------------------------------------------------------------------------------------------------

    def allocate(self, size_bytes: int, where: dict[int, np.ndarray]) -> int:
        block = np.full(size_bytes + _ALIGNMENT, UNWRITTEN, np.uint8)
        start = -block.ctypes.data % _ALIGNMENT
        memory = block[start : start + size_bytes]
        where[memory.ctypes.data] = memory
        return memory.ctypes.data

    def free(self, address: int, where: dict[int, np.ndarray]) -> bool:
        if address not in where:
            return False
        for state in self.streams.values():
            for operation in state.queue:
                if any(a.owner == address for a in operation.work.accesses):
                    self.wrong(f"memory was freed while {operation.work.name!r} was under way")
        del where[address]
        self._touched.pop(address, None)
        return True

    def bytes_at(self, address: int, size_bytes: int) -> np.ndarray | None:
        """Memory of the GPU from its first byte on; None where there is not so much."""
        memory = self.memory.get(address)
        return memory[:size_bytes] if memory is not None and memory.nbytes >= size_bytes else None

    # --- order --------------------------------------------------------------------------------------------------------

    def put(self, stream: int, work: Work, after: tuple[Operation, ...] = ()) -> Operation | None:
        """At the end of a stream; into its graph while it captures."""
        state = self.streams[stream]
        if state.captured is not None:
            state.captured.append(work)
            return None
        work.check()
        clock = merged(state.clock, self._host, *(operation.clock for operation in after))
        index = state.clock.get(stream, 0) + 1
        operation = Operation(work, stream, index, clock, after)
        self._check_order(operation)
        state.clock = clock | {stream: index}
        operation.clock = state.clock
        state.queue.append(operation)
        self.log.append(work.name)
        return operation

    def _check_order(self, operation: Operation) -> None:
        for access in operation.work.accesses:
            earlier = self._touched.get(access.owner, [])
            for other, touched in earlier:
                if access.clashes(touched) and not operation.comes_after(other):
                    self.wrong(f"{operation.work.name!r} is not ordered after {other.work.name!r}: same memory")
            self._touched[access.owner] = [*earlier, (operation, access)]

    def run_until(self, operation: Operation) -> None:
        """What the host waits for, and nothing that it does not."""
        queue = self.streams[operation.stream].queue if operation.stream in self.streams else deque()
        while queue and queue[0].index <= operation.index:
            first = queue[0]
            for other in first.after:
                self.run_until(other)
            queue.popleft()
            first.work.run()

    def host_waits(self, operation: Operation | None, name: str) -> None:
        self.log.append(name)
        if operation is not None:
            self.run_until(operation)
            self._host = merged(self._host, operation.clock)
            # What the host has waited for comes before everything that it asks for later.
            for owner, earlier in list(self._touched.items()):
                kept = [(o, a) for o, a in earlier if self._host.get(o.stream, 0) < o.index]
                self._touched[owner] = kept
                if not kept:
                    del self._touched[owner]

    def host_waits_for_stream(self, stream: int) -> None:
        queue = self.streams[stream].queue
        self.host_waits(queue[-1] if queue else None, "the host waits for a stream")

    # --- copies -------------------------------------------------------------------------------------------------------

    def copy_in(self, address: int, pinned: int, size_bytes: int) -> Work | None:
        target = self.bytes_at(address, size_bytes)
        source = self._host_memory(pinned, size_bytes)
        if target is None or source is None:
            return None
        asked = source.copy()

        def run() -> None:
            if not np.array_equal(source, asked):
                self.wrong("pinned memory was written to while it was copied to the GPU")
            target[:] = source

        accesses = (Access(pinned, 0, size_bytes, False), Access(address, 0, size_bytes, True))
        return Work("copy in", accesses, run)

    def copy_out(self, pinned: int, address: int, size_bytes: int) -> Work | None:
        source = self.bytes_at(address, size_bytes)
        target = self._host_memory(pinned, size_bytes)
        if target is None or source is None:
            return None
        target.fill(IN_FLIGHT)  # may be written at any time from now on: who reads it before it is there reads this

        def run() -> None:
            if not (target == IN_FLIGHT).all():
                self.wrong("pinned memory was used while what the GPU gave was copied into it")
            target[:] = source

        accesses = (Access(address, 0, size_bytes, False), Access(pinned, 0, size_bytes, True))
        return Work("copy out", accesses, run)

    def _host_memory(self, address: int, size_bytes: int) -> np.ndarray | None:
        memory = self.pinned.get(address)
        if memory is None:
            self.wrong("a copy of memory that is not pinned waits for the GPU, and so nothing overlaps")
            return None
        return memory[:size_bytes] if memory.nbytes >= size_bytes else None

    # --- graphs -------------------------------------------------------------------------------------------------------

    def break_captures(self) -> bool:
        """What may not be captured was done in this thread. Whether that broke a capture."""
        mine = [s for s in self.streams.values() if s.captured is not None and s.capturing_thread == _thread()]
        for state in mine:
            state.broken = True
        return bool(mine)

    def begin_capture(self, stream: int) -> bool:
        state = self.streams[stream]
        if state.captured is not None:
            return False
        state.captured, state.capturing_thread, state.broken = [], _thread(), False
        return True

    def end_capture(self, stream: int) -> int | None:
        """A graph; None where what was done meanwhile cannot be one."""
        state = self.streams[stream]
        works, state.captured = state.captured, None
        if works is None or state.broken:
            return None
        handle = self.new_handle()
        self.graphs[handle] = works
        return handle

    def launch(self, executable: int, stream: int) -> None:
        works = self.executables[executable]

        def check() -> None:
            for work in works:
                work.check()

        def run() -> None:
            for work in works:
                work.run()

        accesses = [access for work in works for access in work.accesses]
        self.put(stream, Work("graph: " + ", ".join(w.name for w in works), accesses, run, check))


def merged(*clocks: Mapping[int, int]) -> dict[int, int]:
    """The later of each stream's places."""
    return {stream: max(c.get(stream, 0) for c in clocks) for stream in _streams(clocks)}


def _streams(clocks: Sequence[Mapping[int, int]]) -> Iterator[int]:
    yield from dict.fromkeys(stream for clock in clocks for stream in clock)


def _thread() -> int:
    return threading.get_ident()
