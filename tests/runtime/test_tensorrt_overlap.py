"""Pieces of a request on the double: CUDA graphs, two lanes, one thread at a time, and the orders that are wrong."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imaginary_machine import Machine
from tensorrt_bundles import write_bundle

import ganruntime
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.options import BuildOptions
from ganruntime import noise
from ganruntime.bundle import Bundle, Variant, read_bundle
from ganruntime.chunks import chunks_of
from ganruntime.errors import BackendError, InputError
from ganruntime.generator import Generator
from ganruntime.pipeline import drawn
from ganruntime.sessions.base import Arrays, empty_outputs
from ganruntime.sessions.cuda_streams import Event, Stream
from ganruntime.sessions.tensorrt import TensorRTSession
from ganruntime.sessions.tensorrt_lanes import Call, Lane

BUCKETS = (1, 4, 8)
IN, EVENT, RUN, OUT, WAIT = "copy in", "an event", "graph: execute", "copy out", "the host waits for an event"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        Machine().install(patch)
        path: Path = write_bundle(tmp_path_factory.mktemp("overlap") / "tiny.gan", labelled=True).path
        engine_into_bundle(path, BuildOptions(buckets=BUCKETS))
    return read_bundle(path)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine().install(monkeypatch)
    yield machine
    machine.check_is_clean()


@pytest.fixture(scope="module")
def expected(bundle: Bundle) -> Iterator[Callable[[Arrays], np.ndarray]]:
    with ganruntime.load(bundle, device="cpu", backend="onnxruntime", precision="fp32", threads=1) as graph:
        yield lambda inputs: graph.outputs(inputs)["image"]


def engine_of(bundle: Bundle) -> Variant:
    (variant,) = (v for v in bundle.manifest.variants if v.format == "tensorrt")
    return variant


def rows(bundle: Bundle, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {k: np.ascontiguousarray(v) for k, v in noise.inputs(bundle.spec, seed, 0, batch).items()}


def pieces(bundle: Bundle, batches: list[int]) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Inputs of fresh seeds; those of one batch size share their arrays for what comes of them."""
    shared = {batch: dict(empty_outputs(bundle.spec, batch)) for batch in set(batches)}
    return [(rows(bundle, batch, seed), shared[batch]) for seed, batch in enumerate(batches)]


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_every_bucket_runs_as_a_graph(bundle: Bundle, machine: Machine) -> None:
    with TensorRTSession(bundle, engine_of(bundle)) as session:
        assert session.describe()["cuda_graphs"] == {"used": ["1", "4", "8"], "not_used": {}}
        assert len(machine.device.executables) == 2 * len(BUCKETS)
        machine.device.log.clear()
        session.run(rows(bundle, 4), empty_outputs(bundle.spec, 4))
        assert machine.device.log == [IN, IN, EVENT, "a stream waits", RUN, EVENT, "a stream waits", OUT, EVENT, WAIT]


def test_without_graphs_it_says_so(bundle: Bundle, machine: Machine, expected: Callable[[Arrays], np.ndarray]) -> None:
    with TensorRTSession(bundle, engine_of(bundle), graphs=False) as session:
        not_used = dict.fromkeys(["1", "4", "8"], "not asked for")
        assert session.describe()["cuda_graphs"] == {"used": [], "not_used": not_used}
        out = empty_outputs(bundle.spec, 4)
        session.run(rows(bundle, 4), out)
        assert RUN not in machine.device.log
        np.testing.assert_allclose(out["image"], expected(rows(bundle, 4)), atol=1e-6)


def test_an_engine_that_cannot_be_captured_runs_without_and_says_why(
    bundle: Bundle, machine: Machine, expected: Callable[[Arrays], np.ndarray]
) -> None:
    machine.captures = False
    with TensorRTSession(bundle, engine_of(bundle)) as session:
        described = session.describe()["cuda_graphs"]
        assert described["used"] == []
        assert set(described["not_used"]) == {"1", "4", "8"}
        assert "not permitted when stream is capturing" in described["not_used"]["4"]
        for batch in BUCKETS:
            out = empty_outputs(bundle.spec, batch)
            session.run(rows(bundle, batch, 9), out)
            np.testing.assert_allclose(out["image"], expected(rows(bundle, batch, 9)), atol=1e-6)


# --- overlap ----------------------------------------------------------------------------------------------------------


def test_the_next_piece_is_on_the_gpu_before_the_host_waits_for_the_last(bundle: Bundle, machine: Machine) -> None:
    with TensorRTSession(bundle, engine_of(bundle)) as session:
        machine.device.log.clear()
        for _ in session.run_many(iter(pieces(bundle, [8, 8, 8, 4]))):
            pass
        steps = [step for step in machine.device.log if step in (RUN, WAIT)]
        assert steps == [RUN, RUN, WAIT, RUN, WAIT, RUN, WAIT, WAIT]


