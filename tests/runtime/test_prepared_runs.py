"""Arrays that are prepared once and run again and again, on every backend that the CPU has."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from small_bundles import small_model, small_spec

from ganruntime import noise
from ganruntime.bundle import Variant
from ganruntime.cores import usable_cores
from ganruntime.errors import BackendError
from ganruntime.sessions.base import Session, empty_outputs
from ganruntime.sessions.fake import FakeSession
from ganruntime.sessions.onnxruntime import OnnxRuntimeSession

SPEC = small_spec(conditional=True)
BATCHES = (1, 2, 5)


def opened(kind: str) -> Session:
    variant, graph = Variant("fp32", "fp32", "onnx", "model.onnx"), small_model(SPEC).SerializeToString()
    if kind == "fake":
        return FakeSession(SPEC, BATCHES)
    if kind == "onnxruntime":
        return OnnxRuntimeSession(SPEC, variant, graph, buckets=BATCHES, threads=1)
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed (extra: openvino)")
    from ganruntime.sessions.openvino import OpenVinoSession

    streams = int(kind.rpartition(" ")[2])
    if streams > usable_cores():
        pytest.skip("OpenVINO gives each stream a core, and there is one")
    return OpenVinoSession(SPEC, variant, graph, buckets=BATCHES, threads=streams, streams=streams)


@pytest.fixture(params=["fake", "onnxruntime", "openvino 1", "openvino 2"])
def session(request: pytest.FixtureRequest) -> Any:
    with opened(request.param) as session:
        yield session


def fresh(session: Session, batch: int, seed: int) -> dict[str, np.ndarray]:
    out = empty_outputs(SPEC, batch)
    session.run(noise.inputs(SPEC, seed, 0, batch), out)
    return dict(out)


def kept(batch: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return noise.inputs(SPEC, 99, 0, batch), empty_outputs(SPEC, batch)


def assert_runs(call: Any, arrays: Any, session: Session, batch: int, seed: int) -> None:
    inputs, out = arrays
    for name, array in noise.inputs(SPEC, seed, 0, batch).items():
        inputs[name][...] = array
    out["image"].fill(np.nan)
    call()
    drawn = out["image"].copy()
    assert np.array_equal(drawn, fresh(session, batch, seed)["image"])


def test_a_prepared_run_reads_what_the_arrays_hold_when_it_is_called(session: Session) -> None:
    for batch in BATCHES:
        arrays = kept(batch)
        call = session.prepared(*arrays)
        for seed in (1, 2, 1):
            assert_runs(call, arrays, session, batch, seed)


def test_prepared_runs_of_one_batch_do_not_mix(session: Session) -> None:
    first, second = kept(2), kept(2)
    calls = [session.prepared(*first), session.prepared(*second)]
    for i, seed in enumerate((1, 2, 3, 4, 5, 6)):
        arrays = (first, second)[i % 2]
        other = (first, second)[1 - i % 2][1]["image"]
        before = other.tobytes()
        assert_runs(calls[i % 2], arrays, session, 2, seed)
        assert other.tobytes() == before


def test_a_prepared_run_follows_a_run_of_the_same_batch_that_failed(session: Session) -> None:
    arrays = kept(2)
    call = session.prepared(*arrays)
    assert_runs(call, arrays, session, 2, 1)
    if not isinstance(session, FakeSession):
        broken = empty_outputs(SPEC, 2)
        broken["image"] = broken["image"][:, :, :1].copy()
        with pytest.raises(BackendError):
            session.run(noise.inputs(SPEC, 1, 0, 2), broken)
    assert_runs(call, arrays, session, 2, 2)


def test_inputs_that_may_not_be_written_to_are_read_all_the_same(session: Session) -> None:
    base, out = kept(2)
    inputs = {name: array.view() for name, array in base.items()}
    for array in inputs.values():
        array.flags.writeable = False
    call = session.prepared(inputs, out)
    for seed in (1, 2):
        assert_runs(call, (base, out), session, 2, seed)


def test_a_prepared_run_of_a_closed_session_is_an_error(session: Session) -> None:
    arrays = kept(1)
    call = session.prepared(*arrays)
    call()
    session.close()
    with pytest.raises(BackendError, match="closed"):
        call()
