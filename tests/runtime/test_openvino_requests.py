"""Requests in the caller's own thread: the bits of those in OpenVINO's, and no error lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_bundles import write_small_bundle
from test_sizes import opened, photo, sized_spec

from ganruntime import noise
from ganruntime.errors import BackendError
from ganruntime.generator import load
from ganruntime.sessions.base import empty_outputs
from ganruntime.sessions.openvino_requests import run_at_once, run_in_this_thread
from ganruntime.sizes import spec_at

openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed (extra: openvino)")
from ganruntime.sessions.openvino import OpenVinoSession  # noqa: E402


class Bare:
    """What is under OpenVINO's `infer`, and takes its arguments by position."""

    def infer(self, inputs: dict[str, object], share_outputs: bool, decode_strings: bool) -> None:
        assert isinstance(self, Request)
        self.ran.append("here")
        if not self.fails:
            self.out.fill(self.value)


class Request(Bare):
    """Writes what it is told to; in its caller's thread it says nothing of an error, as OpenVINO's own."""

    def __init__(self, out: np.ndarray, value: float, *, fails: bool = False) -> None:
        self.out, self.value, self.fails = out, value, fails
        self.ran: list[str] = []

    def infer(self, *, share_outputs: bool) -> None:  # type: ignore[override]
        raise AssertionError("not the shortest way")

    def start_async(self) -> None:
        self.ran.append("there")

    def wait(self) -> None:
        if self.fails:
            raise RuntimeError("it failed")
        self.out.fill(self.value)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", "bool", "float16"])
def test_one_run_is_enough_where_the_outputs_changed(dtype: str) -> None:
    out = np.zeros((1, 2, 3), dtype)
    request = Request(out, 1)
    call: Any = run_in_this_thread(request, [out])  # type: ignore[arg-type]
    for _ in range(2):
        call()
        assert np.array_equal(out, np.ones_like(out))
    assert request.ran == ["here", "here"]


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64"])
def test_an_error_that_was_not_said_is_raised(dtype: str) -> None:
    out = np.zeros((1, 2), dtype)
    request = Request(out, 1, fails=True)
    with pytest.raises(RuntimeError, match="it failed"):
        run_in_this_thread(request, [out])()  # type: ignore[arg-type]
    assert request.ran == ["here", "there"]


def test_every_output_is_looked_at() -> None:
    whole, kept = np.zeros(2, np.float32), np.zeros(3, np.uint8)
    request = Request(whole, 1)  # writes one of the two
    run_in_this_thread(request, [whole, kept])()  # type: ignore[arg-type]
    assert request.ran == ["here", "there"]


def test_a_value_like_the_mark_is_a_value() -> None:
    out = np.zeros((1, 4), np.uint8)
    request = Request(out, 0xA5)
    run_in_this_thread(request, [out])()  # type: ignore[arg-type]
    assert out.tolist() == [[0xA5] * 4]
    assert request.ran == ["here", "there"]


def test_where_another_version_takes_other_arguments_its_own_way_is_taken() -> None:
    class Later(Request):
        def infer(self, *, share_outputs: bool) -> None:  # type: ignore[override]
            Bare.infer(self, {}, share_outputs, False)

    out = np.zeros((1, 2), np.float32)
    request = Later(out, 1)  # what it inherits takes no arguments by position
    run_in_this_thread(request, [out])()  # type: ignore[arg-type]
    assert request.ran == ["here"]
    assert out.tolist() == [[1, 1]]


def test_openvino_itself_loses_no_error() -> None:
    """Outputs of another size than the network makes: OpenVINO leaves them as they were."""
    session = opened(OpenVinoSession)
    with session:
        assert isinstance(session, OpenVinoSession)
        small = empty_outputs(spec_at(sized_spec(), (8, 8)), 1)
        request = session._plans[1][0].request
        session._set_tensors(session._plans[1], {"photo": photo(8, 12)}, small)
        with pytest.raises(RuntimeError):
            run_in_this_thread(request, list(small.values()))()
        session._set_tensors(session._plans[1], {"photo": photo(8, 8)}, small)
        run_in_this_thread(request, list(small.values()))()
        expected = {name: array.copy() for name, array in small.items()}
        run_at_once([request])
        assert all(np.array_equal(small[name], array) for name, array in expected.items())


@pytest.mark.parametrize("threads", [1, 2])
def test_the_callers_threads_change_no_bit(tmp_path: Path, threads: int) -> None:
    path = write_small_bundle(tmp_path / "small.gan")
    with load(path, "cpu", "openvino", buckets=[1, 4], threads=threads) as generator:
        spec = generator.spec
        rows = {n: noise.inputs(spec, 5, 0, n) for n in (1, 4)}
        expected = {}
        for n, inputs in rows.items():  # unprepared runs: in OpenVINO's own threads
            expected[n] = empty_outputs(spec, n)
            generator.session.run(inputs, expected[n])
        wrong: list[object] = []

        def run() -> None:
            for n, inputs in rows.items():
                found = generator.outputs(inputs)
                wrong.extend(name for name, array in expected[n].items() if not np.array_equal(found[name], array))

        for _ in range(20):
            several = [threading.Thread(target=run) for _ in range(4)]
            for thread in several:
                thread.start()
            for thread in several:
                thread.join()
        assert wrong == []


def test_a_prepared_run_of_a_batch_that_is_no_bucket_is_an_error(tmp_path: Path) -> None:
    with load(write_small_bundle(tmp_path / "small.gan"), "cpu", "openvino", buckets=[1], threads=1) as generator:
        rows = noise.inputs(generator.spec, 5, 0, 2)
        with pytest.raises(BackendError, match="bucket"):
            generator.session.prepared(rows, empty_outputs(generator.spec, 2))()