def test_chunks_of_a_stream_overlap_as_the_pieces_of_a_request_do(bundle: Bundle, machine: Machine) -> None:
    with Generator(TensorRTSession(bundle, engine_of(bundle))) as generator:
        machine.device.log.clear()
        chunks = list(generator.stream(32, seed=5))
        steps = [step for step in machine.device.log if step in (RUN, WAIT)]
        assert steps == [RUN, RUN, WAIT, RUN, WAIT, RUN, WAIT, WAIT]
        assert [len(chunk) for chunk in chunks] == [8] * 4
        assert np.array_equal(np.concatenate(chunks), generator.generate(32, seed=5))


def test_chunks_of_the_pipeline_overlap_too(bundle: Bundle, machine: Machine) -> None:
    with Generator(TensorRTSession(bundle, engine_of(bundle))) as generator:
        machine.device.log.clear()
        with drawn(generator, chunks_of(0, 203, 8), seed=5, first=0) as results:
            images = np.concatenate([result.images for result in results])
        # How many more depends on how fast they are taken: what there is no room for is not begun.
        assert [step for step in machine.device.log if step in (RUN, WAIT)][:3] == [RUN, RUN, WAIT]
        assert np.array_equal(images, generator.generate(203, seed=5))


def test_pieces_come_back_in_order_each_with_its_own_values(
    bundle: Bundle, machine: Machine, expected: Callable[[Arrays], np.ndarray]
) -> None:
    with TensorRTSession(bundle, engine_of(bundle)) as session:
        given_pieces = pieces(bundle, [8, 8, 1, 4, 8, 1, 1])
        for (inputs, out), got in zip(given_pieces, session.run_many(iter(given_pieces)), strict=True):
            assert got is out
            np.testing.assert_allclose(got["image"], expected(inputs), atol=1e-6)


def test_any_run_of_pieces_gives_the_bits_of_each_alone(bundle: Bundle, machine: Machine) -> None:
    with TensorRTSession(bundle, engine_of(bundle)) as session, session.for_worker() as alone:

        @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.lists(st.sampled_from(BUCKETS), max_size=7))
        def check(batches: list[int]) -> None:
            many = [dict(out) for out in map(copied, session.run_many(iter(pieces(bundle, batches))))]
            for (inputs, out), got in zip(pieces(bundle, batches), many, strict=True):
                alone.run(inputs, out)
                np.testing.assert_array_equal(out["image"], got["image"])

        check()


def copied(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}


def test_a_request_of_several_buckets_overlaps_in_the_generator(
    bundle: Bundle, machine: Machine, expected: Callable[[Arrays], np.ndarray]
) -> None:
    with Generator(TensorRTSession(bundle, engine_of(bundle))) as generator:
        machine.device.log.clear()
        images = generator.generate(8 * 20 + 5, seed=3)
        steps = [step for step in machine.device.log if step in (RUN, WAIT)]
        assert steps[:4] == [RUN, RUN, WAIT, RUN]
        inputs = rows(bundle, 165, 3)
        np.testing.assert_allclose(generator.outputs(inputs)["image"], expected(inputs), atol=1e-6)
        whole = np.rint((expected(inputs).transpose(0, 2, 3, 1) + 1) * 127.5)
        np.testing.assert_allclose(images.astype(int), whole, atol=1)


@pytest.mark.parametrize("stops", ["closed", "raises", "bad piece"])
def test_a_run_that_ends_early_leaves_nothing_under_way(bundle: Bundle, machine: Machine, stops: str) -> None:
    with TensorRTSession(bundle, engine_of(bundle)) as session:
        given_pieces = pieces(bundle, [8, 4, 8, 8])
        if stops == "bad piece":
            bad = ({name: array[:3] for name, array in given_pieces[0][0].items()}, given_pieces[0][1])
            with pytest.raises(InputError, match="not a bucket"):
                list(session.run_many(iter([*given_pieces[:1], bad, *given_pieces[1:]])))
        elif stops == "raises":

            def failing() -> Iterator[tuple[Arrays, Arrays]]:
                yield from given_pieces[:2]
                raise RuntimeError("the noise ran out")

            with pytest.raises(RuntimeError, match="ran out"):
                list(session.run_many(failing()))
        else:
            running = session.run_many(iter(given_pieces))
            next(running)
            running.close()
        assert not any(state.queue for state in machine.device.streams.values())
        session.run(*given_pieces[2])


# --- threads ----------------------------------------------------------------------------------------------------------


def test_two_threads_in_one_session_are_refused(bundle: Bundle, machine: Machine) -> None:
    with TensorRTSession(bundle, engine_of(bundle)) as session:
        running = session.run_many(iter(pieces(bundle, [8, 8, 8])))
        next(running)
        with pytest.raises(BackendError, match="two threads run one session at once") as caught:
            session.run(*pieces(bundle, [1])[0])
        assert "for_worker" in str(caught.value)
        running.close()
        session.run(*pieces(bundle, [1])[0])


def test_workers_share_the_engine_and_nothing_else(
    bundle: Bundle, machine: Machine, expected: Callable[[Arrays], np.ndarray]
) -> None:
    first = TensorRTSession(bundle, engine_of(bundle))
    workers = [first, first.for_worker(), first.for_worker()]
    assert (machine.deserialised, len(machine.engines)) == (1, 1)
    memory = [{b.address for lane in w._calls.lanes for b in lane.device.values()} for w in workers]
    assert len(set.union(*memory)) == sum(map(len, memory))
    errors: list[BaseException] = []

    def work(session: TensorRTSession, seed: int) -> None:
        try:
            with session:
                for step in range(4):
                    inputs, out = rows(bundle, 8, seed + step), empty_outputs(bundle.spec, 8)
                    session.run(inputs, out)
                    np.testing.assert_allclose(out["image"], expected(inputs), atol=1e-6)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(w, 100 * i)) for i, w in enumerate(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with pytest.raises(BackendError, match="closed"):
        first.for_worker()
    gc.collect()
    assert len(machine.engines) == 0, "the engine outlived its last session"


def test_generators_over_one_engine_draw_the_same_images(bundle: Bundle, machine: Machine) -> None:
    session = TensorRTSession(bundle, engine_of(bundle))
    with Generator(session) as first, Generator(session.for_worker()) as second:
        np.testing.assert_array_equal(first.generate(11, seed=4), second.generate(11, seed=4))
    assert machine.deserialised == 1


# --- what would be wrong ----------------------------------------------------------------------------------------------


def no_stream_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stream, "wait_for", lambda stream, event: None)


def the_host_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Event, "wait", lambda event: None)


def events_are_recorded_once(patch: pytest.MonkeyPatch) -> None:
    record = Stream.record
    seen: set[int] = set()

    def once(stream: Stream, event: Event) -> None:
        if event.handle not in seen:
            seen.add(event.handle)
            record(stream, event)

    patch.setattr(Stream, "record", once)


def lanes_share_their_memory(patch: pytest.MonkeyPatch) -> None:
    make = Lane.__init__
    first: list[Lane] = []

    def shared(lane: Lane, *arguments: object) -> None:
        make(lane, *arguments)  # type: ignore[arg-type]
        first.append(lane)
        lane.device, lane.pinned = first[0].device, first[0].pinned

    patch.setattr(Lane, "__init__", shared)


def inputs_are_read_later(patch: pytest.MonkeyPatch) -> None:
    """Pinned memory is filled after its copy was asked for."""
    put = Call.put

    def late(call: Call, inputs: Arrays | None, streams: object) -> None:
        put(call, None if inputs is not None else inputs, streams)  # type: ignore[arg-type]
        for name, pinned in call._inputs if inputs is not None else ():
            np.copyto(pinned, inputs[name])  # type: ignore[index]

    patch.setattr(Call, "put", late)


def graphs_are_those_of_the_other_lane(patch: pytest.MonkeyPatch) -> None:
    opened = TensorRTSession._open

    def swapped(session: TensorRTSession, *arguments: object) -> None:
        opened(session, *arguments)  # type: ignore[arg-type]
        one, two = session._calls.lanes
        for key in one.calls:
            one.calls[key].graph, two.calls[key].graph = two.calls[key].graph, one.calls[key].graph

    patch.setattr(TensorRTSession, "_open", swapped)


def addresses_change_after_the_capture(patch: pytest.MonkeyPatch) -> None:
    opened = TensorRTSession._open

    def changed(session: TensorRTSession, *arguments: object) -> None:
        opened(session, *arguments)  # type: ignore[arg-type]
        for lane in session._calls.lanes:
            context = lane.calls[8, None].context
            context.set_tensor_address("z", lane.device["label"].address)

    patch.setattr(TensorRTSession, "_open", changed)


MISTAKES = [
    no_stream_waits,
    the_host_does_not_wait,
    events_are_recorded_once,
    lanes_share_their_memory,
    inputs_are_read_later,
    graphs_are_those_of_the_other_lane,
    addresses_change_after_the_capture,
]


@pytest.mark.parametrize("mistake", [None, *MISTAKES], ids=lambda m: getattr(m, "__name__", "none"))
def test_a_session_with_a_mistake_does_not_pass(
    bundle: Bundle,
    expected: Callable[[Arrays], np.ndarray],
    mistake: Callable[[pytest.MonkeyPatch], None] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What keeps the double honest: each of these sessions is wrong on a GPU, now and then."""
    machine = Machine().install(monkeypatch)

    def run_and_compare() -> None:
        with TensorRTSession(bundle, engine_of(bundle)) as session:
            given_pieces = pieces(bundle, [8, 8, 8, 4])
            for (inputs, _), out in zip(given_pieces, session.run_many(iter(given_pieces)), strict=True):
                np.testing.assert_allclose(out["image"], expected(inputs), atol=1e-6)
        machine.check_is_clean()

    if mistake is None:
        run_and_compare()
        return
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        run_and_compare()
    monkeypatch.undo()
    gc.collect()
